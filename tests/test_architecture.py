"""The shape of the code: sizes and docstrings of each file. `make lint` runs this file."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.support.schedule import unknown_files
from tests.support.trees import statements_of

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ringfence"
TESTS = ROOT / "tests"
MAX_FUNCTION = 60  # lines
MAX_MODULE = 700  # lines of code: without blank lines, comments and docstrings

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Return every source file."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a file's path relative to the project's root."""
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file."""
    return ast.parse(path.read_text("utf-8"))


def functions_of(tree: ast.Module) -> Iterator[Function]:
    """Yield every function of a file, nested ones too."""
    return (node for node in statements_of(tree) if isinstance(node, Function))


def public_of(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield the public names and definitions of a module or class, and of the classes in it."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_of(node.body, f"{prefix}{node.name}.")


def inherited_of(tree: ast.Module) -> set[str]:
    """Return the setters, and the methods of classes with a base, whose docstrings are in the base."""
    return {
        f"{owner}.{node.name}"
        for owner, parent in public_of(tree.body)
        if isinstance(parent, ast.ClassDef)
        for node in parent.body
        if isinstance(node, Function) and (parent.bases or is_setter(node))
    }


def code_lines(path: Path) -> int:
    """Return the number of lines that are neither blank, nor a comment, nor part of a docstring."""
    documentation: set[int] = set()
    for node in statements_of(tree_of(path)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documentation.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if number not in documentation and line.strip() and not line.lstrip().startswith("#")
    )


def is_setter(function: Function) -> bool:
    """Whether a function is the setter of a property, whose getter has the docstring."""
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in function.decorator_list)


def test_modules_and_functions_are_short() -> None:
    """A module has at most 700 lines of code, a function fewer than 60 lines."""
    assert [name_of(path) for path in sources() if code_lines(path) > MAX_MODULE] == []
    assert [
        f"{name_of(path)}: {function.name}"
        for path in sources()
        for function in functions_of(tree_of(path))
        if (function.end_lineno or function.lineno) - function.lineno + 1 >= MAX_FUNCTION
    ] == []


def test_public_definitions_have_docstrings() -> None:
    """Every module, public class and public function has a docstring, unless it overrides one."""
    silent = []
    for path in sources():
        tree = tree_of(path)
        public = {name for name, node in public_of(tree.body) if ast.get_docstring(node) is None}
        missing = public - inherited_of(tree) | ({"the module"} if ast.get_docstring(tree) is None else set())
        silent += [f"{name_of(path)}: {name}" for name in missing]
    assert silent == []


def test_every_test_has_a_docstring() -> None:
    """The docstring of a failing test explains what is broken, without its code."""
    assert [
        f"{name_of(path)}: {function.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for function in functions_of(ast.parse(path.read_text("utf-8")))
        if function.name.startswith("test_") and ast.get_docstring(function) is None
    ] == []


@pytest.mark.parametrize("room", ["parse", "sources"])
def test_hostile_text_is_never_cut_by_splitlines(room: str) -> None:
    """``splitlines`` also ends lines at bytes that a caller may put into a name; only CR LF ends a line."""
    used = [
        f"{name_of(path)}:{node.lineno}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr == "splitlines"
    ]
    assert used == []


def test_no_pattern_repeats_a_group_possessively() -> None:
    """A group is repeated within ``(?>…)``: Python 3.11.2 loses its place if a possessive one fails half-way.

    There ``re.match("(?:ab?c)*+", "aca")`` matches all three letters. Debian 12 has this version.
    """
    possessive = re.compile(r"\)(?:[*+?]|\{[0-9,]+\})\+")
    assert [name_of(path) for path in sources() if possessive.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_no_file_changes_owner_by_its_name(path: Path) -> None:
    """Owners and modes are set by descriptor, since the owner of a folder may replace a name by a link."""
    used = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert used.isdisjoint({"chown", "lchown", "chmod", "lchmod"})


def test_a_citation_names_another_module_that_exists() -> None:
    """No docstring or comment cites its own module, or a module that is gone."""
    wrong, names = [], {path.name for path in sources()}
    for path in sources():
        own = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for cited in re.findall(r":mod:`~?(ringfence[\w.]*)`", path.read_text("utf-8")):
            there = (ROOT / "src").joinpath(*cited.split("."))
            if cited == own or not (there.is_dir() or there.with_suffix(".py").exists()):
                wrong.append(f"{own}: {cited}")
        files = re.findall(r"``([a-z_]+\.py)``", path.read_text("utf-8"))
        wrong += [f"{own}: {file}" for file in files if file not in names]
    assert wrong == []


def test_the_schedule_names_files_that_exist() -> None:
    """A test file that is renamed keeps its place in the order of the tests."""
    assert unknown_files() == set()
