"""The pages that are made from the program: they are up to date and complete."""

import tomllib

import pytest
from tests.docs import commands, configuration, firewall
from tests.docs.pages import FOLDER


@pytest.mark.parametrize("name", ["cli", "configuration", "firewall"])
def test_the_page_is_up_to_date(name: str) -> None:
    """The page is the same as ``make docs`` writes it; run it if this test fails."""
    page = {"cli": commands, "configuration": configuration, "firewall": firewall}[name].page()

    assert (FOLDER / f"{name}.md").read_text("utf-8") == page


def test_every_key_of_the_configuration_has_a_row() -> None:
    """Each key of the settings has a default, what it accepts and a meaning."""
    rows = [
        line for line in (FOLDER / "configuration.md").read_text("utf-8").splitlines() if line[:3] == "| `"
    ]
    keys = [field for name, kind, _ in configuration.tables() for field in configuration.keys_of(name, kind)]

    assert len(rows) == len(keys)
    assert [row for row in rows if "|  |" in row] == []


def test_the_defaults_are_those_of_the_settings() -> None:
    """A default that is a string, a number or a boolean is written as in the settings."""
    written = {
        f"{name}.{field.name}": (tomllib.loads(f"value = {shown.strip('`')}")["value"], field.default)
        for name, kind, _ in configuration.tables()
        for field in configuration.keys_of(name, kind)
        if (shown := configuration.default_of(name, field)) != "none"
        and isinstance(field.default, str | int | bool)
    }

    assert {key for key, (shown, default) in written.items() if shown != default} == set()
    assert {"asterisk.logs.custom.level", "firewall.max_bans", "asterisk.ami.tls"} <= written.keys()


def test_every_command_and_option_is_explained() -> None:
    """Each command has a help text, and each argument and option of it a meaning."""
    silent = [
        f"{name} {parameter.name}"
        for name, command in commands.commands()
        for parameter in command.params
        if parameter.name != "help" and not parameter.help
    ]

    assert [name for name, command in commands.commands() if not command.help] == []
    assert silent == []
