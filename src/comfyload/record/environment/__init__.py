"""The system under test: facts of the server, its machine and its GPUs."""
