"""The parts of the benchmark: each module says what its cases are."""
