"""Who may call: the host that was named, the page that calls, and the token that names a tenant.

For the gateway, and for the dashboard alike.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

COOKIE = "comfyload_token"
DEFAULT = "default"
"""The tenant of whoever needs no token."""

LOOPBACK_NAMES = ("localhost",)

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


class Headers(Protocol):
    def get(self, name: str, default: str, /) -> str: ...


class Denied(Exception):
    """The call is refused: with which status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class AccessGuard:
    """`tokens`: each tenant's token; None: none is needed. `hosts`: names under which we may be called, apart from the
    addresses of this machine. `guarded`: what we are, in words.
    """

    def __init__(
        self, tokens: Mapping[str, str] | None, hosts: Iterable[str], *, loopback: bool, guarded: str = "gateway"
    ) -> None:
        self.guarded = guarded
        self._tokens = tokens
        self._hosts = {host.lower() for host in hosts}
        self._loopback = loopback

    @property
    def apart(self) -> bool:
        """Whether there are several tenants, who must not see each other's."""
        return self._tokens is not None and len(self._tokens) > 1

    @property
    def open(self) -> bool:
        """Whether nobody needs a token."""
        return self._tokens is None

    def check(self, headers: Headers, method: str, secure: bool) -> None:
        """Refuse calls under a foreign name, and those of other sites' pages.

        Raises:
            Denied: it is one.
        """
        host = headers.get("Host", "")
        self._check_host(host)
        origin = headers.get("Origin", "")
        own = f"{'https' if secure else 'http'}://{host}"
        if origin not in ("", own) and not self._same_behind_a_proxy(origin, host):
            raise Denied(403, "the call comes from another site's page")
        to_a_page = (
            method in ("GET", "HEAD")
            and headers.get("Sec-Fetch-Mode", "") == "navigate"
            and headers.get("Sec-Fetch-Dest", "") in ("", "document")
        )
        if headers.get("Sec-Fetch-Site", "") == "cross-site" and not to_a_page:
            raise Denied(403, "the call comes from another site's page")

    def tenant(self, headers: Headers, cookies: Mapping[str, str], token_in_query: str | None) -> str:
        """Whose call it is.

        Raises:
            Denied: it has no valid token.
        """
        if self._tokens is None:
            return DEFAULT
        kind, _, bearer = headers.get("Authorization", "").partition(" ")
        given = (bearer.strip() if kind.lower() == "bearer" else "", cookies.get(COOKIE, ""), token_in_query or "")
        for token in filter(None, given):
            found = self.tenant_of(token)
            if found is not None:
                return found
        raise Denied(401, "a token is needed: Authorization: Bearer TOKEN, or open /comfyload/login in a browser")

    def tenant_of(self, token: str) -> str | None:
        """Whose token it is; each is compared, so that the time says nothing."""
        found = None
        for tenant, known in (self._tokens or {}).items():
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "backslashreplace")):
                found = tenant
        return found

    def _check_host(self, host: str) -> None:
        """A page whose name was made to point to this machine calls by that name [DNS rebinding]."""
        name = _name_of(host)
        if name and (name in self._hosts or name in LOOPBACK_NAMES):
            return
        try:
            known = ipaddress.ip_address(name).is_loopback or not self._loopback
        except ValueError:
            known = False
        if not known:
            raise Denied(421, f"the {self.guarded} is not called {name!r}: allow it with --allow-host")

    def _same_behind_a_proxy(self, origin: str, host: str) -> bool:
        """A proxy before us may speak TLS: then the page's origin is https, and we are called by http."""
        return origin == f"https://{host}" and _name_of(host) in self._hosts


def _name_of(host: str) -> str:
    """The name in a `Host` header, in lower case; empty: it is not one, and could be read in two ways."""
    if not _HOST.fullmatch(host):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:
        return ""
