"""Recipes of the architecture page: a recipe names exactly the files in which its example occurs."""

import re

import pytest
from tests.docs import pages

from ringfence.street import STREET

PAGE = pages.text_of("docs/architecture.md")
SOURCES = {
    path.relative_to(pages.ROOT).as_posix(): path.read_text("utf-8")
    for path in (pages.ROOT / "src").rglob("*.py")
}


def having(pattern: str) -> set[str]:
    """Return the files of the source in which a pattern is found."""
    return {name for name, text in SOURCES.items() if re.search(pattern, text)}


@pytest.mark.parametrize(
    ("recipe", "example", "more"),
    [
        (
            "Add a field of a ban",
            r"\boffence\b",
            {"src/ringfence/guard/firewall_side.py", "src/ringfence/store/rows.py"},
        ),
        ("Add a way in which a ban ends early", r"\bDISPLACED\b", set()),
        (
            "Add a rule",
            r'"slow"',
            {"src/ringfence/parse/chan_sip.py", "src/ringfence/parse/notices.py"},
        ),
        ("Add a stage", r"\bSYN_ACK\b", set()),
    ],
)
def test_a_recipe_names_all_files(recipe: str, example: str, more: set[str]) -> None:
    """The files that a recipe names are those of its example, and those that no example shows (``more``)."""
    named = set(re.findall(r"\]\(\.\./(src/[^)#]+\.py)\)", pages.section_of(PAGE, f"## {recipe}")))
    assert named == having(example) | more


@pytest.mark.parametrize("name", STREET)
def test_a_feature_is_one_folder(name: str) -> None:
    """No file outside its folder imports a feature."""
    folder = f"src/ringfence/features/{name}/"
    assert {one for one in having(rf"\bfeatures\.{name}\b") if not one.startswith(folder)} == set()
