"""A run's options on disk: read from a TOML plan file, written to one without secrets, and hashed."""

import difflib
import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from comfyload.comfy.address import parse_server, redacted, scrape_url
from comfyload.errors import UsageError
from comfyload.record.codec import check_keys, encode
from comfyload.record.gateway_options import ServerTable
from comfyload.record.model import AgainOf
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage
from comfyload.text_files import decode, read_bytes

__all__ = [
    "RunOptions",
    "WorkflowChoice",
    "nearest_key",
    "parse_notes",
    "plan_hash",
    "read_plan",
    "shareable",
    "to_toml",
]

SAVE_PLAN = "comfyload run --save-plan FILE"
"""The command that writes a plan."""


def read_plan(path: Path, kind: type[RunOptions] = RunOptions) -> RunOptions:
    """Read a plan file.

    Raises:
        UsageError: it cannot be read, is not TOML, or has a key or value that no plan has; the nearest known is named.
    """
    text = decode(read_bytes(path, hint="give a plan file"), str(path))
    try:
        content = msgspec.toml.decode(text)
        if "policy" in content:
            content["retry"] = content.pop("policy")
        options = msgspec.convert(content, kind)
        check_keys(content, options)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}", _nearest(str(error))) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: invalid TOML: {error}", f"write a plan with {SAVE_PLAN}") from None
    return options


def shareable(options: RunOptions) -> tuple[RunOptions, list[str]]:
    """The options without what is secret, and what has to be given anew because of it.

    A header's value becomes the name of a variable; user, password and the values of a query leave an address.

    Raises:
        UsageError: an address is invalid.
    """
    headers, anew = [], []
    for header in options.headers:
        name, _, value = header.partition("=")
        if not value.startswith("env:"):
            variable = re.sub(r"\W", "_", name.strip()).upper()
            header = f"{name}=env:{variable}"
            anew.append(f"the value of the header {name.strip()}: export {variable}")
        headers.append(header)
    server, scrape = options.server, options.scrape
    if server and not options.servers and (shown := redacted(parse_server(server))) != str(parse_server(server)):
        server = shown
        anew.append("the address of the server: --server URL")
    if (shown_too := [redacted(scrape_url(url)) for url in scrape]) != [str(scrape_url(url)) for url in scrape]:
        scrape = shown_too
        anew.append("the addresses to read: --scrape URL")
    tables, more = _shareable_tables(options.servers)
    if tables:
        server, anew = tables[0].url, [*anew, *more]
    return structs.replace(options, server=server, servers=tables, headers=headers, scrape=scrape), anew


def _shareable_tables(tables: Sequence[ServerTable]) -> tuple[list[ServerTable], list[str]]:
    """The tables without what is secret, and what has to be given anew because of it."""
    kept, anew = [], []
    for table in tables:
        url = parse_server(table.url)
        if redacted(url) != str(url):
            anew.append(f"the address of the server {redacted(url)}")
            table = structs.replace(table, url=redacted(url))
        secret = [key for key, value in table.headers.items() if key != "Host" and not value.startswith("env:")]
        anew += [f"the header {key} of the server {table.name or table.url}" for key in secret]
        headers = {key: value for key, value in table.headers.items() if key not in secret}
        kept.append(structs.replace(table, headers=headers))
    return kept, anew


def to_toml(options: RunOptions) -> str:
    """The plan file of these options: defaults are left out, secrets stay names of variables.

    Raises:
        UsageError: a name in them is not Unicode, which TOML cannot hold.
    """
    content = _changed(msgspec.to_builtins(options), msgspec.to_builtins(type(options)()))
    content = {"policy" if key == "retry" else key: value for key, value in content.items()}
    try:
        return msgspec.toml.encode(content).decode()
    except UnicodeEncodeError as error:
        bad = error.object[: error.start].rpartition('"')[2] + error.object[error.start :].partition('"')[0]
        raise UsageError(
            f"a plan cannot hold {bad!r}, which is not Unicode", "rename the file, or write the value in UTF-8"
        ) from None


def parse_notes(notes: Sequence[str]) -> dict[str, str]:
    """`KEY=TEXT` each.

    Raises:
        UsageError: one has no key or no text.
    """
    out = {}
    for note in notes:
        key, equals, text = note.partition("=")
        if not (equals and key.strip() and text.strip()):
            raise UsageError(f"--note {note!r} is not KEY=TEXT", "such as --note 'enclosure=Razer Core X'")
        out[key.strip()] = text.strip()
    return out


def plan_hash(options: RunOptions, workflow_hashes: list[str], again_of: AgainOf | None = None) -> str:
    """sha256 over all that decides which jobs are sent and when; where they are sent and kept does not count."""
    plan = msgspec.to_builtins(options.plan)
    if options.plan.max_server_queue is None:
        del plan["max_server_queue"]  # so that plans have the digest that they had before there was such a thing
    deciding = {
        "plan": plan,
        "weights": [choice.weight for choice in options.workflows],
        "settings": options.settings,
        "data": options.data,
        "keep_prefix": options.keep_prefix,
        "workflows": workflow_hashes,
    }
    if again_of is not None:
        deciding["again_of"] = again_of
    return hashlib.sha256(encode(deciding, order="sorted")).hexdigest()


def _nearest(message: str) -> str:
    """A hint for a key that no plan has."""
    kinds = (RunOptions, WorkflowChoice, ServerTable, Plan, Closed, Open, Replay, Stage)
    return nearest_key(message, kinds, f"start from a plan that {SAVE_PLAN} wrote", {"kind"})


def nearest_key(
    message: str, kinds: Sequence[type[Struct]], otherwise: str, more: Collection[str] = frozenset()
) -> str:
    """A hint for msgspec's error: of an unknown key, the nearest of the keys that these kinds have.

    `otherwise`: the hint for any other error. `more`: keys that are no fields.
    """
    unknown = re.search(r"unknown field `([^`]*)`", message)
    if unknown is None:
        return otherwise
    known = sorted({field for kind in kinds for field in kind.__struct_fields__} | set(more))
    near = difflib.get_close_matches(unknown[1], known, 1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def _changed(value: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults; TOML has no null, and a key that is absent stands for it."""
    changed: dict[str, Any] = {}
    for key, item in value.items():
        default = defaults.get(key)
        if isinstance(item, dict) and isinstance(default, dict):
            if inner := _changed(item, default):
                changed[key] = {**inner, **({"kind": item["kind"]} if "kind" in item else {})}
        elif isinstance(item, list):
            if item != default:
                changed[key] = [_changed(part, {}) if isinstance(part, dict) else part for part in item]
        elif item is not None and item != default:
            changed[key] = item
    return changed
