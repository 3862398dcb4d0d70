"""Trained model and data -> scores: metrics, predictions, pointing, late fusion."""
