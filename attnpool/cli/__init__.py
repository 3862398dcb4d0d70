"""The command line: a verb is one library function."""
