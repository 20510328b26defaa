"""Spans of time as people write them."""

import re

from utils.errors import InputError

UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|min|m|s)")


def parse_span(option, text):
    """Seconds of ``8h30m``, ``10min``, ``45s``, ``1d``, or ``0``. Raises InputError naming the `option` otherwise."""
    parts = _PARTS.findall(text)
    if text == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InputError(f"{option} {text!r} is no span of time; give one as 8h30m, 10min or 45s")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


def clock(seconds):
    """``9:05`` or ``1:09:05``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
