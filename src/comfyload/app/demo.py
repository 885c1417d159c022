"""`demo`: a simulated ComfyUI in a process of its own, and a small load against it through sockets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from comfyload import clock
from comfyload.app.run import RunOptions, run
from comfyload.app.summary import report_run
from comfyload.cli.progress import viewer_for
from comfyload.sim.sample import picture

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run_demo"]
