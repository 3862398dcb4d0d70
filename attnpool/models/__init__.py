"""Recognizer = backbone + pooling, how it treats clips and persons, and the folder it is kept in."""
