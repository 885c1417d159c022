"""A run made by several generators: they are begun, watched to their end, and read as one run."""
