"""Contacts at an Asterisk: which phones are registered or answer now, and which have disappeared.

A contact that disappears stays a friend for ``KEEP`` more seconds. The phone may only be restarting: it
unregisters first, and comes back. A phone whose password was changed unregisters too, and does not come back.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ringfence.detect.friends import Key, key_of
from ringfence.friends.recorded import RecordedFriends
from ringfence.model import Contact, Friend, FriendReason

KEEP = 3_600.0
"""Seconds that an address stays a friend after its contact ends.

A contact that disappears ends at that moment. A contact without an end counts as ended at its last report.
"""

_AT_ONCE = 200  # contacts that one step handles, in some 2 ms
_REASONS = (FriendReason.REACHABLE, FriendReason.REGISTERED)


class KnownContacts:
    """Finds contacts that have disappeared, by comparing each roster with the one before.

    A roster is an Asterisk's list of its contacts and trunks. ``recorded`` stores which addresses are friends
    by a contact, and until when. ``wall`` returns wall-clock seconds.
    """

    def __init__(self, recorded: RecordedFriends, wall: Callable[[], float]) -> None:
        self._recorded = recorded
        self._wall = wall
        self._round = 0
        self._rounds: dict[str, dict[Key, int]] = {}
        """The contacts of each Asterisk, each with the number of the latest list of contacts that had it."""

    def restore(self, friends: Iterable[Friend]) -> None:
        """Restore the contacts that an earlier run of the daemon knew, from its stored friends.

        They count as listed in an earlier roster. So a contact that the next roster (an Asterisk's list
        of its contacts and trunks) lacks has disappeared.
        """
        for friend in friends:
            if friend.reason in _REASONS:
                self._rounds.setdefault(friend.asterisk, {})[key_of(friend)] = 0

    def on_contact(self, contact: Contact) -> None:
        """Handle a change of a contact: a phone registers, answers, or is gone."""
        if not contact.gone:
            self._record(contact)
            return
        keys = [(contact.asterisk, contact.address, contact.account, reason) for reason in _REASONS]
        self._end(contact.asterisk, keys)

    def steps(self, asterisk: str, contacts: tuple[Contact, ...]) -> Iterator[Callable[[], None]]:
        """Yield the steps that handle a complete list of an Asterisk's contacts: functions to call in order.

        Each step takes some 2 ms, so that bans can go on between two steps.
        """
        self._round += 1
        for start in range(0, len(contacts), _AT_ONCE):
            yield partial(self._record_all, contacts[start : start + _AT_ONCE])
        number, known = self._round, list(self._rounds.get(asterisk, {}).items())
        for start in range(0, len(known), _AT_ONCE):
            missing = [key for key, seen in known[start : start + _AT_ONCE] if seen < number]
            if missing:
                yield partial(self._end, asterisk, missing)

    def discard(self, keys: Iterable[Key]) -> None:
        """Forget the contacts with these keys: their addresses are no longer friends by these contacts."""
        for key in keys:
            self._rounds.get(key[0], {}).pop(key, None)

    def _record_all(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if not contact.gone:
                self._record(contact)

    def _record(self, contact: Contact) -> None:
        now = self._wall()
        reason = FriendReason.REACHABLE if contact.reachable else FriendReason.REGISTERED
        until = (contact.until if contact.until is not None else now) + KEEP
        if until <= now:
            return
        key = contact.asterisk, contact.address, contact.account, reason
        self._rounds.setdefault(contact.asterisk, {})[key] = self._round
        if self._recorded.renews(key, now, until):
            friend = Friend(contact.asterisk, contact.address, contact.account, reason, now, now, until)
            self.discard(self._recorded.record(friend))

    def _end(self, asterisk: str, keys: Iterable[Key]) -> None:
        """End the friend status by contacts that the Asterisk no longer has, in at most ``KEEP`` seconds."""
        until = self._wall() + KEEP
        for key in keys:
            self._rounds.get(asterisk, {}).pop(key, None)
            self._recorded.shorten(key, until)
