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
<html lang="en"><head><meta charset="utf-8"><title>Token · comfyload</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="dark light">
<style>
:root{{--ground:#f4f4f5;--card:#fff;--line:#c9cad0;--ink:#202121;--muted:#5b5d66;--bad:#b1221a;--act:#0b6fc0}}
@media(prefers-color-scheme:dark){{:root{{--ground:#171718;--card:#262729;--line:#4a4b52;--ink:#f5f5f6;--muted:#a5a7b4;
--bad:#ff857e;--act:#0b72bf}}}}
body{{margin:0;min-height:90vh;display:grid;place-items:center;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}}
form{{box-sizing:border-box;width:min(26rem,calc(100vw - 28px));padding:24px 26px;border:1px solid var(--line);
border-radius:12px;background:var(--card);display:grid;gap:12px}}
h1{{margin:0;font-size:1.3rem}} p{{margin:0;color:var(--muted)}} p[role]{{color:var(--bad);font-weight:600}}
p[role]:empty{{display:none}} label{{font-weight:600}}
input,button{{box-sizing:border-box;width:100%;min-height:42px;padding:6px 12px;border:1px solid var(--line);
border-radius:8px;font:inherit}}
input{{margin-top:4px;background:var(--ground);color:inherit}}
button{{background:var(--act);border-color:var(--act);color:#fff;font-weight:600;cursor:pointer}}
:focus-visible{{outline:2px solid var(--act);outline-offset:2px}}
</style></head><body><main><form method="post"><h1>comfyload</h1>
<p>This {guarded} is only for those who know its token. Whoever started it has one: in its settings, or printed in
its terminal.</p><label>Token
<input type="password" name="token" autocomplete="current-password" autofocus required></label>
<p role="alert">{text}</p><button>Open</button></form></main></body></html>
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
        return _page("", 200, guard)
    if request.content_type != "application/x-www-form-urlencoded":
        return _page("", 415, guard)
    token = (await request.post()).get("token", "")
    if not isinstance(token, str) or guard.tenant_of(token.strip()) is None:
        return _page(f"This is not a token of this {guard.guarded}.", 401, guard)
    answer = web.Response(status=303, headers={"Location": to, "Cache-Control": "no-store"})
    secure = request.secure or request.headers.get("Origin", "").startswith("https://")
    answer.set_cookie(COOKIE, token.strip(), max_age=KEPT_S, path="/", httponly=True, samesite="Strict", secure=secure)
    return answer


def _page(text: str, status: int, guard: AccessGuard) -> web.Response:
    page = _PAGE.format(text=text, guarded=guard.guarded)
    return web.Response(status=status, text=page, content_type="text/html", charset="utf-8", headers=_HEADERS)
