"""What the gateway costs, beside a bare server: `python -m bench.gateway`."""
