"""Guesses that a hostile reading found uncounted: each recipe ends with a ban, on a real Asterisk.

`make bench` measures the number of answers; here the machine may be busy.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support import uncounted
from tests.support.daemon import until
from tests.support.guarded import SharedGuard, guarded, shared, until_known
from tests.support.lab import Lab

pytestmark = pytest.mark.asterisk

MANY = 60
SOON = 20
"""A limit of answers that also holds on a busy machine."""
BLIND = 25.0


@pytest.fixture(scope="module")
def pbx() -> Iterator[tuple[Lab, SharedGuard]]:
    """Yield a guarded Asterisk 22 with a second address."""
    with (
        Lab.made("22", uncounted.configured()) as lab,
        TemporaryDirectory() as folder,
        guarded(lab, Path(folder)) as guard,
    ):
        uncounted.add_second_address(lab)
        until(lambda: "5070" in lab.run("ss", "-lun"), "the port at every address")
        until_known(guard, 5070)
        yield lab, guard


def test_blind_guesses_end_without_another_sender(pbx: tuple[Lab, SharedGuard]) -> None:
    """Hidden guesses whose answers go nowhere are banned before their sender needs another nonce."""
    lab, guard = pbx
    source = "198.19.2.1"
    sent = uncounted.blind(lab, source, BLIND, lambda: source in guard.banned())
    assert sent < BLIND - 1
    assert guard.scopes()[source] == "sip"


@pytest.mark.parametrize("method", ["BYE", "CANCEL"])
def test_no_answer_to_another_request_accepts_a_blind_guess(
    pbx: tuple[Lab, SharedGuard], method: str
) -> None:
    """Behind each guess whose answer goes nowhere comes a request that Asterisk answers, with its number."""
    lab, guard = pbx
    source = f"198.19.2.{len(method)}"
    sent = uncounted.blind(
        lab, source, BLIND, lambda: source in guard.banned(), uncounted.HIDDEN.call_id, method.encode()
    )
    assert sent < BLIND - 1
    assert guard.scopes()[source] == "sip"


def test_guesses_paid_by_events_end(pbx: tuple[Lab, SharedGuard]) -> None:
    """An event without a challenge does not excuse a hidden guess."""
    lab, guard = pbx
    assert uncounted.paid_by_events(lab, "198.19.3.1", MANY) <= SOON
    until(lambda: guard.scopes().get("198.19.3.1") == "sip", "the full ban")


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "hidden"])
def test_guesses_at_a_second_address_end(pbx: tuple[Lab, SharedGuard], *, hidden: bool) -> None:
    """The nonce comes from the PBX's first address, and the guesses go to its second one."""
    lab, guard = pbx
    source = f"198.19.{4 + hidden}.1"
    assert uncounted.at_second_address(lab, source, MANY, hidden=hidden) <= SOON
    until(lambda: guard.scopes().get(source) == "sip", "the full ban")


def test_guesses_in_turn_end(pbx: tuple[Lab, SharedGuard]) -> None:
    """Guesses under one Call-ID count once each, whichever sources report them."""
    lab, guard = pbx
    assert uncounted.in_turn(lab, "198.19.6.1", MANY) <= SOON
    until(lambda: guard.scopes().get("198.19.6.1") == "sip", "the full ban")


def test_guesses_behind_garbage_are_proven(pbx: tuple[Lab, SharedGuard]) -> None:
    """A first header with an invented nonce hides a guess neither from the rules nor from the alarms."""
    lab, guard = pbx
    network = "198.19.200.0/24"
    assert uncounted.rotate_behind_garbage(lab, lambda: network in guard.banned()) <= 2 * SOON

    until(lambda: {"attack.distributed", "password.guessed"} <= guard.alarm_codes(), "the alarms")
    assert network in guard.banned()


@pytest.mark.parametrize(
    ("method", "transport", "scope"),
    [(b"REGISTER", "UDP", "sip-udp"), (b"MESSAGE", "UDP", "sip-udp"), (b"MESSAGE", "TCP", "sip")],
)
def test_guesses_with_an_invented_nonce_end(open16: Lab, method: bytes, transport: str, scope: str) -> None:
    """chan_sip checks them; by UDP anyone can send them in another's name, so that ban is narrow."""
    source = f"198.19.12{len(method)}.{1 + (transport == 'TCP')}"
    with shared(open16) as guard:
        assert uncounted.with_invented_nonce(open16, source, MANY, method, transport) <= SOON
        until(lambda: guard.scopes().get(source) == scope, "the ban")
