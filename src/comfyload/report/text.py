"""The words for numbers, under the name by which `report` has always imported them."""

from comfyload.words import (
    DASH,
    ascii_only,
    count,
    decimals,
    duration,
    fixed,
    percent,
    scale,
    span,
    superscript,
)

__all__ = ["DASH", "ascii_only", "count", "decimals", "duration", "fixed", "percent", "scale", "span", "superscript"]
