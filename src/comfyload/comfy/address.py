"""Parses a server's address and headers, and hides what is secret in them."""

import base64
import os
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from yarl import URL

from comfyload.errors import UsageError
from comfyload.hidden import hide

LONGEST = 1000
"""Letters of an address that is shown."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def parse_server(text: str) -> URL:
    """The server's base address with a trailing slash: `127.0.0.1:8188`, `https://host/comfy/`, `http://[::1]:8188`.

    Raises:
        UsageError: it is not an http(s) address.
    """
    url = _http_url(text)
    if url is None:
        hint = "write an http address: http://127.0.0.1:8188"
        if "@" in text:
            hint = "write it as http://USER:PASSWORD@HOST:PORT, with %23 for #, %2F for /, %3A for : in the password"
        raise UsageError(f"invalid --server {masked(text)!r}", hint)
    hide_secrets(url)
    if url.path.rstrip("/").endswith("/prompt"):
        url = url.parent
    return url.with_fragment(None) if url.path.endswith("/") else url.with_path(url.path + "/").with_query(url.query)


def _http_url(text: str) -> URL | None:
    """An http(s) address, with or without its scheme; None: it is not one."""
    try:
        url = read_url(text if "://" in text else f"http://{text}")
        (url.raw_host or "").rstrip(".").encode("idna")  # a host's labels have 1 to 63 letters, RFC 1035
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.host else None


def scrape_url(text: str) -> URL:
    """The address of `--scrape`; of one without a path, `/metrics`.

    Raises:
        UsageError: it is not an http(s) address.
    """
    url = _http_url(text)
    if url is None:
        raise UsageError(f"invalid --scrape {masked(text)!r}", "write it as http://127.0.0.1:9400/metrics")
    hide_secrets(url)
    return url.with_path("/metrics") if url.path in ("", "/") else url


def read_url(text: str) -> URL:
    """The address in any text, checked in all its parts.

    Raises:
        ValueError: it is not an address.
    """
    try:
        url = URL(text)
        _ = url.host, url.port, url.with_path("/").host  # yarl parses these late
    except (LookupError, UnicodeError) as error:  # of a host that yarl does not expect: `[x]:1@`
        raise ValueError(f"not an address: {error}") from None
    return url


def hide_secrets(url: URL) -> None:
    """Remember the secrets of an address: password, values of the query, and a user or a name that stands alone."""
    alone = [] if url.password else [url.user or ""]
    hide(url.password or "", *alone, *url.query.values(), *(name for name, value in url.query.items() if not value))


def redacted(url: URL) -> str:
    """The address without user, password and the values of its query; a name without a value may be a token."""
    shown = url.with_user(None).with_fragment(None)
    if not shown.query:
        return str(shown)
    return str(shown.with_query({name if value else "***": "***" for name, value in shown.query.items()}))


def with_credentials(url: URL, headers: Mapping[str, str]) -> tuple[URL, dict[str, str]]:
    """The address without user and password, and the headers with them, in UTF-8 as RFC 7617 has it.

    Raises:
        UsageError: there are other credentials among the headers, or the user's name holds a colon.
    """
    if url.raw_user is None and url.raw_password is None:
        return url, dict(headers)
    if any(name.lower() == "authorization" for name in headers):
        raise UsageError(
            f"{redacted(url)}: credentials are in the address and in the header Authorization", "give one of them"
        )
    user, password = (unquote_to_bytes(part or "") for part in (url.raw_user, url.raw_password))
    if b":" in user:
        raise UsageError(f"{redacted(url)}: the user's name holds a colon", "no server accepts that: RFC 7617")
    token = base64.b64encode(user + b":" + password).decode()
    hide(token)
    return url.with_user(None), {**headers, "Authorization": f"Basic {token}"}


def redirected(base: URL, path: str, location: str) -> tuple[str, bool]:
    """Where `path` of a server is redirected to, and whether that is another base address of the same server.

    The address may be shown, and given as `--server` if it is a base address.
    """
    if len(location) > LONGEST:
        return f"an address of {len(location)} letters", False
    try:
        target = read_url(str(base.join(URL(path)).join(read_url(location))))
    except ValueError:
        return "an invalid address", False
    if target.scheme not in ("http", "https") or not target.host:
        return f"an address that is not http ({target.scheme or 'nothing'})", False
    there = target.path.rstrip("/")
    if there.endswith(f"/{path}"):
        other = target.with_path(there.removesuffix(path)).with_query(base.query)
        if redacted(other) != redacted(base):
            return redacted(other), True
    return redacted(target.with_query(None)), False


def parse_headers(settings: list[str]) -> dict[str, str]:
    """`NAME=VALUE` and `NAME=env:VAR` settings.

    Raises:
        UsageError: one has no name or value, or names a variable that is not set. The value is never quoted.
    """
    headers: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip()
        if not equals or _NAME.fullmatch(name) is None:
            raise UsageError("invalid --header", "write NAME=VALUE, as in --header Authorization=env:COMFY_TOKEN")
        if value.startswith("env:"):
            variable = value.removeprefix("env:")
            if variable not in os.environ:
                raise UsageError(f"--header {name}: the environment has no {variable}", f"export {variable} first")
            value = os.environ[variable]
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise UsageError(f"--header {name}: its value holds a control character", "check for a trailing newline")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UsageError(f"the value of --header {name} is not UTF-8", "give it in the terminal's encoding")
        hide(value, value.rpartition(" ")[2])  # "Bearer TOKEN": the token alone, too
        headers[name] = value
    return headers


def masked(text: str) -> str:
    """An address that cannot be parsed, without what may be secret in it."""
    scheme, slashes, rest = text.rpartition("://") if "@" not in text else text.partition("://")
    if not slashes:
        scheme, rest = "", text
    _, at, host = rest.rpartition("@")
    shown = f"{scheme}{slashes}{'***@' if at else ''}{host}"
    return shown.partition("?")[0] + ("?***" if "?" in shown else "")
