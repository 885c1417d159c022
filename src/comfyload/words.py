"""How a number is written for people: three significant digits, one unit a row, and never rounded to a lie.

Everything that is printed takes its numbers from here: percent, seconds, GiB and counts are written once.
"""

import codecs
import math
import unicodedata
from collections.abc import Iterable

DASH = "\N{EN DASH}"
"""Between the ends of an interval; alone, in place of a number that is not known."""

_DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_WORDS: dict[str, int | str] = {"∞": "inf", "≤": "<=", "≥": ">=", "…": "...", "±": "+-", "°": ""}
_WORDS |= {digit: f"({value})" for value, digit in enumerate(_DIGITS)}
_LETTERS = str.maketrans(f"{DASH}\N{EM DASH}─━·✓✗▇●◐○µ\N{MULTIPLICATION SIGN}", "---=|+x#*o.ux")
_ASCII: dict[int, int | str] = {**_LETTERS, **str.maketrans(_WORDS)}
_GIB = 2.0**30


def decimals(value: float, most: int = 3) -> int:
    """Places after the point that give the value three significant digits, but no more than `most`."""
    if not math.isfinite(value) or value == 0:
        return 0
    rounded = float(f"{value:.3g}")  # 9.996 becomes 10.0, which needs one place less
    return min(most, max(0, 2 - math.floor(math.log10(abs(rounded)))))


def fixed(value: float, places: int) -> str:
    """The value with that many places: 0.25, 1 280, 11 000; infinity as a sign."""
    return "∞" if value == math.inf else f"{value:,.{places}f}".replace(",", " ")


def digits(value: float, most: int = 3) -> str:
    """The value with three significant digits: 0.250, 12.3, 1 280."""
    return fixed(value, decimals(value, most))


def span(low: str, high: str) -> str:
    """An interval, with room around the dash."""
    return f"{low} {DASH} {high}"


def span_words(low: str, high: str) -> str:
    """`97.8 to 99.9 %`; one number where they read alike."""
    unit = high.rpartition(" ")[2]
    return high if low == high else f"{low.removesuffix(f' {unit}')} to {high}"


def superscript(number: int) -> str:
    """The number of a footnote."""
    return "".join(_DIGITS[int(digit)] for digit in str(number))


def scale(seconds: Iterable[float], below: float = 0.1) -> tuple[float, str]:
    """Factor and unit in which durations of this size are read: ms if all of them are `below` so many seconds."""
    finite = [value for value in seconds if math.isfinite(value)]
    return (1000.0, "ms") if finite and max(finite) < below else (1.0, "s")


def duration(seconds: float) -> str:
    """A measured time: 12.3 s, 0.842 s, 3.4 ms."""
    factor, unit = scale([seconds])
    value = seconds * factor
    return f"{fixed(value, decimals(value, 3 if unit == 's' else 1))} {unit}"


def seconds_words(seconds: float) -> str:
    """A chosen or estimated time: 90 s, 15 min, 2 h, in the largest unit that leaves it short."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def percent(share: float) -> str:
    """97.0 %; only all is 100 %, and only nothing is 0 %."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    for places in (1, 2, 3, 4):
        text = f"{value:.{places}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text} %"
    return "> 99.999 %" if value > 50 else "< 0.001 %"


def gib(size: float) -> str:
    """Bytes of memory as 11.2 GiB."""
    return f"{fixed(size / _GIB, decimals(size / _GIB, 1))} GiB"


def count(number: int, one: str, many: str = "") -> str:
    """1 job, 2 jobs, 1 280 jobs."""
    return f"{fixed(number, 0)} {one if number == 1 else many or one + 's'}"


def sentence_case(text: str) -> str:
    """With a capital at its start, as a label has it."""
    return text[:1].upper() + text[1:]


def ascii_only(text: str) -> str:
    """The text for a terminal that cannot show more."""
    return text.translate(_ASCII)


PLAIN = "comfyload.plain"
"""What encoders may do (`errors`) with a letter that the encoding lacks: `plain_letters` in its place."""


def plain_letters(text: str) -> str:
    """ASCII in the place of each letter: without its accents, or a question mark."""
    plain = unicodedata.normalize("NFKD", ascii_only(text))
    return "".join(letter if letter.isascii() else "?" for letter in plain if not unicodedata.combining(letter))


def in_code_page(text: str, encoding: str) -> str:
    """The text itself in Unicode; else in our own ASCII signs, and plain letters for those that the encoding lacks."""
    if is_unicode(encoding):
        return text
    return ascii_only(text).encode(encoding, PLAIN).decode(encoding)


def is_unicode(encoding: str) -> bool:
    """Whether it has every letter."""
    return encoding.lower().startswith("utf")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain_letters(error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN, _plain)
