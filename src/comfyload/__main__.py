"""`python -m comfyload`, and the command `comfyload`."""

import sys


def start() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, also while modules are loaded."""
    try:
        from comfyload.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    start()
