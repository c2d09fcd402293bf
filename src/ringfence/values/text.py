"""Texts for people: hostile text as one safe line, and times."""

import re
from datetime import UTC, datetime

# Invisible or blank characters for which str.isprintable() is true (DerivedCoreProperties.txt of Unicode).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    """Return ``text``, which an attacker may have written, as one line that is safe for a terminal or a log.

    These characters are escaped: control characters (C0, C1, DEL), line and paragraph separators, every space
    except U+0020, format characters (bidirectional overrides, zero-width characters), surrogates, unassigned
    and private characters, and characters that are invisible although Unicode classifies them as letters,
    marks or symbols.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() and not _INVISIBLE.match(character):
        return character
    return character.encode("unicode_escape").decode()


def shown(text: str, most: int) -> str:
    """Return a text that an attacker may have written, cut after ``most`` characters and escaped."""
    return printable(text if len(text) <= most else f"{text[:most]}…")


LAST = 253_402_300_799.0
"""The last second of the year 9999, because later times cannot be formatted (seconds since the epoch)."""


def rfc3339(seconds: float) -> str:
    """Format a time in seconds since the epoch by RFC 3339, in UTC, to the second."""
    # strftime takes twice as long, and a list of bans can contain 200,000 times.
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def readable_time(moment: str) -> str:
    """Return a time in the format of :func:`rfc3339` as people read it: ``2026-11-20 10:14:03``."""
    return moment.replace("T", " ").removesuffix("Z")
