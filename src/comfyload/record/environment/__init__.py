"""The system under test: what the server, its machine and its GPUs say of themselves."""
