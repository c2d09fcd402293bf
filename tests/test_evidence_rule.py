"""A rule on the dialled number is a row, and what the parsers read, in a copy of ringfence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.docs import pages
from tests.support.copies import copy_without

ROW = """    Rule(
        name="dialled",
        meaning="a stranger calls one number after another",
        counts=frozenset({AttemptKind.PROBE}),
        attempts=2,
        window=HOUR,
        ban=_LADDER,
        of=Of("evidence", one="number", several="numbers"),
        scope=Scope.SIP,
    ),
    Rule(
        name="probe",
"""
CHANGES = {
    "detect/rules.py": ('    Rule(\n        name="probe",\n', ROW),
    "parse/chan_sip.py": (
        'no_extension_match",\n',
        'no_extension_match", evidence=text_of(text[claim.end() : whole.start() if whole else None]),\n',
    ),
    "parse/notices.py": (
        'no_extension_match",\n        transport=',
        'no_extension_match", evidence=text_of(text[call.end() :].partition(b"\' ")[0]), transport=',
    ),
}
"""The changed files of the copy, each with a text and its replacement."""
LINE = (
    "[2026-11-20 06:05:{second:02}] NOTICE[436][C-00000fa9] {reporter} to extension '{number}' rejected "
    "because extension not found in context 'default'.\n"
)
REPORTERS = {
    "chan_sip": "chan_sip.c: Call from '' ({address}:5060)",
    "pjsip": "res_pjsip_session.c: anonymous: Call (UDP:{address}:5060)",
}


@pytest.fixture(name="copied", scope="module")
def _copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy with the rule."""
    copied = copy_without([], tmp_path_factory.mktemp("rule"))
    for name, (before, after) in CHANGES.items():
        file = copied / "ringfence" / name
        text = file.read_text("utf-8")
        assert text.count(before) == 1
        file.write_text(text.replace(before, after), "utf-8")
    return copied


def run(copied: Path, *arguments: str) -> str:
    """Return what a command of the copy prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", *arguments],
        env={**os.environ, "PYTHONPATH": str(copied)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recipe_names_its_files() -> None:
    """The recipe for a rule names the files that this rule changes, and no other of the source."""
    recipe = pages.section_of(pages.text_of("docs/architecture.md"), "## Add a rule")
    assert set(re.findall(r"\]\(\.\./src/ringfence/([^)#]+\.py)\)", recipe)) == set(CHANGES)


@pytest.mark.parametrize("service", REPORTERS)
def test_different_numbers_lead_to_a_ban(copied: Path, tmp_path: Path, service: str) -> None:
    """Two numbers of one stranger lead to a ban by the rule; the same number twice leads to none."""
    calls = [("192.0.2.7", "00441"), ("192.0.2.8", "100"), ("192.0.2.7", "00442"), ("192.0.2.8", "100")]
    log = tmp_path / "messages"
    log.write_text(
        "".join(
            LINE.format(second=second, number=number, reporter=REPORTERS[service].format(address=address))
            for second, (address, number) in enumerate(calls)
        ),
        "utf-8",
    )
    found: Any = json.loads(run(copied, "replay", "--json", "--timezone", "UTC", str(log)))
    assert {one["address"]: one["rule"] for one in found["addresses"]} == {
        "192.0.2.7": "dialled",
        "192.0.2.8": None,
    }


def test_its_numbers_can_be_set(copied: Path, tmp_path: Path) -> None:
    """The configuration has its table, with the numbers of the row."""
    file = tmp_path / "ringfence.toml"
    file.write_text("rules.dialled.attempts = 5\n", "utf-8")
    shown = json.loads(run(copied, "config", "show", "--json", "--config", str(file)))["values"]
    mine = {one["key"]: one["value"] for one in shown if one["key"].startswith("rules.dialled.")}
    assert (mine["rules.dialled.attempts"], mine["rules.dialled.enabled"]) == (5, True)
