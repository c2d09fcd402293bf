"""Challenges without end: who asks for one after the other, and never answers one rightly.

A phone answers its challenge, and Asterisk tells of the success. Whoever tries passwords never succeeds. So
what hides a guess from every witness in some way that nobody has thought of yet still shows here: challenges
pile up under the sender's address (``Challenge.sender``, on which no text has an influence), and no success
comes. ``MANY`` of them in ``WITHIN`` is far beyond a phone that is not let in, and ends every such way.

The same tells who may be behind a line of the log that no challenge stands behind. PJSIP sends nothing where
a Via names an address that nothing can be sent to, or where the answer would be longer than a datagram, and
yet checks the password; a right one registers him (tried on 22.10.1). For that the guess must hold a nonce
that is not older than 32 s, and that the same address has been sent
(``res_pjsip_authenticator_digest.c:build_nonce``). So the line is believed of an address that has *asked*
lately and not succeeded, and of no other. A phone that is just registering has asked too, and somebody may
write lines with its address day and night: it has two seconds to answer, and is trusted for a day then.

Of chan_sip nothing is concluded: it tells of no success of a SUBSCRIBE, and a phone may have a hundred lamps.

This is drawn from silence too, and phones ask without answering: their OPTIONS, sent every few seconds to
keep a way open, are challenged like anything else. So it holds only where AMI was heard all the time for two
hours, within which every phone registers, and has told of a phone's success (who switches that event off, to
have quiet, is not served by it); and never of an address, or a /64, that has succeeded within ``TRUSTED``.
Bounds: 16 384 senders and as many who succeeded, the oldest go first. Times are monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv4Address

from attrs import define

from ringfence.model import Address, Challenge

MANY = 100
"""So many challenges that nothing came of are no phone's."""

WITHIN = 600.0
"""The time for them (seconds)."""

SETTLED = 1.0
"""How long a success may take to be told (seconds)."""

ANSWERED = 2.0
"""How long a phone may take to answer, from its first challenge to the success (seconds)."""

ASKED = 60.0
"""How old a challenge may be whose nonce is still taken (seconds); Asterisk's default is 32."""

TRUSTED = 86_400.0
"""For so long (seconds) nothing is concluded of who has succeeded."""

SURE_AFTER = 7_200.0
"""For so long (seconds) AMI must have been heard: phones register at least so often."""

_MOST = 16_384
_HOST_BITS = 64  # of an IPv6 address: who has a /64 has no end of addresses
_Wide = Address | int


@define
class _Streak:
    """The challenges since the first that nothing came of; ``told`` of them were given out."""

    began: float
    asterisk: str
    latest: Challenge
    last: float
    count: int = 0
    told: int = MANY


class Unanswered:
    """Takes challenges and successes; gives the challenges that are too many."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._streaks: OrderedDict[_Wide, _Streak] = OrderedDict()
        self._over: dict[_Wide, None] = {}  # whose streaks may be too long
        self._succeeded: OrderedDict[_Wide, float] = OrderedDict()
        self._heard: dict[str, float] = {}

    def __len__(self) -> int:
        """How many senders are kept, and how many who succeeded."""
        return len(self._streaks) + len(self._succeeded)

    def note(self, challenge: Challenge, sender: Address, asterisk: str, now: float) -> None:
        """Take a challenge that ``sender`` asked the PJSIP of ``asterisk`` for."""
        wide = _wide(sender)
        if now - self._succeeded.get(wide, -TRUSTED) < TRUSTED:
            return
        streak = self._streaks.get(wide)
        if streak is None or now - streak.began >= WITHIN:
            streak = self._streaks[wide] = _Streak(now, asterisk, challenge, now)
        streak.count += 1
        streak.latest, streak.last = challenge, now
        if streak.count > streak.told:
            self._over[wide] = None
        self._streaks.move_to_end(wide)
        if len(self._streaks) > self._most:
            self._streaks.popitem(last=False)

    def told(self, address: Address) -> None:
        """Take that somebody else tells of an attempt of ``address``: it does not hide."""
        streak = self._streaks.get(_wide(address))
        if streak is not None:
            streak.count, streak.told = 0, MANY

    def succeeded(self, address: Address, asterisk: str, now: float) -> None:
        """Take that the AMI of ``asterisk`` tells of a right password of ``address``."""
        self._heard[asterisk] = now
        wide = _wide(address)
        self._streaks.pop(wide, None)
        self._succeeded[wide] = now
        self._succeeded.move_to_end(wide)
        if len(self._succeeded) > self._most:
            self._succeeded.popitem(last=False)

    def asked(self, address: Address, at: float, listening: Callable[[str], float | None]) -> bool:
        """Say whether ``address`` could guess at ``at``: it was challenged lately, and has not succeeded.

        ``listening`` says since when the AMI of an Asterisk has been heard without a break; None: it is not.
        """
        streak = self._streaks.get(_wide(address))
        if streak is None or not (at - streak.last < ASKED and at - streak.began >= ANSWERED):
            return False
        return self._is_sure(streak, listening)

    def too_many(
        self, now: float, listening: Callable[[str], float | None]
    ) -> list[tuple[Challenge, str, int]]:
        """Give the latest challenge of each who asked too often, of which Asterisk, and how many are new."""
        found = []
        for wide in list(self._over):
            streak = self._streaks.get(wide)
            if streak is not None and streak.count > streak.told:
                if now - streak.began < SETTLED:
                    continue
                if self._is_sure(streak, listening):
                    found.append((streak.latest, streak.asterisk, streak.count - streak.told))
                    streak.told = streak.count
                else:
                    del self._streaks[wide]  # it begins anew when AMI is heard
            del self._over[wide]
        return found

    def _is_sure(self, streak: _Streak, listening: Callable[[str], float | None]) -> bool:
        """Say whether AMI would have told of a success of this sender's, if he had one."""
        since = listening(streak.asterisk)
        if since is None or streak.began - since < SURE_AFTER:
            return False
        return self._heard.get(streak.asterisk, since) > since


def _wide(address: Address) -> _Wide:
    return address if isinstance(address, IPv4Address) else int(address) >> _HOST_BITS
