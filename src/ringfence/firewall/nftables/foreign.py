"""Notices at once the changes that other programs make to nftables.

The kernel reports every transaction with the netlink port of its author, and whether it changed our table
(``watch.py``). A transaction can change several tables, and ringfence does not read every change. So after
any transaction of another program our rules are *suspect*: they are read and compared. The elements of our
sets count as changed only if a change of our table was seen, or if notifications were lost.

During a large transaction of its own, ringfence does not listen, because the kernel would write 8 kB for each
element to a listener. The kernel numbers every transaction (the generation). So the number shows afterwards
whether another program made a transaction meanwhile.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ringfence.firewall.nftables.elements import CHUNK
from ringfence.firewall.nftables.state import read_generation
from ringfence.firewall.nftables.watch import ChangeMonitor
from ringfence.netlink.connection import NetlinkConnection


class ForeignChanges:
    """Records that other programs changed nftables.

    ``kernel`` is the connection over which ringfence itself makes transactions; these are not recorded.
    """

    def __init__(self, kernel: NetlinkConnection) -> None:
        self.epoch = 0
        """A number that increases when another program changed, or may have changed, our table."""
        self._kernel = kernel
        self._monitor: ChangeMonitor | None = None
        self._suspect = False
        self._changed = False
        self._assumed = False

    @property
    def suspect(self) -> bool:
        """Whether the rules may differ from those that were written last."""
        return self._suspect

    def mark_suspect(self) -> None:
        """Record that the rules may differ from those that were written last."""
        self._suspect = True

    def confirm_rules(self) -> None:
        """Record that the rules are those that were written last."""
        self._suspect = False

    def listen(self) -> None:
        """Start listening for changes.

        If the kernel refuses, :meth:`read` marks the rules as suspect each time.
        """
        if self._monitor is None:
            with suppress(OSError):
                self._monitor = ChangeMonitor()

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there is a notification; None if nothing listens."""
        return self._monitor.fileno() if self._monitor is not None else None

    def read(self, *own: int) -> None:
        """Read the waiting notifications, and record what they report.

        ``own`` are the netlink ports of processes that ringfence started. Changes from these ports are not
        recorded.
        """
        if self._monitor is None:
            self._suspect = True
            self.epoch += 1
            return
        notified, ours = self._monitor.drain(), {self._kernel.port, *own}
        self._monitor.ignore(self._kernel.port)
        if notified.lost or notified.touched - ours:
            self._suspect = self._changed = True
            self.epoch += 1
        elif notified.ports - ours:  # another program changed nftables, but probably not our table
            self._suspect = True

    def take_changed(self, *, counted: bool) -> bool:
        """Return whether another program has changed our table since the last call, and forget it.

        ``counted``: the kernel counts the elements of sets. If another program made a transaction while
        ringfence did not listen, this transaction may have changed our table. Without ``counted``, the answer
        is then True. With ``counted``, it is not, because the caller compares the numbers of elements.
        """
        changed = self._changed or (self._assumed and not counted)
        self._changed = self._assumed = False
        return changed

    @contextmanager
    def unmonitored(self, size: int, commits: Callable[[], int] = lambda: 1) -> Iterator[None]:
        """Stop listening while the caller changes ``size`` elements, if these are more than CHUNK.

        ``commits`` returns how many transactions the caller has made. If the kernel has counted another
        number, another program may have changed our table, and this is recorded.
        """
        if self._monitor is None or size <= CHUNK:
            yield
            return
        before = read_generation(self._kernel)
        self._monitor.pause()
        try:
            yield
        finally:
            self._monitor.resume()
            if read_generation(self._kernel) != before + commits():
                self._suspect = self._assumed = True
                self.epoch += 1

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
