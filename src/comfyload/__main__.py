"""`python -m comfyload`, and the command `comfyload`."""

import gc
import sys


def start() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, also while modules are loaded."""
    gc.set_threshold(200_000)  # what modules make stays: to look for garbage among it takes a tenth of the start
    try:
        from comfyload.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    start()
