"""What the dashboard costs and how fast it is: `python -m bench.dashboard`."""
