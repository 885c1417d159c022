"""Rules that a run is held against: how they are written, and what the jobs prove of each."""
