"""`comfyload.connect`: workflows run from a program, with retries by a policy."""
