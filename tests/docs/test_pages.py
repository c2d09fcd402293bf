"""The pages: links lead somewhere, named files exist, and commands and configurations can be used."""

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.docs import pages

from ringfence.cli.app import app
from ringfence.config.loader import parse


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_to_a_file_or_a_heading(page: str) -> None:
    """Each link within the project is relative and leads to a file, or to a heading, that exists."""
    broken = [
        target
        for target in pages.links_of(pages.text_of(page))
        if "://" not in target and not _leads_somewhere(page, target)
    ]

    assert broken == []


def _leads_somewhere(page: str, target: str) -> bool:
    name, _, heading = target.partition("#")
    file = (pages.ROOT / page).parent / name if name else pages.ROOT / page
    if target.startswith("/") or not file.exists():
        return False
    return not heading or heading in pages.anchors_of(file.read_text("utf-8"))


@pytest.mark.parametrize("page", pages.PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    """A command that installs or reads a file of the project finds it."""
    named = re.findall(
        r"(?<![\w/.])(?:contrib|examples|src|tests|docs|\.ci)/[\w./@-]*\w", pages.text_of(page)
    )

    assert [name for name in named if not (pages.ROOT / name).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    """The README links every page of docs/, and each of those links the README."""
    linked = set(pages.links_of(pages.text_of("README.md")))
    ours = [page for page in pages.PAGES if page.startswith("docs/")]

    assert [page for page in ours if page not in linked] == []
    assert [page for page in ours if "../README.md" not in pages.links_of(pages.text_of(page))] == []


@pytest.mark.parametrize("page", pages.PAGES)
def test_shell_blocks_are_shell(page: str, tmp_path: Path) -> None:
    """Bash parses the commands of a page, and no command is outside of a shell block."""
    text = pages.text_of(page)
    script = tmp_path / "typed"
    script.write_text("\n".join(pages.blocks_of(text, "sh")), "utf-8")

    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert (
        re.findall(r"^    (?:ringfence|systemctl|make|apt-get) .*", pages.prose_of(text), re.MULTILINE) == []
    )


@pytest.mark.parametrize("page", pages.PAGES)
def test_commands_are_commands_of_ringfence(page: str) -> None:
    """The command line accepts each ringfence command of a page, with its options and arguments."""
    refused = {
        shlex.join(arguments): why
        for arguments in pages.commands_of(pages.text_of(page))
        if (why := _why_refused(arguments))
    }

    assert refused == {}


def _why_refused(arguments: list[str]) -> str:
    command: Any = typer.main.get_group(app)
    rest = list(arguments)
    while rest and hasattr(command, "get_command") and (found := command.get_command(None, rest[0])):
        command, rest = found, rest[1:]
    if {"--help", "--version"} & {*rest} or (hasattr(command, "commands") and not rest):
        return ""
    if hasattr(command, "commands") and not rest[0].startswith("-"):
        return f"no command {rest[0]}"
    # A page may name a command, or its option, without the value that it needs.
    refusals = [_refusal(command, rest), _refusal(command, [*rest, "1h"])]
    return refusals[0] if all(refusals) else ""


def _refusal(command: Any, arguments: list[str]) -> str:  # noqa: ANN401 - typer's own copy of click
    try:
        command.make_context(command.name, list(arguments))
    except Exception as error:  # noqa: BLE001 - its exceptions have no public names
        return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("page", pages.PAGES)
def test_configurations_are_accepted(page: str, tmp_path: Path) -> None:
    """The configuration accepts each TOML block of a page."""
    for block in pages.blocks_of(pages.text_of(page), "toml"):
        parse(tomllib.loads(block), page, {}, secrets=False)


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"\bmake ([a-z]+)", pages.text_of("CONTRIBUTING.md"))))
)
def test_make_targets_exist(target: str) -> None:
    """The Makefile has each target that CONTRIBUTING.md names."""
    assert re.search(rf"^{target}:", (pages.ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_the_demo_of_a_recording_installs_nothing() -> None:
    """``make demo DEMO=replay`` neither installs packages nor makes the laboratory."""
    command = ["make", "--dry-run", "--always-make", "demo", "DEMO=replay"]
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True, check=True)

    assert "-m tests.demo replay" in done.stdout
    assert "lab.sh" not in done.stdout


def test_the_source_distribution_holds_every_page() -> None:
    """The sdist includes each page and each folder that a page links."""
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    linked = {
        os.path.normpath(Path(page).parent / target.partition("#")[0]).split("/")[0]
        for page in pages.PAGES
        for target in pages.links_of(pages.text_of(page))
        if "://" not in target and not target.startswith("#")
    }

    assert linked - {*included, "pyproject.toml"} == set()  # hatchling adds pyproject.toml itself
