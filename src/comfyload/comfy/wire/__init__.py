"""ComfyUI's replies and messages, typed and decoded leniently: unknown fields and message types never fail.

A real server emits bare `NaN`, custom nodes add message types, and versions rename fields. What we need is declared
here, by the route that it comes from; everything else is skipped unread. Decoders raise `msgspec.MsgspecError` and
nothing else, whatever the bytes are, and their results can be encoded again: no number is wider than 64 bits, nothing
is nested deeply.
"""

from comfyload.comfy.wire.calls import (
    MAX_BODY_BYTES,
    MAX_DOWNLOAD_BYTES,
    MAX_FACTS_BYTES,
    MAX_FILE_BYTES,
    MAX_MESSAGE_BYTES,
    Download,
    Reply,
    Request,
    TransportError,
)
from comfyload.comfy.wire.classes import decode_modules, decode_some
from comfyload.comfy.wire.history import HistoryEntry, decode_history
from comfyload.comfy.wire.lenient import decode_json
from comfyload.comfy.wire.messages import Data, Message, NodeState, decode_message, decode_messages
from comfyload.comfy.wire.queue import (
    PromptState,
    decode_job_status,
    decode_queue,
    decode_queue_remaining,
    place_in_queue,
)
from comfyload.record.bounds import finite, whole_ms

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_DOWNLOAD_BYTES",
    "MAX_FACTS_BYTES",
    "MAX_FILE_BYTES",
    "MAX_MESSAGE_BYTES",
    "Data",
    "Download",
    "HistoryEntry",
    "Message",
    "NodeState",
    "PromptState",
    "Reply",
    "Request",
    "TransportError",
    "decode_history",
    "decode_job_status",
    "decode_json",
    "decode_message",
    "decode_messages",
    "decode_modules",
    "decode_queue",
    "decode_queue_remaining",
    "decode_some",
    "finite",
    "place_in_queue",
    "whole_ms",
]
