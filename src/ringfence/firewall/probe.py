"""Whether a ban works, tried with real packets: what READY waits for.

For IPv4 a spare loopback address (127.82.70.x) is banned and a datagram is sent from it and to it, before and
after. On the way in the witnesses are silence and the element's own packet counter; on the way out the
sender is told EPERM, and the counter grows. For IPv6, which has one loopback address only, a socket bound by
IPV6_TRANSPARENT sends from a documentation address to ::1; the way out is tried only where a route leads to
that address, and only after the ban, so that where the ban works no packet leaves the host.

Where a full ban covers the SIP ports only, the probe goes to and from PROBE_PORT, which such a ban covers
too. Where bans stand on named interfaces and the loopback interface is none of them, it may be that nothing
can be tried: then that is said.

The counter is what decides: it can only grow by our rule. A host whose own rules drop such strange packets
further in is verified all the same, since raw comes first.

Bounded: four waits of at most 0.1 s, and a few exchanges with the kernel. The test element is removed in any
case, and its timeout ends it if even that fails.
"""

import enum
import errno
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network

from attrs import frozen

from ringfence.errors import ProbeError, SetFullError
from ringfence.firewall.contract import PROBE_PORT, Add, Backend, Remove
from ringfence.model import Network, Scope

_IPV6_TRANSPARENT = 75  # <linux/in6.h>; Python has no name for it
_WAIT = 0.1  # seconds for a datagram that is on its way within this host
_TIMEOUT = 10.0  # seconds until the kernel ends the test element by itself
_PROBE = b"ringfence probe"
_DISCARD = 9  # the port for the way out of IPv6, should the ban not work


class Direction(enum.StrEnum):
    """Which way a probe goes, seen from this host."""

    FROM = "from"
    TO = "to"


@frozen
class Check:
    """One direction of one IP version: verified, or why not."""

    version: int
    direction: Direction
    verified: bool
    note: str = ""


@frozen
class Verification:
    """What was verified, direction by direction."""

    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Whether anything was verified: false for a backend that drops nothing."""
        return any(check.verified for check in self.checks)


@frozen
class _Plan:
    """The addresses of one IP version's probe; ``local`` where a spare one is this host's like any other."""

    family: socket.AddressFamily
    here: str
    spare: str
    local: bool


_PLANS = {
    4: _Plan(socket.AF_INET, "127.0.0.1", "127.82.70.{}", local=True),
    6: _Plan(socket.AF_INET6, "::1", "2001:db8:5246::{}", local=False),
}


def verify(backend: Backend, families: Mapping[int, str | None]) -> Verification:
    """Try a ban in every guarded family of ``families`` (``Opened.families``). Needs ``backend.open``.

    Raises ProbeError naming the direction and the IP version that got through, and the likely mend.
    """
    checks: list[Check] = []
    for version, reason in families.items():
        if reason is None and not backend.enforces:
            reason = f"the {backend.name} backend drops nothing"  # noqa: PLW2901 - the reason for both
        if reason is not None:
            checks += _untried(version, reason)
        else:
            checks += _verify_family(backend, version)
    return Verification(tuple(checks))


def _verify_family(backend: Backend, version: int) -> list[Check]:
    plan = _PLANS[version]
    spares = (plan.spare.format(number) for number in range(1, 100))
    spare = next((one for one in spares if not _is_banned(backend, ip_network(one))), plan.spare.format(1))
    port = 0 if backend.plan.every_port else PROBE_PORT
    try:
        with _sockets(plan, spare, port) as (here, there):
            return _Probe(backend, version, ip_network(spare), here, there).run()
    except OSError as error:
        if version == 6 and error.errno == errno.EADDRNOTAVAIL:  # noqa: PLR2004 - IPv6
            return _untried(version, "this host has no ::1 (IPv6 is switched off)")
        if error.errno == errno.EADDRINUSE:
            return _untried(version, f"not tried: somebody listens at UDP port {port}")
        raise ProbeError(
            f"a ban could not be tried for IPv{version}: {error}; is the loopback interface up? "
            "mend: `ip link set lo up`"
        ) from error
    except SetFullError as error:  # its bans stand, and stay
        return _untried(version, f"not tried: {error}")
    except ProbeError:
        interfaces = backend.plan.interfaces
        if not interfaces or "lo" in interfaces:
            raise
        return _untried(version, f"not tried: bans stand on {', '.join(interfaces)}, and not on lo")


def _is_banned(backend: Backend, network: Network) -> bool:
    return any(backend.find(network, scope) is not None for scope in Scope)


def _untried(version: int, note: str) -> list[Check]:
    return [Check(version, direction, verified=False, note=note) for direction in Direction]


@contextmanager
def _sockets(plan: _Plan, spare: str, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a socket of this host's (at ``port``) and one of the spare address."""
    with (
        socket.socket(plan.family, socket.SOCK_DGRAM) as here,
        socket.socket(plan.family, socket.SOCK_DGRAM) as there,
    ):
        if not plan.local:
            there.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        for end, address, number in ((here, plan.here, port), (there, spare, 0)):
            end.settimeout(_WAIT)
            end.bind((address, number))
        yield here, there


@frozen
class _Probe:
    """One family's probe, with everything it needs."""

    backend: Backend
    version: int
    network: Network
    here: socket.socket
    there: socket.socket

    def run(self) -> list[Check]:
        local = _PLANS[self.version].local
        before = {
            Direction.FROM: self._arrives(self.there, self.here),
            Direction.TO: not local or self._arrives(self.here, self.there),
        }
        try:
            outcome = self.backend.apply([Add(self.network, _TIMEOUT)])[0]
            if isinstance(outcome.error, SetFullError):
                raise outcome.error
            if outcome.error is not None:
                raise ProbeError(
                    f"the test ban of {self.network} was refused: {outcome.error}"
                ) from outcome.error
            came, seen = self._check_from(passed=before[Direction.FROM])
            went = self._check_to(seen, passed=before[Direction.TO])
        finally:
            removed = self.backend.apply([Remove(self.network)])[0]
        if removed.error is not None:
            raise ProbeError(f"the test ban of {self.network} could not be removed: {removed.error}")
        return [came, went]

    def _arrives(self, sender: socket.socket, receiver: socket.socket) -> bool:
        try:
            sender.sendto(_PROBE, receiver.getsockname())
            return receiver.recv(len(_PROBE)) == _PROBE
        except (TimeoutError, PermissionError):
            return False

    def _check_from(self, *, passed: bool) -> tuple[Check, int]:
        """Try the way in; give what came of it, and how many packets the ban has met."""
        if self._arrives(self.there, self.here):
            raise self._got_through(Direction.FROM)
        seen = self._packets()
        if not seen:
            raise self._not_seen(Direction.FROM)
        return self._verified(Direction.FROM, passed=passed), seen

    def _check_to(self, seen: int, *, passed: bool) -> Check:
        try:
            if _PLANS[self.version].local:
                self.here.sendto(_PROBE, self.there.getsockname())
            else:
                port = self.here.getsockname()[1]
                self.here.close()  # another socket is to send from its port, by whatever address leads there
                with socket.socket(self.here.family, socket.SOCK_DGRAM) as unbound:
                    unbound.bind(("::", port))
                    unbound.sendto(_PROBE, (str(self.network.network_address), _DISCARD))
        except PermissionError:
            if self._packets() <= seen:
                raise self._not_seen(Direction.TO) from None
            return self._verified(Direction.TO, passed=passed)
        except OSError as error:
            if _PLANS[self.version].local:
                raise
            note = f"not tried: no route to {self.network} ({error.strerror})"
            return Check(self.version, Direction.TO, verified=False, note=note)
        raise self._got_through(Direction.TO)

    def _packets(self) -> int:
        """Say how many packets the kernel dropped by the test element."""
        found = self.backend.find(self.network)
        return found.packets if found is not None else 0

    def _verified(self, direction: Direction, *, passed: bool) -> Check:
        note = "" if passed else "other rules of this host drop such packets too"
        return Check(self.version, direction, verified=True, note=note)

    def _got_through(self, direction: Direction) -> ProbeError:
        return ProbeError(
            f"a packet {direction} the banned {self.network} (IPv{self.version}) got through: the rules of "
            "ringfence are missing or another rule accepts before them; "
            f"see {self._rules()}"
        )

    def _not_seen(self, direction: Direction) -> ProbeError:
        return ProbeError(
            f"a packet {direction} the banned {self.network} (IPv{self.version}) neither arrived nor was "
            "dropped by its ban: other rules drop it before, or the loopback interface is down; "
            f"see `ip link show lo` and {self._rules()}"
        )

    def _rules(self) -> str:
        if self.backend.name == "nftables":
            return "`nft list ruleset`"
        return f"`{'iptables' if self.version == 4 else 'ip6tables'} -t raw -S`"  # noqa: PLR2004 - IPv4
