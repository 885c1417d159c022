"""The graph that is sent to the server, its checks, and how its jobs differ."""

from comfyload.workflow.graph import Workflow, parse
from comfyload.workflow.object_info import ObjectInfo
from comfyload.workflow.override import override
from comfyload.workflow.vary import Variation

__all__ = ["ObjectInfo", "Variation", "Workflow", "override", "parse"]
