"""The statements of Python source, for tests that read the code."""

import ast
from collections.abc import Iterator


def statements_of(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement of a file, without the expressions in it: most nodes are expressions."""
    for part in ("body", "orelse", "handlers", "finalbody", "cases"):
        for node in getattr(tree, part, ()):
            yield node
            yield from statements_of(node)
