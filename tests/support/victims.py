"""Attacks that use ringfence against a friend, an office or an administrator, and what these can still do.

with Lab.made("22", honest.configured()) as lab, guarded(lab, folder) as guard:
    assert victims.friend_under_forged_datagrams(Scene(lab, 1), guard).failed == 0
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import IPv4Address

from tests.support import netns
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import Guard, until
from tests.support.forger import Forger, datagram, quiet, request
from tests.support.honest import Done, Scene
from tests.support.network import PBX_IPV4, socket_in
from tests.support.phones import phones_at
from tests.support.sip_raw import Raw, calling, request_of

REGISTRATIONS = 9
RATE = 3_000.0
_FORGED_GUESSES = 6
_FLOOD_SECONDS = 120
_NOTICED = 2.0
"""Seconds after which the daemon has judged the forged guesses."""
_OF_A_PAGE = "sip\r\nOrigin: http://page.example"
"""The subprotocol of a WebSocket, with the Origin of a foreign web page, which a browser adds."""
SSH = 22


def friend_under_forged_datagrams(scene: Scene, guard: Guard | None) -> Done:
    """Renew a friend's registration while 3 000 datagrams of one byte a second come from its address.

    Six guesses with its address and invented nonces come before each: the kernel then copies what it sends.
    """
    address = scene.at(1)
    quiet(scene.lab)
    with phones_at(scene.lab, address, ["desk501"]) as [phone]:
        _befriended(guard, address, phone.register(expires=600))
        phone.patience = 4.0
        _forge_guesses(scene, address)
        time.sleep(_NOTICED)
        forger = Forger(scene.lab, address, 1, int(RATE * _FLOOD_SECONDS), RATE, one_byte=True)
        try:
            statuses = []
            for _ in range(REGISTRATIONS):
                _forge_guesses(scene, address)
                phone.reboot()
                statuses.append(phone.register(expires=600))
            if not forger.at_work:
                raise RuntimeError("the forger ended before the registrations")
        finally:
            forger.stop()
    return Done(REGISTRATIONS, sum(status != 200 for status in statuses))


def _forge_guesses(scene: Scene, address: str) -> None:
    """Send guesses at a known account, with a nonce that no server has sent, from somebody's address."""
    sender = IPv4Address(address)
    with netns.inside(scene.lab.network.attacker):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        for number in range(_FORGED_GUESSES):
            forged = request(sender, 3 * number + 1, os.urandom(3).hex())
            raw.sendto(datagram(sender, forged), (PBX_IPV4, 0))
            time.sleep(0.1)


def office_with_a_page(scene: Scene, guard: Guard | None) -> Done:
    """Open a foreign web page in an office, which tries twenty accounts by WebSocket; then call."""
    with phones_at(scene.lab, scene.at(1), ["desk502", "desk503"]) as office:
        for phone in office:
            _befriended(guard, scene.at(1), phone.register(expires=600))
        _page(scene, guard, 20)
        with calling(scene.lab, scene.at(1)) as caller:
            call = request_of(b"INVITE", b"desk502")
            statuses = [caller.guess(call, PASSWORD, 3.0)]
        for phone in office:
            phone.patience = 4.0
        statuses += [phone.register(expires=600) for phone in office]
    return Done(len(statuses), sum(status != 200 for status in statuses))


def administrator_with_a_page(scene: Scene, guard: Guard | None) -> Done:
    """Open the page at an administrator's home, where no phone is; then log in by SSH."""
    with _ssh(scene):
        _page(scene, guard, 20)
        if guard is not None:
            until(lambda: scene.at(1) in guard.banned(), "the ban of the page")
        reached = _reaches_ssh(scene)
    return Done(1, int(not reached))


def _page(scene: Scene, guard: Guard | None, accounts: int) -> None:
    """Try accounts from a page, until nothing comes back; wait until the daemon has counted an attempt."""
    with calling(scene.lab, scene.at(1), "WS", protocol=_OF_A_PAGE) as caller:
        for number in range(accounts):
            if not caller.guess(Raw(from_user=b"page%d" % number), "wrong", 1.0):
                break
    if guard is not None:
        until(lambda: guard.ask("why", network=scene.at(1))["attempts"], "the attempts of the page")
    time.sleep(_NOTICED)


def _befriended(guard: Guard | None, address: str, status: int) -> None:
    if status != 200:
        raise RuntimeError(f"{address} could not register: {status}")
    if guard is not None:
        friends = partial(guard.ask, "friends")
        until(lambda: address in {row["address"] for row in friends()}, f"{address} as a friend")


@contextmanager
def _ssh(scene: Scene) -> Iterator[None]:
    """Listen on the port of SSH while the block runs; the kernel accepts the connections."""
    with closing(socket_in(scene.lab.network.pbx)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((PBX_IPV4, SSH))
        server.listen()
        yield


def _reaches_ssh(scene: Scene) -> bool:
    with closing(socket_in(scene.lab.network.attacker)) as client:
        client.bind((scene.at(1), 0))
        client.settimeout(3.0)
        try:
            client.connect((PBX_IPV4, SSH))
        except OSError:
            return False
        return True


ATTACKS: Mapping[str, Callable[[Scene, Guard | None], Done]] = {
    f"{REGISTRATIONS} registrations of a friend under {RATE:.0f} forged datagrams a second": (
        friend_under_forged_datagrams
    ),
    "a call and renewals of an office where a foreign web page tries accounts by WS": office_with_a_page,
    "SSH of an administrator at whose home that page is open": administrator_with_a_page,
}
