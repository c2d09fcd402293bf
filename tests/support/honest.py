"""Habits of honest strangers: monitors, carriers that no ``identify`` matches, guests, and new offices.

    with Lab.made("22", honest.configured()) as lab:
        done = honest.migration(Scene(lab, number=7))
        assert done.failed == 0

Each habit has addresses and accounts of its own. It returns how many of its requests must succeed, and how
many did not. No habit is an attack, so no address of it may be banned.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from attrs import evolve, frozen
from tests.support import checked, netns, phones
from tests.support.asterisk_files import PASSWORD
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.open_pbx import GUESTS
from tests.support.phones import Phone, phones_at, reply, together
from tests.support.sip_raw import PORTS, Caller, Raw, calling, request_of
from tests.support.sip_streams import open_wire
from tests.support.sip_wire import Wire, branch_of, connect, status_of

SOON = 5.0
"""Seconds until which a new phone must be registered."""
OLD = "old-password"
OFFICE, NEW = 30, 50
BEHIND_NAT = 200
_CALLS = 10
_PATIENCE = 4.0
_OLD_TRIES = 4
_TRUNK_CALLS = 3
_PINGS = 5
_TO_TAG = re.compile(rb"\r\nTo:[^\r]*(;tag=[^\r;]*)")
_TRANSPORTS = ("UDP", "TCP", "TLS", "WS")
_ACCOUNTS = 700
"""The number of accounts ``desk1`` and so on: each habit has accounts that no other habit uses."""


def configured() -> dict[str, str]:
    """Return the configuration of an Asterisk 22 with every transport, guests and many desk phones."""
    texts = checked.configured()
    desks = phones.pjsip_accounts(f"desk{number}" for number in range(1, _ACCOUNTS + 1))
    return {**texts, "pjsip.conf": texts["pjsip.conf"] + "\n" + desks}


@frozen
class Scene:
    """Where a habit happens: a laboratory, and the number of its /24."""

    lab: Lab
    number: int

    def at(self, host: int) -> str:
        """Return one of its addresses."""
        return f"198.19.{self.number}.{host}"


@frozen
class Done:
    """How many requests or phones must succeed, and how many failed."""

    needed: int
    failed: int = 0


Habit = Callable[[Scene], Done]


# -- without credentials


def monitor(transport: str) -> Habit:
    """Ping five times by OPTIONS from a monitor, one each second, with a user that it makes up each time."""
    request = request_of(b"OPTIONS", b"monitor{}")
    return lambda scene: _asked(scene, [scene.at(1)], request, _PINGS, transport)


def failover(transport: str) -> Habit:
    """Make three calls from a carrier's other SBC, which no ``identify`` matches."""
    return lambda scene: _asked(scene, [scene.at(1)], _trunk_call(), _TRUNK_CALLS, transport)


def four_nodes(transport: str) -> Habit:
    """Make three calls from each of four nodes of a carrier in a /24."""
    nodes = range(1, 5)
    return lambda scene: _asked(
        scene, [scene.at(node) for node in nodes], _trunk_call(), _TRUNK_CALLS, transport
    )


def _trunk_call() -> Raw:
    return request_of(b"INVITE", b"4930{}")


def _asked(scene: Scene, sources: Sequence[str], request: Raw, each: int, transport: str) -> Done:
    """Send a request without credentials ``each`` times from each source; each needs an answer."""
    answered = 0
    for source in sources:
        with calling(scene.lab, source, transport) as caller:
            for number in range(each):
                one = evolve(request, from_user=request.from_user.replace(b"{}", b"%d" % (1_000 + number)))
                answer = caller.ask(one, 2.0)
                if answer is not None and one.method == b"INVITE":
                    caller.acknowledge(one, answer)
                answered += answer is not None
                time.sleep(1.0)
    needed = len(sources) * each
    return Done(needed, needed - answered)


def guest_calls(transport: str) -> Habit:
    """Call as a guest once a second; a call is lost if it is not answered within some seconds."""

    def habit(scene: Scene) -> Done:
        with netns.inside(scene.lab.network.attacker):
            wire = connect(transport, (PBX_IPV4, PORTS[transport]), scene.at(1), 5.0)
        with closing(wire):
            answered = _call_each_second(wire, transport, f"guest-{scene.number}")
        return Done(_CALLS, _CALLS - answered)

    return habit


def _call_each_second(wire: Wire, transport: str, name: str) -> int:
    """Make the calls, answer what Asterisk asks, and return how many calls it answered."""
    calls: list[Raw] = []
    again: dict[int, list[float]] = {}
    answered: set[int] = set()
    began = time.monotonic()
    while (now := time.monotonic() - began) < _CALLS + _PATIENCE:
        if len(calls) < min(_CALLS, now):
            calls.append(_guest_call(len(calls)))
            again[len(calls) - 1] = [now, *((now + 0.5, now + 1.5, now + 3.5) if transport == "UDP" else ())]
        for number in again.keys() - answered:
            if again[number] and now >= again[number][0]:
                del again[number][0]
                wire.send(calls[number].encode(wire.contact, transport, f"{name}-{number}."))
        message = wire.receive(0.05) or b""
        branch = branch_of(message).removeprefix(f"z9hG4bK{name}-").removesuffix(".")
        if status_of(message) == 200 and branch.isdecimal():
            answered.add(int(branch))
            ack = evolve(calls[int(branch)], method=b"ACK", to_tail=_TO_TAG.findall(message)[0])
            wire.send(ack.encode(wire.contact, transport, f"{name}-{branch}."))
        elif message and not status_of(message) and (own := reply(message)) is not None:
            wire.send(own)
    return len(answered)


def _guest_call(number: int) -> Raw:
    caller = b"4940%d" % (1_000 + number)
    return Raw(method=b"INVITE", from_user=caller, from_host=GUESTS.encode(), extension=b"100")


# -- with passwords


def migration(scene: Scene) -> Done:
    """Switch on a new office of thirty phones together; six of them have old passwords, and try again."""
    return _office(scene, 1, OFFICE, old=6)


def shared_address(scene: Scene) -> Done:
    """Switch on three offices behind one address (CGNAT) one after the other; two phones of each are old."""
    each = OFFICE // 3
    done = [_office(scene, 31 + each * number, each, old=2) for number in range(3)]
    return Done(sum(one.needed for one in done), sum(one.failed for one in done))


def broken_phone(scene: Scene) -> Done:
    """Register an office; then one phone tries an old password again and again, and the others renew."""
    with phones_at(scene.lab, scene.at(1), _desks(61, 6)) as [broken, *others]:
        registered = _renewed(others)
        broken.password, broken.patience = OLD, 1.0
        _try_again(broken, 5 * _OLD_TRIES)
        renewed = _renewed(others)
    statuses = [*registered, *renewed]
    return Done(len(statuses), sum(status != 200 for status in statuses))


def behind_nat(scene: Scene) -> Done:
    """Switch on two hundred phones behind one address together."""
    return _together(scene, "UDP", _desks(71, BEHIND_NAT))


def new_phones(transport: str) -> Habit:
    """Switch on fifty new phones behind one address together."""
    first = 271 + NEW * _TRANSPORTS.index(transport)
    return lambda scene: _together(scene, transport, _desks(first, NEW))


def _desks(first: int, number: int) -> list[str]:
    return [f"desk{number}" for number in range(first, first + number)]


def _office(scene: Scene, first: int, number: int, old: int) -> Done:
    """Switch on an office together; each phone with the right password must register, and later renew.

    On a slow machine the phones begin one after the other. If those with an old password came first, they
    would be banned as a guesser. So they are spread over the office.
    """
    with phones_at(scene.lab, scene.at(1), _desks(first, number)) as office:
        for phone in office[:: number // old][:old]:
            phone.password, phone.patience = OLD, 1.0
        seconds = together(office, _registered)
        right = [phone for phone in office if phone.password != OLD]
        renewed = _renewed(right)
    late = sum(one > SOON for phone, one in zip(office, seconds, strict=True) if phone.password != OLD)
    return Done(2 * len(renewed), late + sum(status != 200 for status in renewed))


def _renewed(office: Sequence[Phone]) -> list[int]:
    """Register phones together, or renew them, and return the statuses."""
    for phone in office:
        phone.patience = 2 * SOON
    return together(office, lambda phone: phone.register(expires=600))


def _registered(phone: Phone, patience: float = 2 * SOON) -> float:
    """Register; return the seconds, or infinity. A phone with an old password tries some times."""
    if phone.password == OLD:
        _try_again(phone, _OLD_TRIES)
        return math.inf
    began, phone.patience = time.monotonic(), patience
    return time.monotonic() - began if phone.register(expires=600) == 200 else math.inf


def _try_again(phone: Phone, times: int) -> None:
    for _ in range(times):
        phone.reboot()
        phone.register()
        time.sleep(0.5)


def _together(scene: Scene, transport: str, accounts: Sequence[str]) -> Done:
    """Register phones behind one address together; each must be registered soon."""
    seconds = seconds_to_register(scene, transport, accounts)
    return Done(len(seconds), sum(one > SOON for one in seconds))


def seconds_to_register(
    scene: Scene, transport: str, accounts: Sequence[str], patience: float = 2 * SOON
) -> list[float]:
    """Register phones behind one address together; return the seconds of each, infinity if it gives up."""
    with ThreadPoolExecutor(len(accounts)) as pool:
        if transport == "UDP":
            with phones_at(scene.lab, scene.at(1), accounts) as office:
                return list(pool.map(lambda phone: _registered(phone, patience), office))
        return list(pool.map(lambda account: _by_stream(scene, transport, account, patience), accounts))


def _by_stream(scene: Scene, transport: str, account: str, patience: float) -> float:
    """Register on new connections until it works; return the seconds, or infinity after ``patience``."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        with suppress(ConnectionError):
            with netns.inside(scene.lab.network.attacker):
                wire = open_wire(transport, (PBX_IPV4, PORTS[transport]), scene.at(1), SOON)
            with closing(wire):
                own = Raw(from_user=account.encode())
                if Caller(wire, transport).guess(own, PASSWORD, SOON) == 200:
                    return time.monotonic() - began
        time.sleep(0.2)
    return math.inf


PINGS: Mapping[str, Habit] = {
    f"a monitor's {_PINGS} OPTIONS, {name}": monitor(name) for name in ("UDP", "TCP")
}
REFUSED_CALLS: Mapping[str, Habit] = {
    **{f"{_TRUNK_CALLS} calls of an SBC without identify, {name}": failover(name) for name in ("UDP", "TCP")},
    "the same from four nodes of a /24, TCP": four_nodes("TCP"),
}
WITH_PASSWORDS: Mapping[str, Habit] = {
    "a new office of 30 phones, six with old passwords": migration,
    "three offices behind one address, two old passwords each": shared_address,
    "one broken phone in an office": broken_phone,
    f"{BEHIND_NAT} new phones behind one address, UDP": behind_nat,
    **{f"{NEW} new phones behind one address, {name}": new_phones(name) for name in _TRANSPORTS},
}
GUESTS_CALLS: Mapping[str, Habit] = {
    f"guests' calls, one a second, {name}": guest_calls(name) for name in ("UDP", "TCP")
}
