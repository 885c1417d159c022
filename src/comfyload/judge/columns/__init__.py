"""One pass over the lines of a run, kept as columns of numbers."""
