"""Features of images: their extraction, their cache on disk, and batches of images or features."""
