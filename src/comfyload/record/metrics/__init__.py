"""The instrumentation log, `comfyui_metrics.ndjson`: its files, its rows, and our own among them."""
