"""Benchmarks: `python -m bench` compares comfyload with other clients and with what the machine allows."""
