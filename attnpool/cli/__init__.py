"""The command line: every verb calls one library function."""
