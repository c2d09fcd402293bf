"""The alarm about a ban that has no effect: attempts keep arriving from the banned address."""

from collections import OrderedDict

from attrs import define

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.reconcile import Reconciler
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.host.protected import ProtectedNetworks
from ringfence.values.attempt import Attempt
from ringfence.values.ban import Scope
from ringfence.values.event import SETUP_ACCOUNT
from ringfence.values.network import Address

# -- detects ineffective bans: attempts that keep arriving from a banned address
#
# An attempt soon after a ban does not show a fault, because Asterisk still handles requests that it
# received before the ban. It handles 3,300 guesses per second (measured). So the requests that wait at the
# ban take:
#
# * 0.05 s in a UDP socket's buffer (``net.core.rmem_default``): 166 requests with the kernel's overhead;
# * 3.8 s in a TCP connection's buffer (``net.ipv4.tcp_rmem``, 6 MiB): at most 12,600 requests of 500 bytes;
# * 0.2 s in a queue of PJSIP (``AST_TASKPROCESSOR_HIGH_WATER_LEVEL``): at most 500 requests.
#
# ``GRACE`` is enough for four TCP connections with full buffers. A sender with more connections, or a host
# with larger buffers, may cause a false alarm. A false alarm bans nothing.
#
# An attempt counts if the time of its event is more than ``GRACE`` after the ban was placed. A single
# attempt may be an accident (a clock that was set, a line that was written late), so ``ENOUGH`` attempts
# are needed. Packets with a forged source address cause no false alarm: if this address is banned, they are
# dropped too.


GRACE = 15.0
"""Seconds after a ban in which attempts of the banned address do not count: their packets came before."""
ENOUGH = 3
PAUSE = 600.0
"""Seconds without an attempt of a banned address after which counting begins again."""
MOST = 1_024
"""The maximum number of banned addresses whose attempts are counted. The least recent one is forgotten."""


@define
class _Late:
    """The number of attempts that one address has made after its ban.

    ``since`` is when the ban was placed, ``latest`` when the latest attempt was made (epoch seconds).
    """

    since: float
    attempts: int = 0
    latest: float = 0.0


class Ineffective:
    """Counts the attempts that addresses make after they were banned."""

    def __init__(self) -> None:
        self._late: OrderedDict[Address, _Late] = OrderedDict()

    def observe(self, address: Address, since: float, time: float) -> bool:
        """Record an attempt of a banned address.

        Return whether at least three attempts (``ENOUGH``) count, including this one. ``since`` is the time
        of the ban, ``time`` that of the attempt, both in seconds since the epoch. An attempt within ``GRACE``
        seconds after the ban does not count. If the address was banned again, or paused for ``PAUSE``
        seconds, counting begins again.
        """
        if time <= since + GRACE:
            return False
        late = self._late.get(address)
        if late is None or late.since != since or time - late.latest > PAUSE:
            late = self._late[address] = _Late(since)
        late.attempts, late.latest = late.attempts + 1, time
        self._late.move_to_end(address)
        if len(self._late) > MOST:
            self._late.popitem(last=False)
        return late.attempts >= ENOUGH


class BanEffectiveness:
    """Detects bans without effect (attempts of a banned address go on), and activates an alarm."""

    def __init__(
        self,
        detector: Detector,
        reconciler: Reconciler,
        protected: ProtectedNetworks,
        alarms: Alarms,
        clock: Clock,
    ) -> None:
        self._detector = detector
        self._reconciler = reconciler
        self._protected = protected
        self._alarms = alarms
        self._clock = clock
        self._ineffective = Ineffective()

    def on_judgement(self, judgement: Judgement) -> None:
        """Count a judged attempt whose address was banned already, or is this host's; ignore any other.

        Attempts that only the kernel reports are ignored, too. They do not show that a ban has no effect: if
        bans reject packets instead of dropping them, the kernel still counts the packets of banned senders.
        """
        attempt = judgement.attempt
        if attempt.kind.by_kernel:
            return
        if judgement.disposition is Disposition.LATE:
            self._on_late(attempt)
        elif (
            judgement.disposition is Disposition.EXEMPT
            and self._protected.is_own(attempt.address)
            and attempt.account != SETUP_ACCOUNT
        ):
            # A proxy on this host may hide attackers: Asterisk then sees the host's own address instead of
            # theirs. That address is never banned, so the attempts go on.
            self._record(attempt, 0.0)

    def _on_late(self, attempt: Attempt) -> None:
        """Count an attempt from a banned address; the third one after the ban activates an alarm."""
        ledger, now = self._detector.bans, self._clock.wall()
        subject = self._detector.subject_of(attempt.address)
        keys = [key for scope in Scope for key in ledger.covering(subject, scope, now)]
        placed = [record.since for record in map(ledger.get, keys) if record is not None]
        if placed:
            self._record(attempt, max(placed))

    def _record(self, attempt: Attempt, since: float) -> None:
        if self._ineffective.observe(attempt.address, since, attempt.time):
            damage = self._reconciler.last_damage
            why = f"a rule was damaged: {damage}" if damage else "they take a way past the rules"
            text = f"its packets arrive although it is, or should be, banned: {why}"
            self._alarms.activate(AlarmCode.BAN_NOT_EFFECTIVE, str(attempt.address), text)
