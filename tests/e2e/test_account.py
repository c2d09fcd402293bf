"""A stolen password on a real Asterisk: its login is an alarm, and its address a stranger or banned."""

from pathlib import Path

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.logins import record_home
from tests.support.network import PBX_IPV4
from tests.support.phones import NUMBERS, Phone, a_day, configured, phones_at

from ringfence.features.account.places import LEARN_FOR
from ringfence.features.account.settings import Elsewhere

pytestmark = pytest.mark.asterisk

HOME, THIEF = "198.19.91.7", "198.18.1.77"
CHAN_SIP, PJSIP_OF_16, PJSIP = ("16", 5060, "nftables"), ("16", 5080, "ipset"), ("22", 5060, "ipset")
"""Releases of Asterisk, ports, and firewall backends."""


def grades(guard: Guard) -> list[str]:
    """Return the grades of the places of the account."""
    return [place["grade"] for place in guard.ask("account", account="phone1")["places"]]


def assert_restricted(guard: Guard, thief: Phone, elsewhere: Elsewhere) -> None:
    """Check what became of the address of a login elsewhere."""
    if elsewhere is Elsewhere.NOTIFY:
        until(lambda: THIEF in guard.friends(), "the friend")
        return
    until(lambda: THIEF not in guard.friends(), "the stranger")
    if elsewhere is Elsewhere.STRANGER:
        assert thief.ping() != 0
        assert guard.bans() == []
        return
    until(lambda: THIEF in guard.banned(), "the ban")
    [ban] = guard.bans()
    assert (ban["rule"], ban["scope"]) == ("elsewhere", "sip")
    patience, thief.patience = thief.patience, 2.0
    assert thief.ping() == 0
    thief.patience = patience


@pytest.mark.parametrize("elsewhere", Elsewhere)
@pytest.mark.parametrize(
    ("release", "port", "backend"),
    [
        pytest.param(*CHAN_SIP, id="chan_sip"),
        pytest.param(*PJSIP, id="pjsip"),
        pytest.param(*PJSIP_OF_16, id="pjsip-of-16", marks=pytest.mark.long),
    ],
)
def test_a_stolen_password(
    tmp_path: Path, release: str, port: int, backend: str, elsewhere: Elsewhere
) -> None:
    """The thief's login is an alarm at once; the owner's phone at home works all the time."""
    record_home(tmp_path, HOME, LEARN_FOR + 60, "phone1")
    target = PBX_IPV4, port
    settings = {"firewall": {"backend": backend}, "account": {"elsewhere": str(elsewhere)}}
    with (
        Lab.made(release, configured(release)) as lab,
        guarded(lab, tmp_path, **settings) as guard,
        phones_at(lab, HOME, ["phone1"], target) as [owner],
        phones_at(lab, THIEF, ["phone1"], target) as [thief],
    ):
        assert owner.register() == 200
        until(lambda: HOME in guard.friends(), "the friend at home")
        assert grades(guard) == ["learned"]
        # Asterisk reports a login before it answers, so the ban may drop the answer.
        assert thief.register() in ({200, 0} if elsewhere is Elsewhere.BLOCK else {200})
        until(lambda: "account.elsewhere" in guard.alarm_codes(), "the alarm")
        assert_restricted(guard, thief, elsewhere)
        assert owner.register() == 200
        assert HOME in guard.friends()

        assert len(guard.ask("account_confirm", account="phone1")) == 1
        assert "account.elsewhere" not in guard.alarm_codes()
        until(lambda: guard.bans() == [], "the end of the ban")
        assert thief.register() == 200
        until(lambda: THIEF in guard.friends(), "the friend")
        assert sorted(grades(guard)) == ["confirmed", "learned"]


@pytest.mark.parametrize(
    ("release", "port", "backend"),
    [
        pytest.param(*PJSIP, id="pjsip"),
        pytest.param(*CHAN_SIP, id="chan_sip", marks=pytest.mark.long),
    ],
)
def test_phones_at_home_are_not_blocked(tmp_path: Path, release: str, port: int, backend: str) -> None:
    """An office and its roaming phones do everything that phones do, with ``block``, and none is banned."""
    names = [f"phone{number}" for number in range(1, NUMBERS + 1)]
    record_home(tmp_path, "198.19.90.1", LEARN_FOR + 60, *names)
    settings = {"firewall": {"backend": backend}, "account": {"elsewhere": "block"}}
    with (
        Lab.made(release, configured(release)) as lab,
        guarded(lab, tmp_path, **settings) as guard,
    ):
        day = a_day(lab, "198.19.90", port)
        assert day.wrong == {}
        assert guard.bans() == []
        assert "account.elsewhere" not in guard.alarm_codes()
