"""What a reply means that does not come from a ComfyUI: gateways, guards, logins, web pages. No I/O."""

import html
import re
from typing import Any

import msgspec
from yarl import URL

from comfyload.comfy.address import redirected
from comfyload.comfy.wire.calls import Reply
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import NotComfyUI, NotLetIn, ServerUnreachable
from comfyload.visible import visible

ADDRESS = "give the address that serves /system_stats, with its base path if it has one"
NO_COMFYUI = "is this the address of a ComfyUI?"
_LONGEST = 120
_READ = 1 << 12
"""Bytes of a body that are searched."""
_OF_CLOUDFLARE = {
    520: "its server sends nothing that can be read",
    521: "its server refuses connections",
    522: "its server does not answer",
    523: "its server is out of reach",
    524: "its server takes too long",
    525: "TLS to its server fails",
    526: "its server's certificate is not valid",
    530: "its server or tunnel is gone",
}


def who_answers(reply: Reply, name: str, path: str = "system_stats") -> ServerUnreachable | None:
    """Why this reply to `GET path` is not a ComfyUI's; None: it may be one. `name`: its redacted address.

    A 500 may be ComfyUI's own, and a 200 is judged by its body: neither is refused here unless it is a web page.
    """
    status, words = reply.status, message_in(reply.body, reply.content_type)
    quoted = f': "{words}"' if words else ""
    if 300 <= status < 400 and "location" in reply.headers:
        return _elsewhere(reply, name, path)
    if status in (401, 403, 407):
        return NotLetIn(f"{name} refuses us with HTTP {status}{quoted}", _admission(reply, words))
    if status == 429:
        later = reply.headers.get("retry-after", "")
        hint = f"try again after {later} s" if later.isdecimal() and len(later) < 10 else "wait a while"
        return ServerUnreachable(
            f"{name} answers HTTP 429, too many requests{quoted}", f"{hint}, or raise its limit for this client"
        )
    if status in (502, 503, 504) or status in _OF_CLOUDFLARE:
        why = f" ({_OF_CLOUDFLARE[status]})" if status in _OF_CLOUDFLARE else ""
        return ServerUnreachable(
            f"the gateway at {name} answers {status}{why}{quoted}", "is ComfyUI running behind it?"
        )
    if _is_page(reply):
        return NotComfyUI(f"{name} answers with a web page (HTTP {status}){quoted}, not as a ComfyUI", ADDRESS)
    if status > 500:
        return ServerUnreachable(f"{name} answers HTTP {status}{quoted}", "is ComfyUI running behind it?")
    if status not in (200, 500):
        return NotComfyUI(f"{name} has no /{path} (HTTP {status}){quoted}", NO_COMFYUI)
    return None


def message_in(body: bytes, content_type: str = "") -> str:
    """The message in a body that is not ComfyUI's: of a page its title, of JSON its error; "" if there is none."""
    text = body[:_READ].decode("utf-8", "replace")
    if text.lstrip().startswith("<") or "html" in content_type:
        # What is never closed goes on to the end: else the search would begin anew behind each opening, and be slow.
        title = re.search(r"<title[^<>]*>(.*?)(?:</title|\Z)", text, re.IGNORECASE | re.DOTALL)
        code = re.search(r"error\s{0,9}(?:code)?:?\s{0,9}(?:<[^<>]*>\s{0,9})*(1\d{3})\b", text, re.IGNORECASE)
        bare = re.sub(r"(?is)<(script|style|head)\b.*?(?:</\1\s{0,9}>|\Z)|<[^<>]*>", " ", text)
        text = html.unescape(title[1] if title is not None and title[1].strip() else bare)
        text += f" (error code: {code[1]})" if code is not None and code[1] not in text else ""
    elif text.lstrip().startswith("{"):
        text = _message(text) or text
    line = visible(" ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _message(text: str) -> str:
    try:
        content: Any = decode_json(text, dict[str, Any])
    except msgspec.MsgspecError:
        return ""
    for key in ("error", "message", "detail", "error_description"):
        found = content.get(key)
        found = found.get("message") if isinstance(found, dict) else found
        if isinstance(found, str) and found.strip():
            return found
    return ""


def _elsewhere(reply: Reply, name: str, path: str) -> ServerUnreachable:
    where, same = redirected(URL(name), path, reply.headers["location"])
    if same:
        return NotComfyUI(f"{name} redirects to {where}", "give that address")
    hint = "is it a login? then give its credentials: --header Cookie=env:… or Authorization=env:COMFY_TOKEN"
    return NotComfyUI(f"{name} redirects /{path} to {where}", hint)


def _admission(reply: Reply, words: str) -> str:
    """How to get past a guard."""
    if re.search(r"\b1010\b", words):
        return "its owner bans our user agent: give another, --header User-Agent=Mozilla/5.0, or have it allowed"
    if re.search(r"\b10(0[5-9]|12|20)\b", words):
        return "a rule of its owner bans this client: have it allowed"
    if reply.status == 407:
        return "a proxy wants credentials: --header Proxy-Authorization=env:PROXY_TOKEN"
    if reply.headers.get("www-authenticate", "").lower().startswith("basic"):
        return "give user and password: --server http://USER:PASSWORD@HOST"
    return "give credentials: --header Authorization=env:COMFY_TOKEN"


def _is_page(reply: Reply) -> bool:
    text = reply.body[:200].lstrip().lower()
    return text.startswith((b"<!doctype", b"<html")) or "html" in reply.content_type
