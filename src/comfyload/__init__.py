"""Load a ComfyUI server and say truthfully what happened."""
