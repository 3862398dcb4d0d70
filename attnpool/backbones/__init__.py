"""Backbones turn images into features: networks by name, their weights, and changes to their layers."""
