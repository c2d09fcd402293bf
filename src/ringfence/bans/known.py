"""All bans that the daemon knows: those in the kernel, and the pending ones.

A *pending* ban is one that the kernel has refused. It is tried again until it succeeds or its time is over.
Meanwhile its network counts as banned. Otherwise further attempts would lead to more bans, and the kernel
would refuse each of them, and the log would report each refusal.
"""

from collections.abc import KeysView, Sequence

from attrs import evolve

from ringfence.bans.exemptions import meets_friend
from ringfence.bans.ledger import Ledger, Record, ban_of, key_of, network_of
from ringfence.model import Ban, Network, Scope
from ringfence.networks import overlap

MOST_PENDING = 1_000
"""The maximum number of refused bans that are tried again."""


class KnownBans:
    """The ledger of the kernel's bans, and the pending bans. ``now`` is always in seconds since the epoch."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._pending: dict[int, Ban] = {}

    @property
    def pending(self) -> Sequence[Ban]:
        """The bans that the kernel has refused and that are tried again."""
        return list(self._pending.values())

    def pending_keys(self) -> KeysView[int]:
        """Return the keys of the pending bans."""
        return self._pending.keys()

    def get(self, key: int) -> Ban | None:
        """Return the ban with that key, or None.

        An active ban is returned without its attempts, a pending one as it was when the kernel refused it.
        """
        record = self.ledger.get(key)
        return ban_of(key, record) if record is not None else self._pending.get(key)

    def all_keys(self) -> list[int]:
        """Return the key of every ban, including the pending ones."""
        return [*self.ledger.keys(), *self._pending]

    def overlapping(self, network: Network, now: float) -> list[int]:
        """Return the keys of the bans that have an address in common with ``network``."""
        found = [key for key in self._pending if overlap(network_of(key)[0], network)]
        for scope in Scope:
            found += self.ledger.covering(network, scope, now)
            found += self.ledger.within(network, scope)
        return found

    def is_forced(self, key: int) -> bool:
        """Whether an administrator forced a ban."""
        record = self.ledger.get(key) or self._pending.get(key)
        return record is not None and record.forced

    def drops(self, network: Network, scope: Scope, now: float, *, friend: bool) -> bool:
        """Whether a ban of exactly this ``scope`` applies to ``network``; wider scopes do not count.

        It is an active ban of a network that contains ``network``, or a pending ban of ``network`` itself.
        With ``friend``, ``network`` is a friend's address, and active bans that do not apply to friends are
        ignored.
        """
        if key_of(network, scope) in self._pending:
            return True
        covering = self.ledger.covering(network, scope, now)
        return any(not friend or meets_friend(network_of(key)[0], network) for key in covering)

    def confirm(self, key: int, record: Record) -> None:
        """Record that the kernel has a ban. It is no longer pending."""
        self._pending.pop(key, None)
        self.ledger.put(key, record)

    def refuse(self, ban: Ban) -> bool:
        """Record as pending a ban that the kernel has refused; return False if too many are pending."""
        key = key_of(ban.network, ban.scope)
        if key not in self._pending and len(self._pending) >= MOST_PENDING:
            return False
        self._pending[key] = ban
        return True

    def discard(self, key: int) -> None:
        """Forget the ban with that key, active or pending."""
        self.ledger.pop(key)
        self._pending.pop(key, None)

    def discard_pending(self, key: int) -> None:
        """Forget the pending ban with that key. An active ban with this key stays."""
        self._pending.pop(key, None)

    def expire_pending(self, now: float) -> bool:
        """Forget the pending bans whose time is over; return whether there were any."""
        over = [key for key, ban in self._pending.items() if ban.expires <= now]
        for key in over:
            del self._pending[key]
        return bool(over)

    def shift(self, seconds: float) -> None:
        """Move all times by ``seconds``, because the clock was set."""
        self.ledger.shift(seconds)
        for key, ban in self._pending.items():
            self._pending[key] = evolve(ban, since=ban.since + seconds, expires=ban.expires + seconds)

    def clear(self) -> None:
        """Forget all bans."""
        self.ledger.clear()
        self._pending.clear()
