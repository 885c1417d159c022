"""`jobs` and `servers`: what an operator asks a gateway that runs, and has it do."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from comfyload.comfy.address import parse_headers, parse_server
from comfyload.comfy.http import Http
from comfyload.comfy.wire.calls import Request, TransportError
from comfyload.comfy.wire.lenient import decode_json
from comfyload.errors import NotComfyUI, NotLetIn, ServerUnreachable, UsageError
from comfyload.record.codec import UNREADABLE, encode

API = "comfyload/api"
ASK_S, ACT_S = 30.0, 300.0


class Operator:
    """Calls the gateway of that address. `token`: "" sends none."""

    def __init__(self, gateway: str, token: str) -> None:
        self._url = parse_server(gateway)
        self._headers = parse_headers([f"Authorization=Bearer {token}"] if token else [])

    async def ask(self, *path: str, query: Mapping[str, str] | None = None) -> Any:
        """What the gateway says there.

        Raises:
            UsageError: there is nothing of that name.
            ServerUnreachable: no gateway answers, or it does not let us in.
        """
        return await self._call("GET", path, query or {}, None, ASK_S)

    async def act(self, *path: str, body: object = None) -> Any:
        """Have it do something; what it says.

        Raises:
            UsageError: it cannot be done.
            ServerUnreachable: no gateway answers, or it does not let us in.
        """
        return await self._call("POST", path, {}, encode({} if body is None else body), ACT_S)

    async def _call(
        self, method: str, parts: tuple[str, ...], query: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Any:
        path = "/".join([API, *(quote(part, safe="") for part in parts)])
        path = f"{path}?{urlencode(query)}" if query else path
        async with Http.connect(self._url, self._headers) as http:
            try:
                reply = await http.call(Request(method=method, path=path, body=body, timeout_s=timeout_s))
            except TransportError as error:
                raise ServerUnreachable(str(error), "is the gateway up? give its address with --gateway URL") from None
        try:
            answer = decode_json(reply.body, dict[str, Any])
        except UNREADABLE:
            answer = {}
        why = str(answer.get("error") or f"HTTP {reply.status}")
        if reply.status == 401:
            raise NotLetIn(f"{http.name}: {why}", "export COMFYLOAD_TOKEN")
        if reply.status == 200 and answer:
            return answer
        if "error" not in answer:
            raise NotComfyUI(f"{http.name} is no gateway of comfyload: {why}", "give its address with --gateway URL")
        raise UsageError(f"{http.name}: {why}", "")
