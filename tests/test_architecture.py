"""The shape of the code: directions of imports, twins, sizes and docstrings. What holds for each file."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ringfence"
TESTS = ROOT / "tests"
MAX_FUNCTION = 60  # lines
MAX_MODULE = 500  # lines

# Source files without a test file of their own, and why.
WITHOUT_TWIN = {
    "errors.py": "names and messages only; whoever raises them is tested",
    "__main__.py": "one call of the command line",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Give every source file."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Name a file as seen from the project's root."""
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    """Read a file's syntax."""
    return ast.parse(path.read_text("utf-8"))


def functions_of(tree: ast.Module) -> Iterator[Function]:
    """Give every function, wherever it stands."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def public_of(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Give what others may use of a module or class, and of the classes in it."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_of(node.body, f"{prefix}{node.name}.")


def inherited_of(tree: ast.Module) -> set[str]:
    """Name the methods of classes with a base: what they override is explained there. And setters."""
    return {
        f"{owner}.{node.name}"
        for owner, parent in public_of(tree.body)
        if isinstance(parent, ast.ClassDef)
        for node in parent.body
        if isinstance(node, Function) and (parent.bases or is_setter(node))
    }


def is_setter(function: Function) -> bool:
    """Say whether a function is the other half of a property, whose getter has the docstring."""
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in function.decorator_list)


def test_imports_keep_their_directions() -> None:
    """The contracts of pyproject.toml: rooms, purity, and where each library may be known."""
    linter = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_file_has_its_twin() -> None:
    """What ``src/ringfence/ROOM/NAME.py`` does is tested in ``tests/ROOM/test_NAME.py``."""
    missing = [
        name_of(path)
        for path in sources()
        if path.name != "__init__.py"
        and str(path.relative_to(PACKAGE)) not in WITHOUT_TWIN
        and not (TESTS / path.relative_to(PACKAGE)).with_name(f"test_{path.name}").exists()
    ]
    assert missing == []


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_modules_and_functions_are_short(path: Path) -> None:
    """A module has fewer than 500 lines, a function fewer than 60: a reader keeps both in his head."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < MAX_MODULE
    lengths = {
        function.name: (function.end_lineno or function.lineno) - function.lineno + 1
        for function in functions_of(ast.parse(text))
    }
    assert {name: lines for name, lines in lengths.items() if lines >= MAX_FUNCTION} == {}


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_what_others_may_use_says_what_it_is(path: Path) -> None:
    """Every module, public class and public function of its own has a docstring."""
    tree = tree_of(path)
    silent = {name for name, node in public_of(tree.body) if ast.get_docstring(node) is None}
    assert silent - inherited_of(tree) == set()
    assert ast.get_docstring(tree) is not None


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=name_of)
def test_every_test_says_what_must_hold(path: Path) -> None:
    """A failing test's docstring tells what is broken before anybody reads its code."""
    silent = [
        function.name
        for function in functions_of(tree_of(path))
        if function.name.startswith("test_") and ast.get_docstring(function) is None
    ]
    assert silent == []


@pytest.mark.parametrize("room", ["parse", "sources"])
def test_hostile_text_is_never_cut_by_splitlines(room: str) -> None:
    """``splitlines`` also ends lines at bytes that a caller may put into his name; only CR LF is meant."""
    used = [
        f"{name_of(path)}:{node.lineno}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr == "splitlines"
    ]
    assert used == []
