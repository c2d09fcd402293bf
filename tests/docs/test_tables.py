"""The tables of the pages against the program: rules, alarms and exit codes."""

import ast
import importlib
import tomllib
from collections.abc import Iterator

import attrs
from tests.docs import pages

from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.detect.rules import RULES
from ringfence.errors import Exit


def test_the_rules_have_their_numbers() -> None:
    """Each rule has its row, and the numbers of the row, written into the configuration, change nothing."""
    rows = pages.rows_of(pages.text_of("docs/rules.md"))

    assert [row[0].strip("`") for row in rows] == [rule.name for rule in RULES]
    for name, _, attempts, window, ban, more in rows:
        keys = [f"attempts = {attempts}", f"window = {window}", f"ban = {ban}", *more.split(", ")]
        text = "\n".join(key for key in keys if key).replace("`", "")
        rule = {name.strip("`"): tomllib.loads(text)}
        settings = parse({"rules": rule}, "rules.md", {}, secrets=False)
        set_here = attrs.asdict(settings.rules[name.strip("`")])
        assert {key for key, value in set_here.items() if value is not None} == {
            "enabled",
            *rule[name.strip("`")],
        }
        assert settings == Settings()


def test_every_exit_code_is_explained() -> None:
    """The table of exit codes has every code with its name."""
    rows = pages.rows_of(pages.section_of(pages.text_of("docs/cli.md"), "## Exit codes"))

    assert {int(code): code.name.lower() for code in Exit} == {int(code): name for code, name, _ in rows}


def test_every_alarm_is_explained() -> None:
    """The table of alarms has each name that the source can raise, and no other."""
    rows = pages.rows_of(pages.section_of(pages.text_of("docs/operating.md"), "## Alarms"))

    assert sorted(row[0].strip("`") for row in rows) == sorted(set(_alarms()))


def _alarms() -> Iterator[str]:
    """Yield the first argument of each call that raises an alarm or makes a notice."""
    for path in (pages.ROOT / "src").rglob("*.py"):
        parsed = ast.parse(path.read_text("utf-8"))
        module = ".".join(path.relative_to(pages.ROOT / "src").with_suffix("").parts)
        for call in (node for node in ast.walk(parsed) if isinstance(node, ast.Call) and node.args):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            first = call.args[0]
            if name not in {"activate", "AlarmChange"}:
                continue
            if isinstance(first, ast.Constant):
                yield str(first.value)
            elif isinstance(first, ast.Name):
                yield getattr(importlib.import_module(module), first.id)
