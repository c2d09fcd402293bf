"""chan_sip's answers on the wire: they confirm log lines, and show guesses that no event reports.

chan_sip raises no security event for MESSAGE, SUBSCRIBE and PUBLISH, although it checks their passwords: it
answers a wrong one with 403 (``channels/chan_sip.c``, tried on 16.28). It also answers 403 to a call that the
dialplan forbids. So a 403 is a guess only if a challenge or a copied request of the same session came before
it, and if the address has not just logged in. Each challenge or request stands for one 403. Asterisk's own
answer names the sender of the request (``parse/challenge.py``).

A line of chan_sip's log names an address and no session. It is confirmed by an answer to a request of that
address within ``LIFE``, and each answer confirms one line. So forged lines count at most as often as real
requests came from that address. PJSIP's lines of calls to unknown extensions have no session either, and
their answer is a 404. Only answers by UDP confirm: a TCP segment may begin within a body that another sender
wrote, and for TCP the kernel knows the connection.

Asterisk repeats an answer to INVITE until the ACK, for 32 s at most (RFC 3261 §17.2.1), byte for byte. A
repeat confirms no further line. Its nonce or digest identifies it; its Call-ID does not, because many guesses
may share one. As a sign of a guess, a 403 with a known digest still counts: guesses that differ only in their
password get the same 403, but each gets its own 401 before.

Bounds: ``MOST`` addresses, and as many sessions and answers; the oldest are discarded first. Times are
monotonic seconds.
"""

from collections import OrderedDict, deque

from ringfence.detect.fold import session_key
from ringfence.detect.recent import remember
from ringfence.model import Address, Challenge, EventKind, SecurityEvent, Service, Transport

LIFE = 10.0
"""How long an answer confirms a line (seconds). Log lines up to 3 s late were observed."""

SESSION_LIFE = 64.0
"""How long a challenge or a request waits for its 403, and a repeated answer is recognised (seconds)."""

LOGGED_IN = 60.0
"""How long after a success (seconds) a 403 is attributed to the dialplan."""

MOST = 16_384
_MOST_ANSWERS = 64  # of one address
_FORBIDDEN, _NOT_FOUND = 403, 404

_Key = tuple[Address, Service, bool]


class Answers:
    """Answers by the address that the request came from."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._by_sender: OrderedDict[_Key, deque[float]] = OrderedDict()
        self._begun: OrderedDict[tuple[Address, bytes], float] = OrderedDict()
        self._sent: OrderedDict[tuple[Address, bytes], float] = OrderedDict()
        self._logged_in: OrderedDict[Address, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of addresses, sessions and answers."""
        return len(self._by_sender) + len(self._begun) + len(self._sent) + len(self._logged_in)

    def record(self, answer: Challenge, sender: Address, now: float) -> bool:
        """Record an answer to ``sender``; return whether it shows a guess that chan_sip may not report."""
        is_new = self._is_new(answer, sender, now)
        if is_new and answer.transport is Transport.UDP:
            key = sender, answer.service, answer.status == _NOT_FOUND
            times = self._by_sender.get(key)
            if times is None:
                times = deque(maxlen=_MOST_ANSWERS)
            times.append(now)
            remember(self._by_sender, key, times, self._most)
        if answer.service is not Service.SIP or answer.status == _NOT_FOUND:
            return False
        if answer.status != _FORBIDDEN:
            if is_new:
                self.record_request(sender, answer.call_id, now)
            return False
        began = self._begun.pop((sender, session_key(answer.call_id)), -SESSION_LIFE)
        return now - began < SESSION_LIFE and now - self._logged_in.get(sender, -LOGGED_IN) >= LOGGED_IN

    def _is_new(self, answer: Challenge, sender: Address, now: float) -> bool:
        """Record an answer; return whether it is not a repeat."""
        mark = answer.nonce or answer.digest
        if not mark:
            return True
        key = sender, session_key(mark)
        if now - self._sent.get(key, -SESSION_LIFE) < SESSION_LIFE:
            return False
        remember(self._sent, key, now, self._most)
        return True

    def record_request(self, sender: Address, call_id: bytes, now: float) -> None:
        """Record a challenge or a copied request of a session, which a 403 may answer."""
        remember(self._begun, (sender, session_key(call_id)), now, self._most)

    def confirms(self, event: SecurityEvent, now: float) -> bool:
        """Whether an answer confirms the line ``event``; that answer is used up."""
        probe = event.kind is EventKind.FAILED_ACL and event.acl_name == "no_extension_match"
        times = self._by_sender.get((event.remote.address, event.service, probe))
        while times:
            if now - times.popleft() < LIFE:
                return True
        return False

    def succeeded(self, address: Address, now: float) -> None:
        """Record that chan_sip reports a login from ``address``."""
        remember(self._logged_in, address, now, self._most)
