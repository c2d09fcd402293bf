"""Abandoned challenges: detects senders that keep requesting challenges and never authenticate.

A phone answers its challenge, and Asterisk reports the success. An attacker never succeeds. So even guesses
that an unknown method hides from all other sources are found: challenges add up for the sender's address
(``Challenge.sender``, which no text of the sender affects), and no success follows. ``MANY`` of them within
``WITHIN`` are far more than a failing phone causes.

The same data confirms a log line without a challenge. PJSIP sends nothing if a Via names an unroutable
address, or if the answer would be longer than a datagram. It still checks the password, and a right one
registers the attacker (tried on 22.10.1). Such a guess needs a nonce that is at most 32 s old and was sent to
the same address (``res_pjsip_authenticator_digest.c:build_nonce``). So the line is confirmed only for an
address that was challenged lately and has not succeeded. A phone that registers was challenged too, and an
attacker may forge lines with its address. So a phone has two seconds to answer, and after a success it is
trusted for a day.

chan_sip is not covered, because it does not report a successful SUBSCRIBE, and a phone may send a hundred of
them (for its lamps).

This conclusion is also drawn from missing events, and phones too cause challenges that they do not answer:
PJSIP challenges the OPTIONS that they send every few seconds to keep a NAT mapping open. So AMI must have
been connected for two hours without interruption, within which each phone registers, and must have reported a
success. (It does not work if SuccessfulAuth is switched off.) An address, or a /64, that succeeded within
``TRUSTED`` is never affected. Bounds: 16 384 senders and as many successes, the oldest are discarded first.
Times are monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Callable

from attrs import define

from ringfence.model import Address, Challenge
from ringfence.networks import sender_key

MANY = 100
"""The number of challenges without a success from which the sender cannot be a phone."""

WITHIN = 600.0
"""The period in which challenges are counted (seconds)."""

SETTLED = 1.0
"""The longest delay of the report of a success (seconds)."""

ANSWERED = 2.0
"""The longest time of a phone from its first challenge to the success (seconds)."""

ASKED = 60.0
"""The greatest age of a nonce that Asterisk accepts (seconds); its default is 32."""

TRUSTED = 86_400.0
"""How long after a success (seconds) an address is not suspected."""

SURE_AFTER = 7_200.0
"""How long AMI must have been connected (seconds): phones register at least this often."""

_MOST = 16_384
_Wide = Address | int


@define
class _Streak:
    """The challenges of a sender since its last success; ``returned`` of them were returned already."""

    began: float
    asterisk: str
    latest: Challenge
    last: float
    count: int = 0
    returned: int = MANY


class Unanswered:
    """Counts challenges without a success, and finds senders with too many."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._streaks: OrderedDict[_Wide, _Streak] = OrderedDict()
        self._over: dict[_Wide, None] = {}  # senders that may have too many challenges
        self._succeeded: OrderedDict[_Wide, float] = OrderedDict()
        self._heard: dict[str, float] = {}

    def __len__(self) -> int:
        """Return the number of senders and of successes."""
        return len(self._streaks) + len(self._succeeded)

    def record(self, challenge: Challenge, sender: Address, asterisk: str, now: float) -> None:
        """Record a challenge that ``sender`` requested from the PJSIP of ``asterisk``."""
        wide = sender_key(sender)
        if now - self._succeeded.get(wide, -TRUSTED) < TRUSTED:
            return
        streak = self._streaks.get(wide)
        if streak is None or now - streak.began >= WITHIN:
            streak = self._streaks[wide] = _Streak(now, asterisk, challenge, now)
        streak.count += 1
        streak.latest, streak.last = challenge, now
        if streak.count > streak.returned:
            self._over[wide] = None
        self._streaks.move_to_end(wide)
        if len(self._streaks) > self._most:
            self._streaks.popitem(last=False)

    def reported_elsewhere(self, address: Address) -> None:
        """Record that another source reports an attempt of ``address``: it is not hidden."""
        streak = self._streaks.get(sender_key(address))
        if streak is not None:
            streak.count, streak.returned = 0, MANY

    def succeeded(self, address: Address, asterisk: str, now: float) -> None:
        """Record that AMI of ``asterisk`` reports a successful login of ``address``."""
        self._heard[asterisk] = now
        wide = sender_key(address)
        self._streaks.pop(wide, None)
        self._succeeded[wide] = now
        self._succeeded.move_to_end(wide)
        if len(self._succeeded) > self._most:
            self._succeeded.popitem(last=False)

    def could_have_guessed(
        self, address: Address, at: float, listening: Callable[[str], float | None]
    ) -> bool:
        """Whether ``address`` could guess at ``at``: it was challenged shortly before, without success.

        ``listening`` returns since when AMI of an Asterisk has been connected without interruption, or None.
        """
        streak = self._streaks.get(sender_key(address))
        if streak is None or not (at - streak.last < ASKED and at - streak.began >= ANSWERED):
            return False
        return self._is_sure(streak, listening)

    def too_many(
        self, now: float, listening: Callable[[str], float | None]
    ) -> list[tuple[Challenge, str, int]]:
        """Return the latest challenge of each sender with too many, its Asterisk, and how many are new."""
        found = []
        for wide in list(self._over):
            streak = self._streaks.get(wide)
            if streak is not None and streak.count > streak.returned:
                if now - streak.began < SETTLED:
                    continue
                if self._is_sure(streak, listening):
                    found.append((streak.latest, streak.asterisk, streak.count - streak.returned))
                    streak.returned = streak.count
                else:
                    del self._streaks[wide]  # counting starts again when AMI is connected
            del self._over[wide]
        return found

    def _is_sure(self, streak: _Streak, listening: Callable[[str], float | None]) -> bool:
        """Whether AMI would have reported a success of this sender."""
        since = listening(streak.asterisk)
        if since is None or streak.began - since < SURE_AFTER:
            return False
        return self._heard.get(streak.asterisk, since) > since
