"""A field of a ban is declared once: in a copy of ringfence with one more field, everything has it."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from tests.support.attempts import ban_of
from tests.support.copies import copy_without

from ringfence.store.database import Store

BEFORE = "    forced: bool = False\n"
FIELD = '    asn: str = field(default="", metadata={_COLUMN: Column("ASN", phrase="of {}")})\n'
PROGRAM = """
import json, sys
from ipaddress import ip_network
from pathlib import Path
from ringfence.cli import bans, why
from ringfence.features.notify.message import compose
from ringfence.features.notify.notifications import of_ban
from ringfence.features.web.pages import page_of, query_from
from ringfence.features.web.rendering import Renderer
from ringfence.ledger import Record, ban_of, key_of
from ringfence.store.database import Store
from ringfence.values.ban import Ban, ban_json

new = Ban(ip_network("192.0.2.2"), since=1_001.0, expires=9_999.0, rule="guess", asn="AS64496")
kept = ban_of(key_of(new.network), Record.of(new))
with Store.open_or_memory(Path(sys.argv[1])) as store:
    store.bans.record([kept])
    recorded = [ban for ban in store.bans.running(2_000.0) if ban is not None]
row = {"address": "192.0.2.2", "scope": "full", "timeout": 5, "packets": 1, **ban_json(recorded[-1])}
row["network"] = row["address"]
event = of_ban(kept, 1_001.0).as_json()
content = {"events": [event], "first": "", "last": "", "counts": {"ban": {"": 1}}, "total": 1}
print(json.dumps({
    "database": [ban.asn for ban in recorded],
    "JSON": row["asn"],
    "list": bans._columns([row])["ASN"],
    "past": bans._past_columns([{**row, "ended": row["since"], "end": "removed"}])["ASN"],
    "why": why._by(row, row),
    "sorted": [one["asn"] for one in page_of([row], query_from({"sort": "asn"})).rows],
    "page": Renderer()._environment.get_template("macros.html").module.more_of_ban(row),
    "notification": event["asn"],
    "message": compose(content, "pbx").body,
}))
"""


@pytest.fixture(name="shown", scope="module")
def _shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what each surface of the copy shows of a ban with the new field."""
    folder = tmp_path_factory.mktemp("field")
    with Store.open_or_memory(folder / "ringfence.db") as store:
        store.bans.record([ban_of("192.0.2.1", 1_000.0)])
    copied = copy_without([], folder)
    declared = copied / "ringfence" / "values" / "ban.py"
    text = declared.read_text("utf-8")
    assert text.count(BEFORE) == 1
    declared.write_text(text.replace(BEFORE, BEFORE + FIELD), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "ringfence.db")],
        env={**os.environ, "PYTHONPATH": str(copied)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("surface", "expected"),
    [
        ("database", ["", "AS64496"]),
        ("JSON", "AS64496"),
        ("list", ["AS64496"]),
        ("past", ["AS64496"]),
        ("why", "guess, of AS64496"),
        ("sorted", ["AS64496"]),
        ("page", '<td class="wide">1.</td><td class="wide">AS64496</td>'),
        ("notification", "AS64496"),
    ],
)
def test_a_field_is_declared_once(shown: dict[str, Any], surface: str, expected: object) -> None:
    """A ban that an earlier ringfence recorded has the default; a new one has its value everywhere."""
    assert shown[surface] == expected


def test_a_message_names_it(shown: dict[str, Any]) -> None:
    """The text of a notification has the value."""
    assert "; of AS64496" in shown["message"]
