"""A guesser, and an office of phones, in the first second of a daemon that knows no friend yet."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support import phones
from tests.support.daemon import until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.sip import Result

BACKENDS = ("ipset", "nftables")
TRANSPORTS = ("UDP", "TCP")
OFFICE = 200
"""The phones of an office behind one address: four with each of fifty accounts."""
_INSISTENT = ("--number", "3000", "--silences", "10", "--timeout", "0.3", "--reuse-nonce")
"""Goes on through three seconds of silence: the ration lets an answer through each half second."""


def guess_at_once(
    lab: Lab, source: str, transport: str, backend: str, **settings: Mapping[str, object]
) -> Result:
    """Start a daemon with an empty database, and guess from the moment at which it reports READY.

    Return the result when the guesser is banned. The daemon has the default settings of limiter and ration,
    and those of ``settings``.
    """
    firewall = {"backend": backend, "ration": {}}
    with (
        tempfile.TemporaryDirectory(prefix="ringfence-first-") as folder,
        guarded(lab, Path(folder), listening=False, firewall=firewall, **settings) as guard,
    ):
        result = lab.attack("guess", *_INSISTENT, "--transport", transport, "--sources", source)
        until(lambda: guard.banned() == {source}, "the ban")
        return result


def register_at_once(lab: Lab, address: str, backend: str, *, known: bool) -> tuple[list[float], set[str]]:
    """Start a daemon with an empty database, and register an office's phones together when it is READY.

    If ``known``, Asterisk has them registered before. Return the seconds of each phone that got in, and the
    banned addresses.
    """
    accounts = [f"phone{1 + number % phones.OFFICE}" for number in range(OFFICE)]
    firewall = {"backend": backend, "ration": {}}
    with (
        phones.phones_at(lab, address, accounts) as office,
        tempfile.TemporaryDirectory(prefix="ringfence-first-") as folder,
    ):
        if known:
            phones.together(office, _register)
        with guarded(lab, Path(folder), listening=False, firewall=firewall) as guard:
            seconds = phones.together(office, _register)
            return [one for one in seconds if one is not None], guard.banned()


def _register(phone: phones.Phone) -> float | None:
    """Register; return the seconds, None if it fails."""
    began = time.monotonic()
    return time.monotonic() - began if phone.register() == 200 else None
