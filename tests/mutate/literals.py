"""The numbers of a module outside of its functions, which mutmut does not change.

They are limits, times, the values of the rules, and the defaults of fields.
"""

import ast
from collections.abc import Iterator

from attrs import frozen

_LEFT_OUT = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.JoinedStr,  # Python 3.11 gives wrong places for the parts of an f-string
)


@frozen
class Changed:
    """A module with one changed number.

    ``line`` is the number of the changed line, ``old`` and ``new`` its text before and after the change, and
    ``source`` the whole changed module.
    """

    line: int
    old: str
    new: str
    source: bytes


def changed_numbers(source: bytes) -> Iterator[Changed]:
    """Yield for each number of ``source`` outside of functions a module in which it is one more."""
    lines = source.splitlines(keepends=True)
    for number, more in _numbers(ast.parse(source)):
        at = number.lineno - 1
        old = lines[at]  # its columns are bytes
        new = old[: number.col_offset] + repr(more).encode() + old[number.end_col_offset :]
        changed = b"".join([*lines[:at], new, *lines[at + 1 :]])
        yield Changed(number.lineno, old.decode().strip(), new.decode().strip(), changed)


def _numbers(node: ast.AST) -> Iterator[tuple[ast.Constant, float]]:
    """Yield each number below ``node``, with the value that is one more."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, int | float) and not isinstance(node.value, bool):
            yield node, node.value + 1
    elif not isinstance(node, _LEFT_OUT):
        for child in ast.iter_child_nodes(node):
            yield from _numbers(child)
