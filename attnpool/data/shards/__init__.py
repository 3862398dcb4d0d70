"""Datasets in shards: tar files of samples, as WebDataset has them, on this disk or at an address."""
