"""Writes the reference pages from the code; `generate.py` beside this folder is the command."""
