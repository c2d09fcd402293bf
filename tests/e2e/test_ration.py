"""The ration on a real Asterisk: guessers get at most four answers, however fast they are, and phones get in.

The rule ``guess`` counts five attempts, so a stranger gets four refusals at once, then two a second.
Phones come first, because TCP sends again for minutes what the ration has dropped.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.support import open_pbx, phones
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.forger import Forger
from tests.support.guarded import SharedGuard, guarded, shared, until_known, until_rationed
from tests.support.kamailio import PORT, TARGET, Kamailio, why_no_kamailio
from tests.support.lab import Lab
from tests.support.sip import Result
from tests.support.sip_raw import PORTS, Caller, Raw, answered_within_segments, calling, guesses, request_of
from tests.support.sip_wire import status_of

pytestmark = pytest.mark.asterisk

INSISTENT = ("--number", "20000", "--silences", "16", "--timeout", "0.3")
"""Goes on through five seconds of silence: the ration lets an answer through each half second."""
IPV6 = ("--target", "[fd00:18::1]:5060")
BY_TCP = 5
"""Answers that pass in a second by TCP, where the ration counts bytes."""
_CALLS_BY_TLS = 30
_CALLED_AGAIN = 6
_JUDGED = 3.0
"""Seconds after which what nothing explains is judged."""


@pytest.fixture(scope="module", params=[pytest.param("ipset", marks=pytest.mark.long), "nftables"])
def firewall(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return the settings of each backend, with the ration as it is by default.

    test_asking.py tries ipset, and tests/firewall tries both.
    """
    return {"backend": request.param, "ration": {}}


@contextmanager
def rationed(lab: Lab, firewall: dict[str, object], *, guests: bool = False) -> Iterator[SharedGuard]:
    """Guard the laboratory's Asterisk; the block begins when the ration enforces.

    The rule ``prefix`` is off: the senders of all tests are neighbours. ``guests``: strangers may call.
    """
    with shared(lab, firewall=firewall, guests=guests, rules={"prefix": {"enabled": False}}) as guard:
        until_rationed(guard)
        yield guard


def _is_banned(guard: SharedGuard, source: str) -> bool:
    return source in guard.banned()


def most(result: Result, a_second: int = 2) -> float:
    """Return how many answers the ration lets through: ``a_second`` more, if a busy machine bans late.

    A ban can also come before any answer.
    """
    return 4 + a_second * max(0.0, result.last_answered - result.first_sent)


def network_of(firewall: dict[str, object]) -> str:
    """Return the first three numbers of the addresses that the tests of a backend use."""
    return f"198.19.{60 + len(str(firewall['backend']))}"


@pytest.mark.parametrize(
    ("pbx", "account"), [("open22", b"alice"), ("open16", b"carol")], ids=["PJSIP", "chan_sip"]
)
def test_a_new_phone_meets_no_ration(
    request: pytest.FixtureRequest, firewall: dict[str, object], pbx: str, account: bytes
) -> None:
    """By each transport, a phone that registers for the first time loses no packet to the ration."""
    lab: Lab = request.getfixturevalue(pbx)
    with rationed(lab, firewall) as guard:
        before = guard.ask("status")["rationed"]
        for number, transport in enumerate(PORTS):
            with calling(lab, f"{network_of(firewall)}.{30 + number}", transport) as caller:
                assert caller.guess(request_of(b"REGISTER", account), PASSWORD, 5.0) == 200
        assert guard.ask("status")["rationed"] == before


def test_guests_call_by_tcp_without_a_delay(open22: Lab, firewall: dict[str, object]) -> None:
    """Asterisk answers twenty calls of a stranger without a password, and no segment meets the ration."""
    for step in ("1,Answer", "2,Wait(5)"):
        open22.asterisk.cli(f"dialplan add extension 700,{step} into public replace")
    call = Raw(method=b"INVITE", from_user=b"guest", from_host=open_pbx.GUESTS.encode(), extension=b"700")
    with (
        rationed(open22, firewall) as guard,
        calling(open22, f"{network_of(firewall)}.40", "TCP") as caller,
    ):
        before = guard.ask("status")["rationed"]
        for _ in range(20):
            assert called(caller, call) == 200
        assert guard.ask("status")["rationed"] == before
        assert guard.banned() == set()


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_guests_are_named_and_lose_no_call(open22: Lab, firewall: dict[str, object], transport: str) -> None:
    """If the PBX takes calls of strangers, twenty at once all get in, and the status names the caller."""
    for step in ("1,Answer", "2,Wait(5)"):
        open22.asterisk.cli(f"dialplan add extension 701,{step} into public replace")
    call = Raw(method=b"INVITE", from_user=b"guest", from_host=open_pbx.GUESTS.encode(), extension=b"701")
    source = f"{network_of(firewall)}.{41 + ['UDP', 'TCP'].index(transport)}"
    asking = firewall | {"ration": {"asking": "enforce"}}
    with rationed(open22, asking, guests=True) as guard, calling(open22, source, transport) as caller:
        for _ in range(20):
            assert called(caller, call) == 200
        until(lambda: named(guard, source) >= 20, "twenty calls of the guest")
        assert guard.banned() == set()


@pytest.mark.parametrize("guests", [True, False])
def test_guests_by_tls_are_banned_only_if_strangers_may_not_call(
    open22: Lab, firewall: dict[str, object], *, guests: bool
) -> None:
    """Asterisk reports nothing of thirty calls by TLS, so they look like hidden guesses."""
    for step in ("1,Answer", "2,Wait(5)"):
        open22.asterisk.cli(f"dialplan add extension 702,{step} into public replace")
    call = Raw(method=b"INVITE", from_user=b"guest", from_host=open_pbx.GUESTS.encode(), extension=b"702")
    source = f"{network_of(firewall)}.{45 + guests}"
    open_ration = firewall | {"ration": {"mode": "observe", "asking": "observe"}}
    with (
        shared(open22, firewall=open_ration, guests=guests) as guard,
        calling(open22, source, "TLS") as caller,
    ):
        if guests:
            statuses = {called(caller, call) for _ in range(_CALLS_BY_TLS)}
            time.sleep(_JUDGED)
            assert (statuses, guard.banned()) == ({200}, set())
        else:
            for _ in range(_CALLS_BY_TLS):
                if not guard.banned():
                    caller.ask(call, 1.0)
            until(lambda: guard.banned() == {source}, "the ban of what nothing explains")


def called(caller: Caller, call: Raw) -> int:
    """Call until Asterisk answers, and return the status; it ignores calls while its queues are too long."""
    answers = (caller.ask(call, 5.0) for _ in range(_CALLED_AGAIN))
    return status_of(next((answer for answer in answers if answer is not None), b""))


def named(guard: SharedGuard, address: str) -> int:
    """Return the number of calls of a guest that the status names; 0 if it names no such guest."""
    return next((one["number"] for one in guard.status()["guests"] if one["address"] == address), 0)


def test_new_phones_behind_one_address_get_in(open22: Lab, firewall: dict[str, object]) -> None:
    """Of fifty phones that register at the same moment from an unknown address every one is registered.

    A phone whose refusal was dropped sends its request again.
    """
    accounts = [f"phone{number}" for number in range(1, phones.OFFICE + 1)]
    with (
        rationed(open22, firewall) as guard,
        phones.phones_at(open22, f"{network_of(firewall)}.5", accounts) as office,
    ):
        assert set(phones.together(office, phones.Phone.register)) == {200}
        assert guard.banned() == set()


def test_a_guesser_gets_four_answers_at_most(open22: Lab, firewall: dict[str, object]) -> None:
    """One guess after the other, with a new nonce or the last one, by IPv4 and IPv6: all are banned."""
    net = network_of(firewall)
    with rationed(open22, firewall) as guard:
        for source, options in {f"{net}.1": (), f"{net}.2": ("--reuse-nonce",), "fd00:19::c:1": IPV6}.items():
            result = open22.attack("guess", *INSISTENT, "--sources", source, *options)
            assert (result.answered <= most(result), result.stopped) == (True, "silence")
        until(lambda: len(guard.bans()) == 3, "three bans")
        assert {row["attempts"] for row in guard.bans()} == {5}


def test_two_thousand_guesses_at_once_get_four_answers_at_most(
    open22: Lab, firewall: dict[str, object]
) -> None:
    """The kernel counts the answers: Asterisk's speed and the time to the ban do not matter."""
    source = f"{network_of(firewall)}.3"
    with rationed(open22, firewall) as guard:
        before, begun = guard.ask("status")["rationed"], time.monotonic()
        result = open22.attack("pipeline", "--number", "2000", "--sources", source)
        assert result.answered <= 4 + 2 * (time.monotonic() - begun)
        until(lambda: guard.banned() == {source}, "the ban")
        assert guard.ask("status")["rationed"] > before


def test_guesses_without_a_daemon_are_rationed(open22: Lab, firewall: dict[str, object]) -> None:
    """While the daemon stands still, a guesser gets four answers and two a second, and no more."""
    source = f"{network_of(firewall)}.4"
    with rationed(open22, firewall) as guard:
        os.kill(guard.pid, signal.SIGSTOP)
        try:
            result = open22.attack(
                *("guess", "--number", "20000", "--seconds", "4", "--timeout", "0.2"),
                *("--silences", "1000", "--sources", source),
            )
        finally:
            os.kill(guard.pid, signal.SIGCONT)
        assert 0 < result.answered <= 4 + 2 * (1 + result.seconds)
        until(lambda: guard.banned() == {source}, "the ban")


def test_a_guesser_by_tcp_gets_four_answers_at_most(open22: Lab, firewall: dict[str, object]) -> None:
    """One after the other, with a new nonce or the last one, and two thousand at once.

    Those who guess without waiting for a new nonce are banned. A dropped segment delays all that follow in
    its connection, so the other one does not come to a fifth guess there.
    """
    net = network_of(firewall)
    ways = {
        f"{net}.11": ("guess", *INSISTENT, "--reuse-nonce"),
        f"{net}.12": ("pipeline", "--number", "2000"),
        f"{net}.13": ("guess", *INSISTENT),
    }
    banned = set(list(ways)[:2])
    with rationed(open22, firewall) as guard:
        for source, options in ways.items():
            result = open22.attack(*options, "--transport", "TCP", "--sources", source)
            assert result.answered <= most(result, BY_TCP)
        until(lambda: guard.banned() >= banned, "the bans")


@pytest.mark.parametrize(
    ("pbx", "account"), [("open22", b"alice"), ("open16", b"carol")], ids=["PJSIP", "chan_sip"]
)
def test_a_guesser_on_one_connection_gets_four_answers_at_most(
    request: pytest.FixtureRequest, firewall: dict[str, object], pbx: str, account: bytes
) -> None:
    """By each transport, a guesser that waits for each answer gets four a second, then silence or the ban."""
    lab: Lab = request.getfixturevalue(pbx)
    with rationed(lab, firewall):
        for number, transport in enumerate(("TCP", "TLS", "WS")):
            answered: list[float] = []
            with calling(lab, f"198.19.{80 + number}.1", transport) as caller:
                begun = time.monotonic()
                # Only a silence behind an answer is the end: a busy Asterisk answers late.
                while guesses(caller, request_of(b"REGISTER", account), 1, 2.0 if answered else 20.0):
                    answered.append(time.monotonic() - begun)
            assert answered
            # The bytes of the next second pass too, if a busy machine bans later than that.
            assert len(answered) <= 4 + 5 * int(answered[-1])


def test_hidden_guesses_within_segments_get_four_answers_at_most(
    open22: Lab, firewall: dict[str, object]
) -> None:
    """The ration counts bytes: it does not matter where in a segment an answer stands.

    A busy Asterisk may read the guesses only after the copies of them have banned their sender. So there are
    several senders.
    """
    with rationed(open22, firewall) as guard:
        for last in range(14, 19):
            source, begun = f"{network_of(firewall)}.{last}", time.monotonic()
            answered = answered_within_segments(open22, source)
            assert answered <= 4 + 2 * (time.monotonic() - begun)
            until(partial(_is_banned, guard, source), "the ban")
            if answered:
                return
    pytest.fail("Asterisk answered none of the senders")


@pytest.mark.skipif(bool(why_no_kamailio()), reason=why_no_kamailio() or "Kamailio can be run")
def test_a_guesser_behind_a_proxy_gets_four_answers_at_most(
    open22: Lab, tmp_path: Path, firewall: dict[str, object]
) -> None:
    """The proxy's answers to its client count, by UDP and by TCP; those of Asterisk to the proxy do not."""
    net = network_of(firewall)
    ways: dict[str, tuple[tuple[str, ...], int]] = {
        f"{net}.15": ((), 2),
        f"{net}.16": (("--transport", "TCP", "--reuse-nonce"), BY_TCP),
    }
    with (
        Kamailio(open22.network, tmp_path),
        guarded(open22, tmp_path, firewall=firewall, proxies=["127.0.0.1"]) as guard,
    ):
        until_rationed(guard)
        until_known(guard, PORT)
        for source, (options, a_second) in ways.items():
            result = open22.attack("guess", *INSISTENT, *TARGET, *options, "--sources", source)
            assert 0 < result.answered <= most(result, a_second)
        until(lambda: guard.banned() >= set(ways), "both bans")


def test_forged_senders_take_only_the_ration_of_the_address_that_they_name(
    open22: Lab, tmp_path: Path, firewall: dict[str, object]
) -> None:
    """Meanwhile another new phone registers; when they end, the phone at that address does.

    The daemon stands still: it would ban the address that they name, by UDP and for ten minutes.
    """
    net = network_of(firewall)
    with (
        guarded(open22, tmp_path, firewall=firewall) as guard,
        phones.phones_at(open22, f"{net}.50", ["phone1"]) as (named,),
        phones.phones_at(open22, f"{net}.51", ["phone2"]) as (other,),
    ):
        until_rationed(guard)
        os.kill(guard.pid, signal.SIGSTOP)
        forger = Forger(open22, f"{net}.50", 1, 5_000, 2_500.0)
        try:
            assert other.register() == 200
            assert forger.at_work
            assert forger.sent().packets == 5_000
            assert named.register() == 200
        finally:
            forger.stop()
            os.kill(guard.pid, signal.SIGCONT)
