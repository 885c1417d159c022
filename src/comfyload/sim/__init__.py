"""A ComfyUI to test against: the same calls, events, queue, cache and failures, with no model and no GPU."""

from comfyload.sim.faults import Faults, Which
from comfyload.sim.server import Server

__all__ = ["Faults", "Server", "Which"]
