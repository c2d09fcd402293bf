"""The lines of Asterisk's configuration files without their comments, and the files that they include.

Everything is bytes here, as in Asterisk (``main/config.c``).
"""

from collections.abc import Iterator

from attrs import define

from ringfence.values.text import printable

_LONGEST_LINE = 8191
_MOST_COMMENTS = 128
"""The depth of nested comments at which Asterisk reads a line without end (``MAX_NESTED_COMMENTS``)."""
_MOST_BRACES = 64
BLANKS = bytes(range(33))
MARK = b"\xef\xbb\xbf"
FIRST_HIGH = 128
"""The lowest of the high bytes, which Asterisk treats like blanks: negative as a ``char`` of C."""


class RefusedLineError(Exception):
    """A line with an error at which Asterisk stops to read a configuration file."""


# -- lines without comments


def conf_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each line of an Asterisk file with its number (from 1), without comments and blanks around it.

    Lines that are empty then are left out.
    """
    comments = Comments()
    for number, line in read_lines(data.removeprefix(MARK)):
        if kept := comments.strip_from(line):
            yield number, kept


def read_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines of an Asterisk file, as ``fgets`` reads them into a buffer of 8192 bytes.

    A line that does not fit is left out. A NUL hides the rest of its line.
    """
    at, number = 0, 1
    while at < len(data):
        begun = at
        piece, at = _piece(data, at)
        if _is_cut(piece):
            while at < len(data):
                piece, at = _piece(data, at)
                if not _is_cut(piece):
                    break
        else:
            yield number, piece
        number += data.count(b"\n", begun, at)


def _piece(data: bytes, at: int) -> tuple[bytes, int]:
    """Return one buffer of text that begins at ``at``, up to a NUL, and where the next buffer begins."""
    newline = data.find(b"\n", at, at + _LONGEST_LINE)
    end = min(at + _LONGEST_LINE, len(data)) if newline < 0 else newline + 1
    return data[at:end].partition(b"\0")[0], end


def _is_cut(piece: bytes) -> bool:
    return len(piece) == _LONGEST_LINE and not piece.endswith(b"\n")


@define
class Comments:
    """Removes comments from the lines of an Asterisk file, also those from ``;--`` to ``--;``, which nest."""

    depth: int = 0

    def strip_from(self, line: bytes) -> bytes:
        """Return a line without its comments and surrounding blanks; remember a comment without its end.

        Raise RefusedLineError if comments are nested too deeply for Asterisk.
        """
        if b";" not in line:
            return b"" if self.depth else line.strip(BLANKS)
        buffer = bytearray(line.partition(b"\0")[0] + b"\0\0\0\0")
        start = -1 if self.depth else 0
        new = 0
        while (at := buffer.find(b";", new, buffer.index(0, new))) >= 0:
            if at > new and buffer[at - 1 : at] == b"\\":
                del buffer[at - 1]
                new = at
            elif buffer[at + 1 : at + 3] == b"--" and buffer[at + 3 : at + 4] != b"-":
                if self.depth >= _MOST_COMMENTS:
                    raise RefusedLineError("comments are nested too deeply for Asterisk")
                buffer[at] = 0
                new = at + 3
                self.depth += 1
            elif at >= new + 2 and buffer[at - 2 : at] == b"--":
                self.depth -= 1
                new = at + 1
                if not self.depth and start < 0:
                    start = new
                elif not self.depth:
                    end = buffer.index(0, start)
                    del buffer[end:new]
                    new = end
            elif not self.depth:
                buffer[at] = 0
                new = at
            else:
                new = at + 1
        return b"" if start < 0 else bytes(buffer[start : buffer.index(0, start)]).strip(BLANKS)


# -- the names of included files, as ``glob`` with GLOB_BRACE and GLOB_NOMAGIC expands them


def directive_of(line: bytes) -> tuple[bytes, bytes]:
    """Return the command, in lower case, and the argument of a line such as ``#include "manager.d/*.conf"``.

    The argument has no quotes, and may be empty.
    """
    end = next((n for n, byte in enumerate(line) if n and not ord(" ") < byte < FIRST_HIGH), len(line))
    command, given = line[1:end].lower(), line[end + 1 :].strip(BLANKS)
    if given[:1] in {b'"', b"<"} and given[-1:] == (b'"' if given[:1] == b'"' else b">"):
        given = given[1:-1]
    return command, given


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
