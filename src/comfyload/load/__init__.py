"""When jobs are due, and the engine that sends them then."""

from comfyload.load.engine import Engine, Stop

__all__ = ["Engine", "Stop"]
