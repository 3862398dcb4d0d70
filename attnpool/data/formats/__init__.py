"""Layouts on disk -> samples: one reader a format."""
