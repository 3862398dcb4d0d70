"""Training a recognizer with given options and data: the loop, its losses, optimizer and checkpoints."""
