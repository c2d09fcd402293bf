"""The tables of the pages against the program: rules, alarms and exit codes."""

import re
import tomllib

import attrs
from tests.docs import pages

from ringfence.alarm_codes import every_code
from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.detect.rules import RULES
from ringfence.errors import Exit
from ringfence.features.notify.notifications import severity_of


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
        has = {key for key, value in set_here.items() if value is not None}
        assert has - {"enabled", "scope"} == {*rule[name.strip("`")]}
        assert ("scope" in has) is (name not in {"`unexplained`", "`flood`"})
        assert settings == Settings()


def test_every_exit_code_is_explained() -> None:
    """The table of exit codes has every code with its name."""
    rows = pages.rows_of(pages.section_of(pages.text_of("docs/cli.md"), "## Exit codes"))

    assert {int(code): code.name.lower() for code in Exit} == {int(code): name for code, name, _ in rows}


def test_every_alarm_is_explained() -> None:
    """The table of alarms has each code with its meaning and what to do, in the words of the program."""
    rows = pages.rows_of(pages.section_of(pages.text_of("docs/operating.md"), "## Alarms"))

    assert rows == [[f"`{code}`", code.meaning, code.action] for code in every_code()]


def test_the_severity_of_each_alarm() -> None:
    """The page of notifications names the critical and the informing alarms; all others are warnings."""
    text = pages.section_of(pages.text_of("docs/notify.md"), "## What is sent")
    lists = re.findall(r"^- \*\*(critical|info):\*\*((?:.|\n  )*)", text, re.MULTILINE)
    named = {code: severity for severity, codes in lists for code in re.findall(r"`([a-z_.]+)`", codes)}

    assert named == {
        str(code): str(severity_of(code)) for code in every_code() if severity_of(code) != "warning"
    }
