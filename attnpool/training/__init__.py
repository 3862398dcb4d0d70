"""Options and data -> a trained recognizer: the loop, its losses, optimizer and checkpoints."""
