"""The probe at the start, which tests whether a ban drops real packets.

For IPv4 it bans a spare loopback address (127.82.70.x). It sends a datagram from that address and one to it,
both before the ban and during it. For incoming packets, the ban works if the datagram does not arrive and the
packet counter of the ban has grown. For outgoing packets, the kernel must also refuse to send the datagram
(EPERM).

IPv6 has only one loopback address. So the probe sends from a documentation address to ::1, from a socket with
IPV6_TRANSPARENT. It tests outgoing packets only if a route leads to that address, and only during the ban. So
no packet leaves the host if the ban works.

Only a rule of ringfence can increase the counter. So the result is valid even if a rule after ours also drops
the datagram. If a rule before ours drops it (bogon filters drop 2001:db8::/32), nothing can be tested: the
result is "not tried", with the reason. Only one result is fatal: a datagram passes although its source or
target is banned. Each datagram has random contents, so a late or forged one is not mistaken for it.

If a full ban covers the SIP ports only, the probe uses PROBE_PORT, which such a ban covers too. If bans apply
to named interfaces without the loopback interface, nothing can be tested.

For each IP version the probe waits at most eight times for 0.1 s, and exchanges a few messages with the
kernel. It always removes the test ban. If that fails, the ban ends by its timeout.
"""

import enum
import errno
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network

from attrs import evolve, frozen

from ringfence.errors import FirewallError, ProbeError
from ringfence.firewall.contract import PROBE_NETWORKS, PROBE_PORT, Add, Backend, Remove
from ringfence.values.ban import Scope
from ringfence.values.network import Network

_IPV6_TRANSPARENT = 75  # <linux/in6.h>; Python has no name for it
_WAIT = 0.1  # seconds for a datagram that is on its way within this host
_TIMEOUT = 10  # seconds until the kernel removes the test element
_TRIES = 3  # a loaded host may deliver a datagram late
_CONTENTS = 16  # bytes
_DROPPED_FIRST = "not tried: another rule drops it first"
_DISCARD = 9  # the target port of outgoing IPv6 packets, in case the ban does not stop them


class Direction(enum.StrEnum):
    """The direction of the packets that a check tests: from banned addresses, or to them."""

    FROM = "from"
    TO = "to"


@frozen
class Check:
    """The result of testing bans for packets in one direction, of one IP version.

    ``verified``: packets in this direction are dropped. ``note`` is the reason if they are not verified, or a
    remark. ``possible`` is False if there is nothing to test: the backend drops nothing, this IP version is
    not guarded, or no such packet can exist.
    """

    version: int
    direction: Direction
    verified: bool
    note: str = ""
    possible: bool = True

    @property
    def name(self) -> str:
        """The IP version and the direction for people, such as ``IPv6 from banned addresses``."""
        return f"IPv{self.version} {self.direction} banned addresses"


@frozen
class Verification:
    """The results of all directions of both IP versions."""

    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Whether anything was verified: false for a backend that drops nothing."""
        return any(check.verified for check in self.checks)

    @property
    def untried(self) -> list[Check]:
        """The directions that could not be tested although such packets can exist."""
        return [check for check in self.checks if check.possible and not check.verified]


@frozen
class _Plan:
    """The addresses for the probe of one IP version.

    ``here`` is an address of this host. ``spares`` is the network of the banned address, of which an address
    is chosen that is not banned already. ``local``: the banned address belongs to this host too.
    """

    family: socket.AddressFamily
    here: str
    spares: Network
    local: bool


_PLANS = {
    4: _Plan(socket.AF_INET, "127.0.0.1", ip_network(PROBE_NETWORKS[4]), local=True),
    6: _Plan(socket.AF_INET6, "::1", ip_network(PROBE_NETWORKS[6]), local=False),
}


def verify(backend: Backend, families: Mapping[int, str | None]) -> Verification:
    """Test a ban of each guarded IP version. Needs ``backend.open``; ``families`` is its ``Opened.families``.

    Raises ProbeError if a packet passes although it is banned; the error names the direction and the IP
    version. A direction counts as not tested if the test ban is refused or a datagram cannot be sent; its
    note is the reason. Raises FirewallError if the backend does not answer.
    """
    checks: list[Check] = []
    for version, reason in families.items():
        if reason is None and not backend.enforces:
            reason = f"the {backend.name} backend drops nothing"  # noqa: PLW2901 - one variable for both reasons
        if reason is not None:
            checks += _untried(version, reason, possible=False)
        else:
            checks += _verify_family(backend, version)
    return Verification(tuple(checks))


def _verify_family(backend: Backend, version: int) -> list[Check]:
    plan = _PLANS[version]
    spares = [str(plan.spares[number]) for number in range(1, 100)]
    spare = next((one for one in spares if not _is_banned(backend, ip_network(one))), spares[0])
    port = 0 if backend.plan.every_port else PROBE_PORT
    try:
        with _sockets(plan, spare, port) as (here, there):
            return _Probe(backend, version, ip_network(spare), here, there).run()
    except OSError as error:
        if version == 6 and error.errno == errno.EADDRNOTAVAIL:  # noqa: PLR2004 - IPv6
            return _untried(version, "this host has no ::1 (IPv6 is switched off)", possible=False)
        return _untried(version, _why_no_datagram(port, error))
    except ProbeError:
        interfaces = backend.plan.interfaces
        if not interfaces or "lo" in interfaces:
            raise
        return _untried(version, f"not tried: bans apply to {', '.join(interfaces)}, not to lo")


def _why_no_datagram(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"not tried: another program uses UDP port {port}"
    return f"not tried: {error.strerror}; is the loopback interface up? fix: `ip link set lo up`"


def _is_banned(backend: Backend, network: Network) -> bool:
    return any(backend.find(network, scope) is not None for scope in Scope)


def _untried(version: int, note: str, *, possible: bool = True) -> list[Check]:
    return [
        Check(version, direction, verified=False, note=note, possible=possible) for direction in Direction
    ]


@contextmanager
def _sockets(plan: _Plan, spare: str, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a pair of UDP sockets: at the plan's address of this host with ``port``, and at ``spare``."""
    with (
        socket.socket(plan.family, socket.SOCK_DGRAM) as here,
        socket.socket(plan.family, socket.SOCK_DGRAM) as there,
    ):
        if not plan.local:
            there.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        for end, address, number in ((here, plan.here, port), (there, spare, 0)):
            end.bind((address, number))
        yield here, there


@frozen
class _Sent:
    """The result of sending a test datagram: did the kernel refuse it (EPERM), and did it arrive."""

    refused: bool
    arrived: bool


@frozen
class _Probe:
    """The probe of one IP version, which bans ``network``.

    The socket ``here`` has an address of this host, and ``there`` the banned address.
    """

    backend: Backend
    version: int
    network: Network
    here: socket.socket
    there: socket.socket

    def run(self) -> list[Check]:
        """Test both directions; raise ProbeError if a packet passes although it is banned."""
        local = _PLANS[self.version].local
        arrived = _send(self.there, self.here).arrived
        left = _send(self.here, self.there).arrived if local else True
        outcome = self.backend.apply([Add(self.network, _TIMEOUT)])[0]
        if outcome.error is not None:  # the test ban was refused; not fatal, because other bans may work
            return _untried(self.version, f"not tried: the test ban was refused: {outcome.error}")
        try:
            checks = [
                self._try_from(passed=arrived),
                self._try_to(passed=left) if local else self._try_out(),
            ]
        finally:
            removed = self.backend.apply([Remove(self.network)])[0]
        if removed.error is not None:
            checks = [evolve(check, note=_not_removed(self.network, removed.error)) for check in checks]
        return checks

    def _try_from(self, *, passed: bool) -> Check:
        for _ in range(_TRIES if passed else 1):
            if _send(self.there, self.here).arrived:
                raise self._passed_error(Direction.FROM)
            if self._packets():
                return self._verified(Direction.FROM, passed=passed)
        return self._dropped_first(Direction.FROM)

    def _try_to(self, *, passed: bool) -> Check:
        """Test outgoing packets to a local address: the kernel must refuse to send the datagram (EPERM).

        ``passed``: such a datagram arrived before the ban. Raise ProbeError if one still arrives.
        """
        for _ in range(_TRIES if passed else 1):
            seen = self._packets()
            sent = _send(self.here, self.there)
            dropped = self._packets() > seen
            if sent.arrived or (dropped and not sent.refused):
                raise self._passed_error(Direction.TO)
            if dropped:
                return self._verified(Direction.TO, passed=passed)
        return self._dropped_first(Direction.TO)

    def _try_out(self) -> Check:
        """Test outgoing IPv6 packets, only during the ban: without it they would leave the host.

        Raise ProbeError if the kernel lets one out.
        """
        seen = self._packets()
        port = self.here.getsockname()[1]
        self.here.close()  # frees the port for the next socket, which has no fixed source address
        try:
            with socket.socket(self.here.family, socket.SOCK_DGRAM) as unbound:
                unbound.bind(("::", port))
                unbound.sendto(secrets.token_bytes(_CONTENTS), (str(self.network.network_address), _DISCARD))
        except OSError as error:
            if error.errno == errno.EPERM:
                if self._packets() > seen:
                    return self._verified(Direction.TO, passed=True)
                return self._dropped_first(Direction.TO)
            note = f"not tried: no route to {self.network} ({error.strerror})"
            possible = error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH)
            return Check(self.version, Direction.TO, verified=False, note=note, possible=possible)
        raise self._passed_error(Direction.TO)

    def _packets(self) -> int:
        """Return how many packets the test ban has dropped."""
        found = self.backend.find(self.network)
        return found.packets if found is not None else 0

    def _verified(self, direction: Direction, *, passed: bool) -> Check:
        note = "" if passed else "other rules of this host drop such packets too"
        return Check(self.version, direction, verified=True, note=note)

    def _dropped_first(self, direction: Direction) -> Check:
        note = f"{_DROPPED_FIRST} ({direction} {self.network.network_address})"
        return Check(self.version, direction, verified=False, note=note)

    def _passed_error(self, direction: Direction) -> ProbeError:
        return ProbeError(
            f"a packet {direction} the banned {self.network} (IPv{self.version}) got through: the rules of "
            "ringfence are missing, or another rule accepts packets before them; "
            f"see `{self.backend.listing(self.version)}`"
        )


def _send(sender: socket.socket, receiver: socket.socket) -> _Sent:
    """Send a datagram from ``sender`` to ``receiver``, and wait at most 0.1 s for it.

    It has random contents, so no other datagram can be mistaken for it.
    """
    contents = secrets.token_bytes(_CONTENTS)
    try:
        sender.sendto(contents, receiver.getsockname())
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return _Sent(refused=True, arrived=False)
    deadline = time.monotonic() + _WAIT
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        try:
            if receiver.recv(_CONTENTS + 1) == contents:
                return _Sent(refused=False, arrived=True)
        except TimeoutError:
            break
    return _Sent(refused=False, arrived=False)


def _not_removed(network: Network, error: FirewallError) -> str:
    return f"the test ban of {network} could not be removed ({error}); it ends within {_TIMEOUT} s"
