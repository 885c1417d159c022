"""`python -m comfyload`, and the command `comfyload`."""

from __future__ import annotations

import sys

__all__ = ["start"]


def start() -> None:
    """Run the command line. ^C ends it without a traceback while its parts are being read, too."""
    try:
        from comfyload.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    start()
