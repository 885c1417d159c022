"""What a reply to `POST /prompt` means: accepted, accepted in part, or refused, and why."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from comfyload.comfy.address import read_url, redacted
from comfyload.comfy.gateway import message_in
from comfyload.comfy.wire.lenient import decode_json
from comfyload.record.bounds import finite
from comfyload.record.model import Failure, FailureKind

LONGEST = 5000
"""Letters of the server's text that are kept."""


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""
    details: str = ""
    extra_info: Any = None


class _Refusal(msgspec.Struct):
    error: _Error | str | None = None
    node_errors: Any = None


def classify_refusal(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Failure:
    """What a reply to `POST /prompt` other than 200 means; the names of `headers` are in lower case."""
    try:
        refusal = decode_json(body, _Refusal)
    except msgspec.MsgspecError:
        refusal = _Refusal()
    error = refusal.error if isinstance(refusal.error, _Error) else _Error(message=str(refusal.error or ""))
    kind: FailureKind
    if status >= 500:
        kind = "server_error"
    elif status == 413:
        kind = "too_large"
    elif status in (401, 403, 407):
        kind = "auth"
    elif status == 400 and error.type == "invalid_prompt_id":
        kind = "invalid_id"
    elif status == 400 and (error.type == "missing_node_type" or "does not exist" in error.message):
        kind = "missing_node"
    elif status == 400 and error.type:
        kind = "validation"
    else:
        kind = "http"
    node, node_class, detail = _first_node_error(refusal.node_errors)
    if kind == "missing_node" and isinstance(error.extra_info, dict):
        node, node_class = _text(error.extra_info.get("node_id")), _text(error.extra_info.get("class_type"))
    message = ": ".join(part for part in (error.message, detail or error.details) if part)
    return Failure(
        kind=kind,
        type=error.type[:LONGEST],
        message=message[:LONGEST] or f"HTTP {status}: {_elsewhere(headers) or message_in(body) or 'no message'}",
        node=node,
        node_class=node_class,
        status=status,
        retry_after_s=_retry_after(headers or {}),
    )


def _elsewhere(headers: Mapping[str, str] | None) -> str:
    """Where the prompt was redirected to, which is not followed; "" if it was not."""
    location = (headers or {}).get("location")
    if not location:
        return ""
    try:
        url = read_url(location).with_query(None)
    except ValueError:
        return "redirected"
    return f"redirected to {redacted(url) if url.absolute else url.path}"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After`; a date counts from the reply's own `Date`, so that our clock does not matter."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())


class _Accepted(msgspec.Struct):
    prompt_id: str
    number: float | None = None
    node_errors: Any = None


def node_errors_of(body: bytes) -> tuple[_Accepted, Failure | None]:
    """A 200 reply to `POST /prompt`, and the failure it hides when some outputs were dropped.

    Raises:
        msgspec.MsgspecError: the reply is not ComfyUI's.
    """
    accepted = decode_json(body, _Accepted)
    accepted.number = finite(accepted.number)
    if not isinstance(accepted.node_errors, dict) or not accepted.node_errors:
        return accepted, None
    node, node_class, detail = _first_node_error(accepted.node_errors)
    dropped = _dropped(accepted.node_errors)
    which = f"outputs {', '.join(dropped)}" if len(dropped) > 1 else f"output {dropped[0]}" if dropped else "outputs"
    return accepted, Failure(
        kind="partial_validation",
        type="node_errors",
        message=f"accepted, but {which} {'was' if len(dropped) == 1 else 'were'} dropped: {detail}"[:LONGEST],
        node=node,
        node_class=node_class,
        status=200,
    )


def _dropped(node_errors: dict[Any, Any]) -> list[str]:
    """The output nodes that a `node_errors` object names as not run."""
    found: dict[str, None] = {}
    for body in node_errors.values():
        outputs = body.get("dependent_outputs") if isinstance(body, dict) else None
        found |= dict.fromkeys(str(output) for output in outputs) if isinstance(outputs, list) else {}
    return list(found)


def _first_node_error(node_errors: Any) -> tuple[str | None, str | None, str]:
    """Node, class and message of the first entry of a `node_errors` object."""
    if not isinstance(node_errors, dict):
        return None, None, ""
    for node, body in node_errors.items():
        if isinstance(body, dict):
            errors = body.get("errors")
            first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
            words = ": ".join(str(first[key]) for key in ("message", "details") if first.get(key))
            return str(node)[:LONGEST], _text(body.get("class_type")), words
    return None, None, ""


def _text(value: object) -> str | None:
    return value[:LONGEST] if isinstance(value, str) else None
