"""The facts of an account as JSON."""

import json

from attrs import evolve
from tests.explain.world import ADDRESS, NOW, ban, friend
from tests.support.attempts import ATTEMPT

from ringfence.explain.account import AccountFacts, failures_of
from ringfence.explain.account_json import account_document

HOSTILE = "2\x1b[2J\u202e04" + "\u202e" * 65_536


def test_every_fact_is_in_the_document() -> None:
    """Addresses, the last success, failures with their reason, and bans; hostile text is escaped."""
    failed = failures_of([evolve(ATTEMPT, address=ADDRESS, account=HOSTILE, time=NOW)])
    home = evolve(friend(), account=HOSTILE, asterisk="pbx\x1b")
    known = AccountFacts(HOSTILE, NOW, (home,), (), tuple(failed), {ADDRESS: (ban(),)})
    found = account_document(known)

    assert found["verdict"] == "banned"
    assert found["addresses"][0]["current"]
    assert found["last_success"]["address"] == "192.0.2.1"
    assert (found["failures"][0]["reason"], found["failures"][0]["banned"]) == ("wrong password", True)
    assert found["bans"][0]["rule"] == "guess"
    assert json.dumps(found, ensure_ascii=False).isprintable()
