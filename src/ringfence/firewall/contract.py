"""The contract between ringfence and a firewall: five verbs, and the values they speak in.

All verbs are synchronous: one netlink exchange takes some ten microseconds, less than handing it to
another thread, and an attacker sends a guess every 300 µs. Only ``open`` and ``flush`` may start a process
(the platform's own restore tool), and both are rare.

What comes back is what the kernel confirmed, element by element; nothing is assumed from silence.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.model import Network


@frozen
class Add:
    """Keep ``network`` out for ``timeout`` seconds from now, whether or not it is in already."""

    network: Network
    timeout: float


@frozen
class Remove:
    """Let ``network`` in again, whether or not it was out."""

    network: Network


Change = Add | Remove


@frozen
class Outcome:
    """What became of one change.

    ``error`` is None exactly when the kernel acknowledged it. ``timeout`` is what an Add was really given,
    in seconds: less than asked where the backend's own cap is lower (the caller renews in time).
    """

    change: Change
    timeout: float = 0.0
    error: FirewallError | None = None


@frozen
class Element:
    """One ban as the kernel has it: time left in seconds, and what was dropped because of it.

    ``timeout`` is ``inf`` for an element without an end, which only somebody else can have put in.
    """

    network: Network
    timeout: float
    packets: int
    bytes: int


@frozen
class Opened:
    """What ``open`` found: per IP version (4, 6) None where it is guarded, else why it cannot be.

    ``wire`` is None where the log rule stands for every guarded version, and where it was not asked for; else
    why it does not stand. The bans stand either way.
    """

    families: Mapping[int, str | None]
    adopted: int = 0
    wire: str | None = None


@frozen
class Part:
    """One thing that a backend needs: what it is, and what it lacks with the mend, or None."""

    what: str
    lack: str | None = None
    note: str = ""


class Backend(Protocol):
    """A firewall. Each verb says whether it may be repeated.

    ``enforces`` is whether packets are really dropped; without it there is nothing to verify.
    """

    name: str
    enforces: bool

    def look(self) -> Sequence[Part]:
        """Say what stands in the way of ``open``, part by part. No verb: it changes nothing."""

    def open(self) -> Opened:
        """Put sets and rules in place, adopting sets that are there already with all they hold.

        Idempotent: a second call heals what is missing and loses no element. Before it changes anything it
        raises FirewallUnsupportedError or FirewallPermissionError for what this host or process lacks.
        A host without one of the two IP versions is a state (``Opened.families``), not an error; a host
        with neither is unsupported.
        """

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change of ``batch``, in order, and say of each what the kernel said.

        Idempotent. Needs ``open``. One bad change takes no other with it. Never raises for a change; raises
        FirewallError only where nothing at all can be said (the socket is gone).
        """

    def list(self) -> list[Element]:
        """Read every ban from the kernel, in no order. Changes nothing; works without ``open``.

        The one verb that may be called in a thread of its own, while the others go on: 100 000 bans take
        half a second to read.

        Empty where no set of ours exists.
        """

    def flush(self) -> None:
        """Remove every rule, chain and set of ours, and nothing else. Idempotent; works without ``open``."""

    def close(self) -> None:
        """Give back sockets. What is in the kernel stays. Idempotent."""
