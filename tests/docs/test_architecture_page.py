"""The architecture page against the source: packages, classes and functions that it names exist."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.docs import pages
from tests.support.trees import statements_of

PAGE = pages.text_of("docs/architecture.md")
PACKAGE = pages.ROOT / "src" / "ringfence"
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def _names(path: Path) -> set[str]:
    """Return the classes, functions and tables of a file, and each method and field with its class."""
    found: set[str] = set()
    for node in statements_of(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, _DEFINITIONS):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{one.name}" for one in node.body if isinstance(one, _DEFINITIONS))
            found.update(f"{node.name}.{field}" for one in node.body for field in _assigned(one))
        found.update(_assigned(node))
    return found


def _assigned(node: ast.AST) -> list[str]:
    """Return the names to which a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _named(text: str) -> set[str]:
    """Return the classes, methods, functions and tables that inline code names."""
    code = set(re.findall(r"`((?:_?[A-Z]\w*\.)?[A-Za-z_]+)(?:\([^`]*\))?`", text))
    return {name for name in code if re.search(r"[A-Z]\w*\.|^[A-Z]\w*[a-z]|_|^[A-Z]{4,}$", name)}


def test_the_code_that_the_page_names_exists() -> None:
    """Each class, method, function and table in inline code is in the source."""
    assert len(_named(PAGE)) >= 25
    assert _named(PAGE).difference(*map(_names, PACKAGE.rglob("*.py"))) == set()


def test_the_page_names_every_package() -> None:
    """Each package of the source is in the table of packages."""
    modules = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    modules |= {path.name for path in PACKAGE.glob("[a-z]*.py")}

    assert {name for name in modules if f"[{name}]" not in PAGE} == set()


def test_each_step_names_the_file_of_its_code() -> None:
    """The code that a step of one wrong password names is in the files of this step or of an earlier one."""
    files: set[Path] = set()
    for number, file, text in pages.rows_of(pages.section_of(PAGE, "## One wrong password")):
        links = re.findall(r"\]\(\.\./(src/[^)]*)\)", file + text)
        files |= {pages.ROOT / link for link in links}
        assert links, number
        assert _named(text).difference(*map(_names, files)) == set(), number
