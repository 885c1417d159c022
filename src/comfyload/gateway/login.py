"""How a browser, which sends no `Authorization`, shows its token: a form, and a cookie that no script can read."""

from __future__ import annotations

from aiohttp import web

from comfyload.gateway.guard import COOKIE, AccessGuard

LOGIN = "/comfyload/login"
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
</head><body><form method="post" action="/comfyload/login"><label>Token
<input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Open</button><p role="alert">{text}</p></form></body></html>
"""


async def login(request: web.Request, guard: AccessGuard) -> web.StreamResponse:
    """Show the form, or take what was written into it."""
    if guard.open:
        return web.Response(status=303, headers={"Location": "/"})
    if request.method != "POST":
        return _page("", 200)
    if request.content_type != "application/x-www-form-urlencoded":
        return _page("", 415)
    token = (await request.post()).get("token", "")
    if not isinstance(token, str) or guard.tenant_of(token.strip()) is None:
        return _page("This is not a token of this gateway.", 401)
    answer = web.Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})
    secure = request.secure or request.headers.get("Origin", "").startswith("https://")
    answer.set_cookie(COOKIE, token.strip(), max_age=KEPT_S, path="/", httponly=True, samesite="Strict", secure=secure)
    return answer


def _page(text: str, status: int) -> web.Response:
    return web.Response(
        status=status, text=_PAGE.format(text=text), content_type="text/html", charset="utf-8", headers=_HEADERS
    )
