"""What several servers say, as one would say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from comfyload.gateway.files import MARK

Classes = Mapping[str, Any]


def lists(each: Iterable[Sequence[Any]]) -> list[Any]:
    """All items, each once, in the order of the first that has it. Objects are the same if their names are."""
    found: dict[Any, Any] = {}
    for items in each:
        for item in items:
            key = item.get("name", repr(item)) if isinstance(item, dict) else repr(item)
            found.setdefault(key, item)
    return list(found.values())


def classes(each: Mapping[str, Classes]) -> dict[str, Any]:
    """The node classes of all servers, by the servers' names; an input that lets choose offers what any of them does.

    A file that only some servers have gets the mark of one that has it.
    """
    found: dict[str, dict[str, Any]] = {}
    for server, known in each.items():
        for name, info in known.items():
            found.setdefault(name, {})[server] = info
    return {name: _class(infos) for name, infos in found.items()}


def with_uploads(known: Classes, uploads: Sequence[str]) -> dict[str, Any]:
    """The classes, with these files in each list of files to which a page can upload."""

    def offers(_section: str, _name: str, spec: Any) -> Any:
        if not _is_of_files(spec):
            return spec
        # An upload that was brought to a server is in that server's list, too.
        others = [file for file in _options(spec) or [] if not (_is_marked(file) and file.partition("/")[2] in uploads)]
        return _offering(spec, lists([others, uploads]))

    return {name: _mapped(info, offers) for name, info in known.items()}


def _class(infos: dict[str, Any]) -> Any:
    first, *others = infos.values()
    if all(info == first for info in others):
        return first

    def offers(section: str, name: str, spec: Any) -> Any:
        if _options(spec) is None:
            return spec
        each = {server: _options(_inputs(info).get(section, {}).get(name)) or [] for server, info in infos.items()}
        if _is_of_files(spec):
            common = set.intersection(*({str(file) for file in files} for files in each.values()))
            marked = (
                [file if file in common else f"{MARK}{server}/{file}" for file in each[server]] for server in each
            )
            return _offering(spec, lists(marked))
        return _offering(spec, lists(each.values()))

    return _mapped(first, offers)


def _mapped(info: Any, change: Callable[[str, str, Any], Any]) -> Any:
    """A class with its inputs changed; the same object if none is."""
    inputs = _inputs(info)
    new = {
        section: {name: change(section, name, spec) for name, spec in named.items()}
        for section, named in inputs.items()
    }
    return info if new == inputs else info | {"input": info["input"] | new}


def _inputs(info: Any) -> dict[str, Any]:
    found = info.get("input") if isinstance(info, dict) else None
    return {name: named for name, named in found.items() if isinstance(named, dict)} if isinstance(found, dict) else {}


def _options(spec: Any) -> list[Any] | None:
    """What an input lets choose from, in either of ComfyUI's forms; None: it does not."""
    if not isinstance(spec, list) or not spec:
        return None
    settings = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    found = spec[0] if isinstance(spec[0], list) else settings.get("options") if spec[0] == "COMBO" else None
    return found if isinstance(found, list) else None


def _is_of_files(spec: Any) -> bool:
    """Whether a page can upload a file to what the input lets choose from."""
    settings = spec[1] if _options(spec) is not None and len(spec) > 1 and isinstance(spec[1], dict) else {}
    return any(key.endswith("_upload") and bool(value) for key, value in settings.items())


def _is_marked(file: Any) -> bool:
    return isinstance(file, str) and file.startswith(MARK)


def _offering(spec: list[Any], options: list[Any]) -> list[Any]:
    if isinstance(spec[0], list):
        return [options, *spec[1:]]
    return [spec[0], spec[1] | {"options": options}, *spec[2:]]
