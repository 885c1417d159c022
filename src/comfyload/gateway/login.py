"""How a browser, which sends no `Authorization`, shows its token: a form, and a cookie that no script can read."""

from __future__ import annotations

from aiohttp import web

from comfyload.gateway.guard import COOKIE, AccessGuard, Denied

LOGIN = "/comfyload/login"
DASHBOARD = "/comfyload/"
KEPT_S = 30 * 86_400

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>comfyload</title>
<style>body{{font:16px system-ui;display:grid;place-content:center;height:90vh}}input,button{{font:inherit}}</style>
</head><body><form method="post"><label>Token
<input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Open</button><p role="alert">{text}</p></form></body></html>
"""


def admitted(request: web.Request, guard: AccessGuard) -> str:
    """Whose call it is.

    Raises:
        Denied: it is nobody's who may call.
    """
    guard.check(request.headers, request.method, request.secure)
    return guard.tenant(request.headers, request.cookies, request.query.get("token"))


def refusal(request: web.Request, denied: Denied) -> web.Response:
    """What is answered to a call that is denied; a browser without a token gets the form."""
    if denied.status == 401 and request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        to = f"?to={DASHBOARD}" if request.path == DASHBOARD else ""
        return web.Response(status=303, headers={"Location": LOGIN + to})
    headers = {"WWW-Authenticate": "Bearer"} if denied.status == 401 else {}
    return web.json_response({"error": denied.why}, status=denied.status, headers=headers)


async def login(request: web.Request, guard: AccessGuard) -> web.StreamResponse:
    """Show the form, or take what was written into it; then the page opens that was wanted."""
    to = DASHBOARD if request.query.get("to") == DASHBOARD else "/"  # never an address that a link made up
    if guard.open:
        return web.Response(status=303, headers={"Location": to})
    if request.method != "POST":
        return _page("", 200)
    if request.content_type != "application/x-www-form-urlencoded":
        return _page("", 415)
    token = (await request.post()).get("token", "")
    if not isinstance(token, str) or guard.tenant_of(token.strip()) is None:
        return _page(f"This is not a token of this {guard.guarded}.", 401)
    answer = web.Response(status=303, headers={"Location": to, "Cache-Control": "no-store"})
    secure = request.secure or request.headers.get("Origin", "").startswith("https://")
    answer.set_cookie(COOKIE, token.strip(), max_age=KEPT_S, path="/", httponly=True, samesite="Strict", secure=secure)
    return answer


def _page(text: str, status: int) -> web.Response:
    return web.Response(
        status=status, text=_PAGE.format(text=text), content_type="text/html", charset="utf-8", headers=_HEADERS
    )
