"""`GET /object_info`: megabytes of every node class, of which little is read."""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Struct

from comfyload.comfy.wire.lenient import ROOMY_VALUES, decode_json, lenient, strict
from comfyload.record.codec import converted


class _Class(Struct, gc=False):
    python_module: Any = None


def decode_modules(body: bytes) -> dict[str, str | None]:
    """`python_module` of each class in the whole of `/object_info`, the rest unread.

    Raises:
        msgspec.MsgspecError: it is not an object of objects.
    """
    try:
        modules = {name: one.python_module for name, one in strict(body, dict[str, _Class], ROOMY_VALUES).items()}
    except msgspec.MsgspecError:
        plain = converted(lenient(body), dict[str, Any])
        modules = {name: one.get("python_module") for name, one in plain.items() if isinstance(one, dict)}
    return {name: module if isinstance(module, str) else None for name, module in modules.items()}


def decode_some(body: bytes, names: Collection[str]) -> dict[str, Any]:
    """These members of a large object, the others unread; members that are not objects are left out.

    Raises:
        msgspec.MsgspecError: it is not an object.
    """
    found = strict(body, dict[str, msgspec.Raw], ROOMY_VALUES)
    members = {name: decode_json(bytes(found[name]), Any) for name in names if name in found}
    return {name: member for name, member in members.items() if isinstance(member, dict)}
