"""The recognizer (a backbone and a pooling), its handling of clips and persons, and the run folder that holds it."""
