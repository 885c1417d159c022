"""Requests in logs: method, path and status, and which of them are arrivals."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from comfyload.words import fixed

METHODS = (
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "PURGE", "PRI",
)  # fmt: skip
_METHOD = "|".join(METHODS)
_QUOTED = re.compile(rf'"({_METHOD}) (\S+)(?: HTTP/[\d.]+)?"(?:\s+(\d{{3}})\b)?')
_LOOSE = re.compile(
    rf"""(?<![\w/])({_METHOD})["']?[\s,;|]++["']?(/[^\s"',;|]*|https?://[^\s"',;|]+|\*|(?<=CONNECT )\S+)"""
    # What parts them is never given back: a line of spaces would be tried in as many ways as the square of its length.
    r"""(?:["',;|\s]++(?:HTTP/[\d.]+["',;|\s]*+)?(\d{3})\b)?"""
)
_HOST_BETWEEN = re.compile(rf"(?<![\w/])({_METHOD}) (?:https?|wss?|-) \S+ \"(/[^\"\s]*)")
"""nginx-proxy-manager's way."""

_NAMED_METHOD = re.compile(rf"method[\"']?\s*[=:>]\s*[\"']?({_METHOD})\b", re.IGNORECASE)
_NAMED_PATH = re.compile(
    r"(?:path|ur[il]|stem|target)[\"']?\s*[=:>]\s*[\"']?((?:/|https?:)[^\s\"'|,<]*)", re.IGNORECASE
)
_NAMED_STATUS = re.compile(r"status(?:_?code)?[\"']?\s*[=:>]\s*[\"']?(\d{3})\b", re.IGNORECASE)
"""In logfmt (`method=GET`), LTSV (`method:GET`), XML and objects within text."""
_UNREADABLE = re.compile(r'\] "[^"]*" (\d{3}) (?:\d+|-)')
"""A web server's log line for noise on its port, without a request."""

_WORD = re.compile(r"(?<![\w/.-])(GET|POST|PUT|OPTIONS)(?![\w/.-])")
"""A request whose path is not recognized: the file then has no arrivals, which is better than too many."""

_METHOD_KEYS = (
    "request_method", "requestmethod", "request.method", "httprequest.requestmethod", "http.request.method",
    "http_method", "http.method", "httpmethod", "clientrequestmethod", "cs-method", "data.tags.method", "req.method",
    "method", "verb",
)  # fmt: skip
_PATH_KEYS = (
    "request_uri", "requestpath", "request.uri", "request.path", "request.url", "httprequest.requesturl", "url.path",
    "url.original", "http.target", "http.path", "http.url", "clientrequesturi", "clientrequestpath", "cs-uri-stem",
    "cs-uri", ":path", "x-envoy-original-path", "x-envoy-origin-path", "data.tags.url", "req.url", "request_path",
    "requesturi", "uri", "path", "url", "request",
)  # fmt: skip
_STATUS_KEYS = (
    "status", "response_code", "downstreamstatus", "originstatus", "status_code", "statuscode", "responsecode",
    "response.status", "httprequest.status", "http.response.status_code", "edgeresponsestatus", "sc-status",
    "c-status", "data.tags.status", "res.statuscode", "response",
)  # fmt: skip
_TEXT_KEYS = ("request", "log", "message", "msg", "textpayload", "event", "line", "event.original")
_ID = re.compile(r"(?=.*\d)[0-9a-fA-F-]{2,}|\d+|.{30,}")
SENT_AGAIN = frozenset({301, 302, 303, 307, 308, 401, 407})
"""Replies after which a client sends the same request again: elsewhere, or with credentials."""


class LoggedRequest(Struct, frozen=True, kw_only=True):
    """A request in a log. `path`: without query. "": the line does not say, or not readably."""

    method: str
    path: str
    status: int | None = None


class Match(Struct, frozen=True, kw_only=True):
    """Which lines are arrivals: requests by their method ("": any) and the end of their path, or lines with a text."""

    method: str = ""
    path: str = ""
    text: str = ""

    def takes(self, request: LoggedRequest) -> bool:
        if self.method not in ("", request.method):
            return False
        if self.path == "/":
            return request.path == "/"
        pattern = "[^/]*".join(re.escape(part) for part in self.path.split("*"))
        return re.search(f"{pattern}/?$", request.path) is not None

    @property
    def words(self) -> str:
        return f"{self.method or 'of any method'} {self.path if self.path == '/' else f'…{self.path}'}"


def match_of(text: str) -> Match:
    """`POST /generate`, `/generate`, or a text that the lines of arrivals have in them."""
    found = re.fullmatch(rf"(?:({_METHOD}|\*)\s+)?((?:/|https?://)\S*)", text.strip(), re.IGNORECASE)
    if found is None:
        return Match(text=text.strip())
    method = (found[1] or "").upper()
    return Match(method="" if method == "*" else method, path=_path(found[2]))


def request_in(text: str) -> LoggedRequest | None:
    """The request in a line of text; None: there is none."""
    found = _QUOTED.search(text) or _LOOSE.search(text)
    if found is not None:
        return LoggedRequest(method=found[1], path=_path(found[2]), status=_status(found[3]))
    method, path = _NAMED_METHOD.search(text), _NAMED_PATH.search(text)
    if method is not None and path is not None:
        status = _NAMED_STATUS.search(text)
        return LoggedRequest(method=method[1].upper(), path=_path(path[1]), status=_status(status and status[1]))
    apart = _HOST_BETWEEN.search(text)
    if apart is not None:
        return LoggedRequest(method=apart[1], path=_path(apart[2]))
    parted = _in_cells(text)
    if parted is not None:
        return parted
    noise = _UNREADABLE.search(text)
    if noise is not None:
        return LoggedRequest(method="", path="", status=_status(noise[1]))
    word = _WORD.search(text)
    return None if word is None else LoggedRequest(method=word[1], path="")


def _in_cells(text: str) -> LoggedRequest | None:
    """The request of a table's row without a header: a cell that is a method, and a later one that is a path."""
    cells = [cell.strip(" \"'") for cell in re.split(r"[\t,;|]", text)]
    at = next((place for place, cell in enumerate(cells) if cell in METHODS), None)
    if at is None:
        return None
    path = next((cell for cell in cells[at + 1 :] if cell.startswith(("/", "http://", "https://"))), None)
    return None if path is None else LoggedRequest(method=cells[at], path=_path(path))


def request_of(fields: Mapping[str, object]) -> LoggedRequest | None:
    """The request in an object of a log, whose keys are in small letters, those of inner objects dotted."""
    method = next((m for key in _METHOD_KEYS if (m := str(fields.get(key, "")).upper()) in METHODS), None)
    paths = (str(fields[key]) for key in _PATH_KEYS if isinstance(fields.get(key), str))
    path = next((path for path in paths if _is_path(path, bare=method is not None)), None)
    status = next((s for key in _STATUS_KEYS if (s := _status(fields.get(key))) is not None), None)
    if path is not None and (method is not None or status is not None):
        return LoggedRequest(method=method or "", path=_path(path), status=status)
    for key in _TEXT_KEYS:
        text = fields.get(key)
        found = request_in(text) if isinstance(text, str) else None
        if found is not None:
            return LoggedRequest(method=found.method, path=found.path, status=found.status or status)
    return None if method is None else LoggedRequest(method=method, path="")


def listed(requests: Iterable[LoggedRequest], most: int = 3) -> str:
    """`7 GET /history/…, 1 GET /view`: the most frequent, ids left out."""
    counts = Counter(f"{request.method} {_shape(request.path)}".strip() or "unreadable" for request in requests)
    named = [f"{fixed(number, 0)} {what}" for what, number in counts.most_common(most)]
    rest = sum(counts.values()) - sum(number for _, number in counts.most_common(most))
    return ", ".join([*named, f"{fixed(rest, 0)} others"] if rest else named)


def _is_path(text: str, *, bare: bool) -> bool:
    """`bare`: one after a host without a scheme will do."""
    return text.startswith(("/", "http://", "https://")) or (bare and "/" in text and " " not in text)


def _path(url: str) -> str:
    """Without scheme, host, query and fragment."""
    if url.startswith("/"):
        return re.split(r"[?#]", url, maxsplit=1)[0]
    try:
        return urlsplit(url).path or "/"
    except ValueError:
        return "/"


def _shape(path: str) -> str:
    """The path with `…` in place of ids, cut to the length of a line."""
    parts = ["…" if _ID.fullmatch(part) else part for part in path.split("/")]
    return "".join(letter if letter.isprintable() else "?" for letter in "/".join(parts))[:60]


def _status(value: object) -> int | None:
    text = str(value)
    return int(text) if re.fullmatch(r"[1-5]\d\d", text) else None
