"""A fence before a real Asterisk: its countries, its start, and what a stranger gets through it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import mmdb
from tests.support.daemon import Guard, until
from tests.support.lab import Lab
from tests.support.sip_raw import calling, guesses, request_of

PHONES = "198.19.90"
"""The first three numbers of the addresses of the phones, which are in a country of the fence."""
COUNTRIES = ("DE", "FR", "NL")
STRANGER = "198.19.99"
RULES = {"prefix": {"enabled": False}, "distributed": {"enabled": False}}
"""The rules that are off: the senders of all transports are neighbours, and guess at the same account."""
_STREAMS = ("TCP", "TLS", "WS")
_GUESSES = ("guess", "--number", "40", "--silences", "4", "--timeout", "0.3")


def settings_in(folder: Path, networks: int = 1_000) -> dict[str, Any]:
    """Return the tables of a fence with three countries, whose database is in ``folder``.

    Each country has this many networks. The phones are in the first one.
    """
    records = [(f"{PHONES}.0/24", {"country": {"iso_code": COUNTRIES[0]}})]
    for at, country in enumerate(COUNTRIES):
        record = {"country": {"iso_code": country}}
        records += [(f"{11 + at}.{n >> 7}.{2 * (n & 127)}.0/24", record) for n in range(networks)]
    records.append((f"{STRANGER}.0/24", {"country": {"iso_code": "XX"}}))
    path = mmdb.write(folder / "geo.mmdb", records)
    return {
        "fence": {"mode": "enforce", "countries": [*COUNTRIES]},
        "geo": {"database": str(path)},
    }


@contextmanager
def enforced(guard: Guard) -> Iterator[Guard]:
    """Start the fence by force, and yield the guard when the fence drops packets."""
    until(lambda: guard.ask("fence")["whole"], "the database is read")
    guard.ask("fence_enforce", seconds=3_600.0, force=True)
    until(lambda: guard.ask("fence")["mode"] == "enforce", "the fence")
    yield guard


def answered_from(lab: Lab, source: str) -> int:
    """Guess by UDP from an address; return how many guesses Asterisk answered."""
    return lab.attack(*_GUESSES, "--sources", source).answered


def answered(lab: Lab, number: int) -> dict[str, int]:
    """Guess by each transport, from an address of its own; return how many guesses Asterisk answered."""
    counts = {
        "UDP": answered_from(lab, f"{STRANGER}.{10 * number}"),
        "UDP/IPv6": lab.attack(*_GUESSES, "--target", "[fd00:18::1]:5060").answered,
    }
    for at, transport in enumerate(_STREAMS, 1):
        try:
            with calling(lab, f"{STRANGER}.{10 * number + at}", transport) as caller:
                counts[transport] = len(guesses(caller, request_of(b"REGISTER", b"alice"), 3, 1.0))
        except TimeoutError:  # no connection
            counts[transport] = 0
    return counts
