"""Trouble on purpose, whole processes and real sockets; what the server truly executed is the judge.

`python -m tests.chaos` plays each kind of trouble and prints the table of docs/why/guarantees.md; `kills` kills the
process at every point of a job's life; `races` lets two processes into one run directory.
"""
