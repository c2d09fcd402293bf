"""Phones that register for the first time at the same moment, behind one address, by any transport."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from tests.support import netns, phones
from tests.support.asterisk_files import PASSWORD
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_raw import PORTS, Caller, request_of
from tests.support.sip_streams import open_wire

ACCOUNTS = [f"phone{number}" for number in range(1, phones.OFFICE + 1)]
_PATIENCE = 20.0  # seconds


def seconds_to_register(lab: Lab, address: str, transport: str) -> list[float]:
    """Register all phones together; return the seconds of each, infinity for one that gives up."""
    with ThreadPoolExecutor(len(ACCOUNTS)) as pool, _ready(lab, address, transport) as office:
        return list(pool.map(lambda account: _timed(lab, address, transport, account, office), ACCOUNTS))


@contextmanager
def _ready(lab: Lab, address: str, transport: str) -> Iterator[Sequence[phones.Phone]]:
    """Yield the phones of UDP, whose sockets exist before; none of other transports."""
    if transport == "UDP":
        with phones.phones_at(lab, address, ACCOUNTS) as office:
            yield office
    else:
        yield ()


def _timed(lab: Lab, address: str, transport: str, account: str, office: Sequence[phones.Phone]) -> float:
    begun = time.monotonic()
    phone = next((phone for phone in office if phone.account == account), None)
    if phone is not None:
        status = phone.register()
    else:
        with netns.inside(lab.network.attacker):
            wire = open_wire(transport, (PBX_IPV4, PORTS[transport]), address, _PATIENCE)
        with closing(Caller(wire, transport)) as caller:
            status = caller.guess(request_of(b"REGISTER", account.encode()), PASSWORD, _PATIENCE)
    return time.monotonic() - begun if status == 200 else math.inf
