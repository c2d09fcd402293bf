"""The fence on a real Asterisk: a stranger gets no answer, and phones are served."""

from pathlib import Path

import pytest
from tests.support.fences import (
    COUNTRIES,
    PHONES,
    RULES,
    STRANGER,
    answered,
    answered_from,
    enforced,
    settings_in,
)
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.phones import a_day

pytestmark = pytest.mark.asterisk


@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
@pytest.mark.parametrize("release", ["22"])
def test_strangers_get_no_answer_and_phones_are_served(open_lab: Lab, tmp_path: Path, backend: str) -> None:
    """With countries, Asterisk answers no guess of a stranger, and phones of one of them live their day."""
    tables, firewall = settings_in(tmp_path), {"backend": backend, "ration": {}}
    with guarded(open_lab, tmp_path, firewall=firewall, rules=RULES, **tables) as guard:
        before = answered(open_lab, 1)
        assert all(before.values()), before
        guard.ask("unban", all=True)
        with enforced(guard):
            assert answered(open_lab, 2) == dict.fromkeys(before, 0)
            day = a_day(open_lab, PHONES)
            state = guard.ask("fence")

        assert day.wrong == {}
        assert guard.bans() == []
        assert state["networks"] > 1_000
        [country] = [row["country"] for row in state["countries"] if row["country"] != "unknown"]
        assert country not in COUNTRIES
        assert state["outside"] == []


@pytest.mark.parametrize("release", ["22"])
def test_a_person_lets_themselves_in(open_lab: Lab, tmp_path: Path) -> None:
    """Asterisk answers only the address that a lasting link admits, and no longer once it is revoked."""
    person, neighbour = f"{STRANGER}.7", f"{STRANGER}.8"
    firewall = {"backend": "nftables", "ration": {}}
    with guarded(open_lab, tmp_path, firewall=firewall, rules=RULES, **settings_in(tmp_path, 10)) as guard:
        token = guard.ask("fence_link_lasting", account="alice", seconds=3_600.0)
        with enforced(guard):
            assert answered_from(open_lab, person) == 0
            guard.ask("fence_redeem", token=token, address=person)
            assert answered_from(open_lab, person) > 0
            assert answered_from(open_lab, neighbour) == 0
            guard.ask("unban", all=True)
            assert guard.ask("fence_unlink", account="alice") == [person]
            assert answered_from(open_lab, person) == 0
