"""The page at `/`: ComfyUI's own, from the folder it is installed in, or one of ours that says what this is."""

import mimetypes
from pathlib import Path

from comfyload.comfy.wire.calls import Reply
from comfyload.sim.reply import MISSING, text

_OURS = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Simulated ComfyUI</title>
<body style="font: 1rem/1.5 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<h1>A simulated ComfyUI</h1>
<p>This is <code>comfyload sim</code>: it answers as a ComfyUI server does, without a model and without a GPU.
<p>ComfyUI's own page shows here once its package is installed: <code>pip install comfyui-frontend-package</code>.
</html>
"""
_NEVER_KEPT = {"Cache-Control": "no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}


def front_page(folder: Path | None) -> Reply:
    body = _OURS.encode() if folder is None else (folder / "index.html").read_bytes()
    return Reply(status=200, body=body, content_type="text/html", headers=_NEVER_KEPT)


def static_file(folder: Path | None, path: str) -> Reply:
    """A file of the page; nothing outside its folder."""
    if folder is None:
        return MISSING
    try:
        file = (folder / path.lstrip("/")).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.exists():
            return MISSING
    except (OSError, ValueError):  # no name that a file can have
        return MISSING
    if not file.is_file():
        return text(403, "403: Forbidden")
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    headers = {"Cache-Control": "no-store"} if file.suffix in (".js", ".css") else {}
    return Reply(status=200, body=file.read_bytes(), content_type=kind, headers=headers)


def extensions(folder: Path | None) -> list[str]:
    """The addresses of the page's extensions."""
    if folder is None:
        return []
    return ["/" + file.relative_to(folder).as_posix() for file in folder.glob("extensions/**/*.js")]
