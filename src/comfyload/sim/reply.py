"""The forms a reply of ComfyUI takes."""

import json

from comfyload.comfy.wire.calls import Reply


def json_reply(body: object, status: int = 200) -> Reply:
    """Encoded by Python's own encoder, as on a real server: NaN comes out bare."""
    return Reply(status=status, body=json.dumps(body).encode(), content_type="application/json; charset=utf-8")


def text(status: int, body: str) -> Reply:
    return Reply(status=status, body=body.encode(), content_type="text/plain; charset=utf-8")


def empty(status: int) -> Reply:
    return Reply(status=status, body=b"")


NOT_FOUND = text(404, "404: Not Found")
MISSING = Reply(status=404, body=b"", content_type="application/octet-stream")
"""What the static files answer, to which every GET of no route falls through."""
SERVER_ERROR = text(500, "500 Internal Server Error\n\nServer got itself in trouble")


def traceback(*frames: tuple[str, int, str]) -> list[str]:
    """The lines that Python writes down of an error, for frames of (file, line, function)."""
    return [f'  File "/comfyui/{file}", line {line}, in {function}\n    ...\n' for file, line, function in frames]
