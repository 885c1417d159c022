"""What a reader must know before a number: each check that may speak against a run."""
