"""In what the servers differ, so that a job may end otherwise on one than on another."""

from collections.abc import Iterator, Sequence
from typing import Any

from comfyload.gateway.fleet import Member

OF_ITS_PLACE = {
    "--listen", "--port", "--tls-keyfile", "--tls-certfile", "--enable-cors-header", "--base-directory",
    "--output-directory", "--temp-directory", "--input-directory", "--user-directory", "--extra-model-paths-config",
    "--database-url", "--cuda-device", "--default-device", "--auto-launch", "--disable-auto-launch", "--log-stdout",
    "--verbose",
}  # fmt: skip
"""ComfyUI's flags that say where it runs, not how."""

MOST_NAMED = 5


def differences(members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """What is not the same on all: by its name, each server's."""
    each = {member.name: dict(_facts(member)) for member in members}
    union = {name for member in members for name in member.classes}
    for member in members:
        missing = sorted(union - member.classes.keys()) if member.classes else []
        names = ", ".join(missing[:MOST_NAMED]) + (" …" if len(missing) > MOST_NAMED else "")
        each[member.name]["missing nodes"] = f"{len(missing)}: {names}" if missing else "none"
    keys = dict.fromkeys(key for facts in each.values() for key in facts)
    table = {key: {name: facts.get(key) for name, facts in each.items()} for key in keys}
    return {key: values for key, values in table.items() if any(one != other for one, other in _pairs(values))}


def _pairs(values: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    first = next(iter(values.values()), None)
    return ((first, value) for value in values.values())


def _facts(member: Member) -> Iterator[tuple[str, Any]]:
    facts = member.facts
    if facts is None:
        return
    yield "ComfyUI", facts.comfyui_version
    yield "PyTorch", facts.system.get("pytorch_version")
    yield "Python", str(facts.system.get("python_version", "")).partition(" ")[0] or None
    yield "page", facts.system.get("required_frontend_version")
    yield "cache", facts.cache_mode
    yield "flags", " ".join(sorted(_flags(facts.argv or [])))


def _flags(argv: Sequence[str]) -> Iterator[str]:
    """Each flag with its values, but for those of its place."""
    flag: list[str] = []
    for word in [*argv, "--"]:
        if word.startswith("--"):
            name = flag[0].partition("=")[0] if flag else ""
            if name.startswith("--") and name not in OF_ITS_PLACE:
                yield " ".join(flag)
            flag = []
        flag.append(word)
