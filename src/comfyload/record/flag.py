"""Flags as metadata: what the command line says of a field of a run's options, and all fields that have such a flag."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import FieldInfo, fields

LOAD = "Load"
WORK = "Jobs"
SERVER = "Server"
RESULT = "Output"
JUDGE = "Gates"


Kind = Literal["switch", "number", "duration", "text", "texts"]
"""How a flag's value is written; a `float` whose name ends in `_s` is a duration."""


class Flag(Struct, frozen=True):
    """A flag of the command line that sets a field; it stands in the field's `Annotated`.

    `metavar` "": a switch, which sets the opposite of the field's default. `default`: words for a default that is not a
    value of the field. `least`: the least that the command line takes, where the field's type allows less; `most`: the
    most. `many`: it may be given several times, as every flag of a list of texts may. `old`: an earlier name, which
    still works. `repeat` False: the command that repeats a run leaves it out.
    """

    name: str
    metavar: str
    help: str
    panel: str | None = None
    short: str = ""
    default: str = ""
    env: str | None = None
    least: float | None = None
    most: float | None = None
    many: bool = False
    old: str = ""
    repeat: bool = True


class OptionFlag(Struct, frozen=True, kw_only=True):
    """A flag and the field that it sets.

    `path`: names of fields, from the options down. `of`: the field's type. `least`: the least value; None: any.
    """

    flag: Flag
    path: tuple[str, ...]
    kind: Kind
    of: Any
    default: Any
    least: float | None

    @property
    def parameter(self) -> str:
        """The flag's name in Python: `max_jobs` of `--max-jobs`."""
        return self.flag.name.removeprefix("--").replace("-", "_")

    def holder(self, options: Struct) -> Any:
        """The struct at the end of the path, which may be of a kind that has no such field."""
        found: Any = options
        for name in self.path[:-1]:
            found = getattr(found, name)
        return found

    def value(self, options: Struct) -> Any:
        """The field's value, or its default where the options have no such field."""
        return getattr(self.holder(options), self.path[-1], self.default)


def flags_of(kind: type[Struct]) -> dict[str, OptionFlag]:
    """Every flag of the struct and of the structs in it, by its name in Python; the first, where two have one name."""
    found: dict[str, OptionFlag] = {}
    for flag in _walk(kind, ()):
        found.setdefault(flag.parameter, flag)
    return found


def flags_on(hint: object) -> list[Flag]:
    """The flags that set a field of this type."""
    return [part for part in _parts(hint) if isinstance(part, Flag)]


def _walk(kind: type[Struct], above: tuple[str, ...]) -> Iterator[OptionFlag]:
    for field in fields(kind):
        yield from (_flag(flag, field, above) for flag in flags_on(field.type))
        for inner in _parts(field.type):
            if isinstance(inner, type) and issubclass(inner, Struct):
                yield from _walk(inner, (*above, field.name))


def _flag(flag: Flag, field: FieldInfo, above: tuple[str, ...]) -> OptionFlag:
    parts = list(_parts(field.type))
    of = next(part for part in parts if part is not type(None))
    kind: Kind = "text"
    if of is bool:
        kind = "switch"
    elif of is float and field.name.endswith("_s"):
        kind = "duration"
    elif of in (int, float):
        kind = "number"
    elif flag.many or of == list[str]:
        kind = "texts"
    bounds = next((part for part in parts if isinstance(part, Meta)), Meta())
    default = [] if field.default is NODEFAULT else field.default
    return OptionFlag(
        flag=flag,
        path=(*above, field.name),
        kind=kind,
        of=of,
        default=default,
        least=bounds.ge if flag.least is None else flag.least,
    )


def _parts(hint: Any) -> Iterator[Any]:
    """The types that a hint allows, and their metadata."""
    if get_origin(hint) in (Annotated, Union, UnionType):
        for part in get_args(hint):
            yield from _parts(part)
    else:
        yield hint
