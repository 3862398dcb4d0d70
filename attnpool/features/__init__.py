"""Where images meet a network: batches, extraction, and features kept on disk."""
