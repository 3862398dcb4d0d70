"""Converts trained networks to recognizers: classifiers of timm and torchvision, and TensorFlow checkpoints."""
