"""`python -m comfyload`."""

from comfyload.cli import main

main()
