"""Decorated functions in a form that mutmut changes: it changes none with a decorator.

It makes an exception for class methods and static methods, and it changes the methods of decorated classes.
"""

import ast


def with_plain_functions(source: bytes) -> bytes:
    """Return a module that does the same, in which statements decorate the functions.

    ``@property`` above ``def name`` becomes ``name = property(name)`` below the function. A setter stays as
    it is, because mutmut cannot distinguish functions of one name.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = [ast.unparse(one) for one in node.decorator_list]
        if not decorators or decorators in (["classmethod"], ["staticmethod"], [f"{node.name}.setter"]):
            continue
        first, last = node.decorator_list[0].lineno, node.end_lineno or node.lineno
        lines[first - 1 : node.lineno - 1] = [b""] * (node.lineno - first)  # no line after them moves
        decorated = node.name
        for decorator in reversed(decorators):
            decorated = f"{decorator}({decorated})"
        lines[last - 1] += f"{' ' * node.col_offset}{node.name} = {decorated}\n".encode()
    return b"".join(lines)
