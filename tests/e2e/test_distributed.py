"""A distributed attack on an account of a real Asterisk: each address guesses once, and most are too late."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support import open_pbx
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.guarded import SharedGuard, guarded
from tests.support.lab import Lab
from tests.support.netns import run
from tests.support.network import PBX_IPV4, PBX_IPV6
from tests.support.phones import phones_at
from tests.support.sip_raw import Raw, calling

pytestmark = pytest.mark.asterisk

MOST = 60
_SILENT = 8
"""After so many guesses in a row without an answer, the attacker gives up."""
_WAIT = 0.3
_PAUSE = 0.02
"""Seconds between two guesses: at most 180 000 an hour."""


@pytest.fixture(name="pbx", scope="module")
def _pbx(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, SharedGuard]]:
    """Yield a guarded Asterisk with all rules."""
    with (
        Lab.made(request.param, open_pbx.configured(request.param)) as lab,
        TemporaryDirectory() as folder,
        guarded(lab, Path(folder)) as guard,
    ):
        yield lab, guard


def answered(
    lab: Lab, guard: SharedGuard, addresses: Iterable[str], request: Raw, host: str = PBX_IPV4
) -> int:
    """Guess once from each address; return the number of answered guesses.

    The attacker does not give up before a ban: a busy Asterisk is silent too.
    """
    before = narrow_bans(guard)
    came = silent = 0
    for address in addresses:
        with calling(lab, address, host=host) as caller:
            status = caller.guess(request, "wrong", _WAIT)
        time.sleep(_PAUSE)
        guard.take_turn()
        came, silent = came + bool(status), 0 if status else silent + 1
        if silent >= _SILENT and narrow_bans(guard) - before:
            break
    return came


def narrow_bans(guard: SharedGuard) -> set[str]:
    """Return the networks that the rule ``distributed`` has banned for minutes."""
    rows = guard.bans()
    return {row["address"] for row in rows if (row["rule"], row["scope"]) == ("distributed", "sip-udp")}


@pytest.mark.parametrize("pbx", ["22", pytest.param("16", marks=pytest.mark.long)], indirect=True)
def test_256_networks_that_take_turns_guess_no_longer(pbx: tuple[Lab, SharedGuard]) -> None:
    """A second Via does not hide them, the right password comes too late, and a phone between them stays."""
    lab, guard = pbx
    home = "198.19.100.9"
    victim = Raw(from_user=b"phone1", vias=b"Via: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKbelow\r\n")
    with phones_at(lab, home, ["phone1"]) as [phone]:
        assert phone.register() == 200
        until(lambda: home in guard.friends(), "the friend")
        assert answered(lab, guard, (f"198.19.{n}.7" for n in range(1, 200)), victim) <= MOST
        with calling(lab, "198.19.30.8") as caller:
            assert caller.guess(victim, PASSWORD, 2 * _WAIT) == 0
        assert phone.register() == 200
    assert "198.19.0.0/18" in narrow_bans(guard)
    assert "attack.distributed" in guard.alarm_codes()
    assert "the first failure of a stranger on it closes SIP" in " ".join(
        guard.must("why", "198.19.3.7").split()
    )


@pytest.mark.parametrize("pbx", ["22"], indirect=True)
def test_a_whole_32_of_ipv6_guesses_no_longer(pbx: tuple[Lab, SharedGuard]) -> None:
    """A new /64 for each guess, in one /48 after the other."""
    lab, guard = pbx
    lab.run("ip", "route", "replace", "fd00:55::/32", "via", "fd00:18::fffe")
    run(*lab.network.in_attacker("ip", "route", "replace", "local", "fd00:55::/32", "dev", "lo"))
    addresses = (f"fd00:55:{n // 8:x}:{n % 8:x}::1" for n in range(400))
    host, victim = PBX_IPV6, Raw(from_user=b"phone2")
    with calling(lab, "fd00:55:ffff::1", host=host) as caller:
        until(lambda: caller.guess(victim, PASSWORD, 2.0) == 200, "the network's route", pause=0.5)
    assert answered(lab, guard, addresses, victim, host) <= MOST
    assert "fd00:55::/33" in narrow_bans(guard)
