"""Finds the graph in a file: in invalid JSON, in pictures, and in the wrappers of other programs."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from comfyload.errors import WorkflowError
from comfyload.record.codec import within_levels

EXPORT_HINT = "in ComfyUI choose Workflow > Export (API), or Save (API Format) in older versions"

PICTURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG picture"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP picture"),
    (re.compile(rb"\xff\xd8\xff"), "JPEG picture"),
    (re.compile(rb"GIF8[79]a"), "GIF picture"),
    (re.compile(rb"....ftyp", re.DOTALL), "video"),
    (re.compile(rb"\x1aE\xdf\xa3"), "video"),
    (re.compile(rb"fLaC|ID3|OggS"), "sound file"),
)
"""First bytes of files that ComfyUI saves; most hold their graph in the metadata."""

DEEPEST = 12
"""Levels in which a graph is searched."""

NAMED = 3
"""Places that are named where there are several graphs."""


def refuse_pictures(content: bytes, source: str) -> None:
    """Raises WorkflowError where the file is a picture or a video, which may hold a graph in its metadata."""
    for begins, kind in PICTURES:
        if begins.match(content):
            hint = "open it in ComfyUI, which reads the graph from its metadata, and choose Workflow > Export (API)"
            raise WorkflowError(f"{source} is a {kind}, not a workflow", hint)


def load_json(text: str, source: str) -> Any:
    """The value of a JSON text, as `decoded` gives it.

    Raises:
        WorkflowError: it is not JSON, or names a key twice in one object; the message says what it is instead.
    """
    try:
        return decoded(text)
    except RepeatedKey as error:
        text = f"{source} names {json.dumps(str(error))} twice in one object; only the last would count"
        raise WorkflowError(text, "delete the one that is not meant") from None
    except json.JSONDecodeError as error:
        raise WorkflowError(*_no_json(text, source, error)) from None
    except RecursionError:
        raise WorkflowError(f"{source} is nested too deeply to be a graph", EXPORT_HINT) from None
    except ValueError as error:
        raise WorkflowError(f"{source} is not JSON: {error}", EXPORT_HINT) from None


class RepeatedKey(ValueError):
    """One object of a JSON text has this key twice."""


def decoded(text: str) -> Any:
    """The value of a JSON text. Integers keep all their digits.

    Raises:
        RepeatedKey, ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    found = json.loads(text, object_pairs_hook=_object)
    if not within_levels(found):
        raise RecursionError
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return found


def _no_json(text: str, source: str, error: json.JSONDecodeError) -> tuple[str, str]:
    """What is wrong, and how to fix it."""
    if not text.strip():
        return f"{source} is empty", EXPORT_HINT
    rest, before = text[error.pos :].lstrip(), text[: error.pos].rstrip()
    where = f"at line {error.lineno}, column {error.colno}"
    if re.match(r"//|/\*|#", rest):
        return f"{source} has a comment {where}, and JSON has none", "delete it"
    # Python 3.13 points at the comma itself.
    if (rest[:1] in ("}", "]") and before[-1:] == ",") or re.match(r",\s*[}\]]", rest):
        return f"{source} has a comma too many {where}", "delete the comma before the bracket"
    if rest[:1] == "'":
        return f"{source} has text in single quotes {where}, as Python prints it", "write it with json.dump"
    if error.msg == "Extra data" and rest[:1] in ("{", "["):
        return f"{source} holds more than one JSON value, the second {where}", "give one graph a file"
    word = re.match(r"[^\s,:\[\]{}\"]{1,40}", rest)
    if error.msg == "Expecting value" and word is not None:
        return f"{source} has {word[0]} {where}, which is not a JSON value", "put a value in its place"
    hint = "the file may be cut short; export it again" if error.pos >= len(text.rstrip()) - 1 else EXPORT_HINT
    return f"{source} is not JSON: {error.msg} {where}", hint


def find_graph(loaded: Any, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one API graph in a JSON value, and the `extra_data` that is sent with it.

    Known wrappers: the body of `POST /prompt`, a worker's `{"input": {"workflow": …}}`, `{"workflow_json": …}`, what
    the frontend gives as `{"output": …, "workflow": …}`, an entry of the history or the queue, a list of one, and JSON
    text of any of these. An invalid graph passes here, and is refused where its nodes are checked.

    Raises:
        WorkflowError: there is no graph, or several, or only one in the editor's format.
    """
    if isinstance(loaded, dict) and not _is_graph(loaded) and _is_graph(loaded.get("prompt")):
        extra = loaded.get("extra_data")
        return loaded["prompt"], {"extra_data": extra} if isinstance(extra, dict) else {}
    places: dict[str, dict[str, Any]] = {}
    for path, graph in _graphs(loaded):
        if graph not in places.values():
            places[path] = graph
    editors = {path: graph for path, graph in places.items() if _is_editors(graph)}
    found = {path: graph for path, graph in places.items() if path not in editors}
    if len(found) > 1:
        named = ", ".join(list(found)[:NAMED]) + (" …" if len(found) > NAMED else "")
        raise WorkflowError(f"{source} holds {len(found)} graphs, at {named}", "give one graph a file")
    if found:
        return next(iter(found.values())), {}
    if editors:
        path = next(iter(editors))
        at = f" (at {path})" if path else ""
        text = f"{source} is saved in the editor's own format, which the server cannot run{at}"
        raise WorkflowError(text, EXPORT_HINT)
    inner = loaded.get("prompt") if isinstance(loaded, dict) else None
    graph = inner if isinstance(inner, dict) and "class_type" not in inner else loaded
    if not isinstance(graph, dict):
        raise WorkflowError(f"{source} holds a JSON {kind_of(graph)}, not a graph", EXPORT_HINT)
    return graph, {}


def _graphs(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """The graphs in a value, of either format, each with the path to it; not those inside of a graph."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if depth > DEEPEST or not isinstance(value, dict | list):
        return
    if isinstance(value, dict) and (_is_graph(value) or _is_editors(value)):
        yield path, value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
        yield from _graphs(inner, path + step, depth + 1)


def _is_graph(value: Any) -> bool:
    """Whether it has nodes as the server takes them."""
    return isinstance(value, dict) and any(isinstance(node, dict) and "class_type" in node for node in value.values())


def _is_editors(value: Mapping[str, Any]) -> bool:
    """Whether it is what the editor saves."""
    nodes = value.get("nodes")
    return isinstance(nodes, list) and ("links" in value or all(isinstance(node, dict) for node in nodes))


def kind_of(value: object) -> str:
    """What JSON calls a value of this type."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
