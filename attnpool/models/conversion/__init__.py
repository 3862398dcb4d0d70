"""Trained networks -> recognizers: classifiers of timm and torchvision, and TensorFlow checkpoints."""
