"""Writes the reference pages from the code; `generate.py` next to this folder is the command."""
