"""The patterns of included files, as ``glob`` with GLOB_BRACE and GLOB_NOMAGIC expands them."""

from ringfence.values.text import printable

_MOST_BRACES = 64


class RefusedLineError(Exception):
    """A line with an error at which Asterisk stops to read a configuration file."""


def expanded(pattern: str) -> list[str]:
    """Return the patterns that a pattern with braces means: ``{a,b}.conf`` means ``a.conf`` and ``b.conf``.

    Raise RefusedLineError if there are too many.
    """
    found, left = [], [pattern]
    while left:
        one = left.pop()
        choice = _first_braces(one)
        if choice is None:
            found.append(one)
        else:
            before, parts, after = choice
            left += [before + part + after for part in reversed(parts)]
        if len(found) + len(left) > _MOST_BRACES:
            raise RefusedLineError(f"{printable(pattern)} has too many braces for ringfence")
    return found


def _first_braces(pattern: str) -> tuple[str, list[str], str] | None:
    """Return the text before the first braces, the parts between these, and the text after them."""
    begin = _unescaped(pattern, "{", 0)
    while begin >= 0:
        depth, parts, at, last = 0, [], begin + 1, begin + 1
        while at < len(pattern):
            mark = pattern[at]
            if mark == "\\":
                at += 1
            elif mark == "{":
                depth += 1
            elif mark in ",}" and not depth:
                parts.append(pattern[last:at])
                last = at + 1
                if mark == "}":
                    return pattern[:begin], parts, pattern[last:]
            elif mark == "}":
                depth -= 1
            at += 1
        begin = _unescaped(pattern, "{", begin + 1)
    return None


def _unescaped(text: str, mark: str, at: int) -> int:
    while at < len(text) and text[at] != mark:
        at += 2 if text[at] == "\\" else 1
    return at if at < len(text) else -1


def for_fnmatch(pattern: str) -> str:
    r"""Return a pattern of ``glob`` in the syntax of :mod:`fnmatch`, which has no ``\``."""
    kept, at = "", 0
    while at < len(pattern):
        mark = pattern[at]
        if mark == "\\" and at + 1 < len(pattern):
            at += 1
            kept += f"[{pattern[at]}]" if pattern[at] in "*?[" else pattern[at]
        elif pattern.startswith("[^", at):
            at += 1
            kept += "[!"
        else:
            kept += mark
        at += 1
    return kept
