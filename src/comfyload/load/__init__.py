"""When jobs are due, and the engine that sends them then."""

from comfyload.load.arrivals import Closed
from comfyload.load.engine import Stop, drive

__all__ = ["Closed", "Stop", "drive"]
