"""The README against the program: what it names exists, and what exists is named."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer.main

from ringfence.cli import app
from ringfence.config import (
    AllowSettings,
    AmiSettings,
    AsteriskSettings,
    ClaimedSettings,
    ControlSettings,
    CustomSettings,
    DenySettings,
    FirewallSettings,
    GeoSettings,
    LimitSettings,
    LogSettings,
    Settings,
    StoreSettings,
    WireSettings,
    parse,
)
from ringfence.detect.rules import RULES
from ringfence.exits import Exit

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
TABLES = {
    "asterisk": AsteriskSettings,
    "asterisk.ami": AmiSettings,
    "asterisk.logs": LogSettings,
    "asterisk.logs.custom": CustomSettings,
    "asterisk.wire": WireSettings,
    "firewall": FirewallSettings,
    "firewall.limit": LimitSettings,
    "allow": AllowSettings,
    "deny": DenySettings,
    "geo": GeoSettings,
    "claimed": ClaimedSettings,
    "store": StoreSettings,
    "control": ControlSettings,
}


def rows_of(heading: str) -> list[list[str]]:
    """Give the cells of the table under a heading, without the table's own head."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def live_commands() -> dict[str, str]:
    """Give the help of every command there is."""
    return {name: command.help or "" for name, command in typer.main.get_group(app).commands.items()}


def keys() -> Iterator[str]:
    """Give the path of every key of the configuration."""
    for table, kind in TABLES.items():
        yield from (f"{table}.{field.name}" for field in attrs.fields(kind))


def tree(path: str, value: object) -> dict[str, Any]:
    """Give a configuration that says one thing."""
    first, *rest = path.split(".")
    inner = tree(".".join(rest), value) if rest else value
    return {first: [inner] if first == "asterisk" else inner}


def test_every_command_stands_in_the_readme_with_its_meaning() -> None:
    """The table of commands is that of the program, in the words of its help."""
    told = {name.strip("`").split()[0]: meaning for name, meaning in rows_of("Commands")}

    assert live_commands() == told


def test_every_key_stands_in_the_readme() -> None:
    """The table of the configuration leaves out no key and invents none."""
    told = [row[0].strip("`") for row in rows_of("Configuration")]

    assert sorted({*keys()} - TABLES.keys()) == sorted(told)


@pytest.mark.parametrize("row", rows_of("Configuration"), ids=lambda row: row[0].strip("`"))
def test_the_default_in_the_readme_is_the_true_one(row: list[str]) -> None:
    """To write the README's default into the file is to say nothing; "none" has no value to write."""
    key, default, _ = row
    table, _, name = key.strip("`").rpartition(".")
    true: object = attrs.fields_dict(TABLES[table])[name].default
    if default == "none":
        assert true is None or true is attrs.NOTHING
        return
    value = tomllib.loads(f"value = {default.strip('`')}")["value"]
    if TABLES[table] is CustomSettings:  # which is no table without its pattern
        assert value == true
        return

    assert Settings() == parse(tree(key.strip("`"), value), "README.md", {}, secrets=False)


def test_the_rules_in_the_readme_are_those_of_the_program() -> None:
    """Each has its row, with its meaning, and what stands there may be written and changes nothing."""
    table = README.split("\n## Rules\n", 1)[1].split("\n###", 1)[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    told = [[cell.strip() for cell in line] for line in lines]

    assert [(row[0].strip("`"), row[1]) for row in told] == [(rule.name, rule.meaning) for rule in RULES]
    for name, _, attempts, window, ban, more in told:
        keys = [f"attempts = {attempts}", f"window = {window}", f"ban = {ban}", *more.split(", ")]
        text = "\n".join(key for key in keys if key).replace("`", "")
        rule = {name.strip("`"): tomllib.loads(text)}
        settings = parse({"rules": rule}, "README.md", {}, secrets=False)
        given = {
            key for key, value in attrs.asdict(settings.rules[name.strip("`")]).items() if value is not None
        }
        assert given == {"enabled", *rule[name.strip("`")]}
        assert settings == Settings()


def test_what_is_to_be_typed_is_shell(tmp_path: Path) -> None:
    """Bash reads the commands of the installation without complaint."""
    script = tmp_path / "typed"
    script.write_text("".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)), "utf-8")

    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "pip install" in script.read_text("utf-8")


def test_exit_codes_are_those_of_the_program() -> None:
    """The table of exit codes has every code with its name."""
    told = {int(code): name for code, name, _ in rows_of("Exit codes")}

    assert {int(code): code.name.lower() for code in Exit} == told


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link within the project leads to a file or a heading that is there."""
    text = (ROOT / page).read_text("utf-8")
    broken = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in target and not _leads_somewhere(page, target)
    ]

    assert broken == []


def _leads_somewhere(page: str, target: str) -> bool:
    name, _, heading = target.partition("#")
    file = ROOT / (name or page)
    return file.exists() and (not heading or heading in _anchors(file))


def _anchors(file: Path) -> set[str]:
    """Give the headings as links to them are written."""
    headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    """A command that installs or reads a file of the project finds it."""
    text = (ROOT / page).read_text("utf-8")
    named = re.findall(r"(?<![\w/.])(?:contrib|examples|src|tests|\.ci)/[\w./-]*\w", text)

    assert [name for name in named if not (ROOT / name).exists()] == []
