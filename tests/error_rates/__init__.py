"""How often what the tool says is wrong, by simulation of servers whose truth is known.

Each module simulates one kind of statement and prints its table with `python -m tests.error_rates.NAME`; the tests
beside it hold the same simulation, with fixed seeds and fewer runs, against the bounds that the docs name.
"""
