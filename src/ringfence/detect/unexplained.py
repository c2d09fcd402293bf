"""Exchanges by TLS that nothing explains: what the wire cannot read, and AMI does not report.

A stranger's request by TLS and its answer are an *exchange* (``parse/tls_records.py``). Asterisk reports a
challenge, a wrong password and a login as a security event with the address and port of the connection. So
each event explains one exchange, and a login explains all of its connection. What no event explains is an
attempt of the kind ``unexplained``: the text of the request has suppressed the event, or the request is one
that Asterisk never reports. The second is why the rule needs many of them.

    exchange, event ChallengeSent      explained
    exchange                           unexplained after ``WAIT``
    five exchanges, AMI is read on     all unexplained

Nearly always AMI reports an event within some milliseconds. A busy Asterisk is slower, so an exchange waits
for ``WAIT``. A guesser must not use that time, on one connection or on many. So if an address has more than
``FEW`` waiting exchanges, AMI is asked how far its events have been read (``sources/ami.py``). Those of the
address that lie before that are then unexplained after ``BUSY``: Asterisk publishes an event before it sends
the answer. A slow AMI is slow to answer too, so an office whose phones all
log in at once on a busy machine only waits longer.

PJSIP reports a request of an unknown account by two events. The first one explains nothing: otherwise the
pair would also explain a hidden guess.

chan_sip's reports of failures explain nothing: the sender may have chosen their address, so that they are no
proven attempts (``detect/confirmation.py``). Its challenges and logins do explain.

A guess that Asterisk's export (``parse/hep.py``) shows first explains its exchange too, because it counts as
an attempt already. AMI's report of this guess then explains nothing.

Nothing else explains: the log repeats events, and each repetition would pay for a hidden guess. Unless
every AMI has delivered events since before an exchange, nothing is concluded of it.

Bounds: ``MOST`` connections, of which the least recently used are forgotten first, ``MOST_WAITING`` exchanges
and ``MOST_EARLY`` early events of each. Times are monotonic seconds.
"""

from collections import Counter, OrderedDict, deque
from math import inf

from attrs import Factory, define

from ringfence.detect.sessions import AddressKey, Role, address_key, role_of
from ringfence.model import AMI, Address, Attempt, EventKind, Exchange, SecurityEvent, Service, Transport

MOST = 16_384
MOST_WAITING = 128
MOST_EARLY = 8

WAIT = 1.0
BUSY = 0.005
FEW = 4
EARLY = 1.0
"""The time (seconds) within which an exchange may follow the event that explains it."""

ENCRYPTED = frozenset({Transport.TLS, Transport.WS, Transport.WSS})
"""The transports of the events that may explain an exchange."""

_Key = tuple[AddressKey, int]
_SHOWN, _EXPORTED = (EventKind.HIDDEN, EventKind.REFUSED), (Transport.TLS, Transport.WSS)


@define
class _Connection:
    """A connection: when its waiting exchanges came, and the events that came before their exchange.

    ``shown``: the guesses that the export has shown, and that AMI has not reported yet.
    """

    address: Address
    waiting: deque[float] = Factory(lambda: deque(maxlen=MOST_WAITING))
    early: deque[float] = Factory(lambda: deque(maxlen=MOST_EARLY))
    explained: bool = False
    shown: int = 0

    def explain_one(self, now: float) -> None:
        """Explain the oldest exchange that waits; if none does, the next one."""
        if self.waiting:
            self.waiting.popleft()
        else:
            self.early.append(now)


class Exchanges:
    """The exchanges of strangers by TLS, and what explains them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[_Key, _Connection] = OrderedDict()
        self._waiting: dict[_Key, None] = {}

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._known)

    def observe(self, exchange: Exchange, now: float) -> None:
        """Record exchanges that the wire saw at ``now``."""
        key = (address_key(exchange.address), exchange.port)
        known = self._connection(key, exchange.address)
        if known.explained:
            return
        for _ in range(min(exchange.number, MOST_WAITING)):
            while known.early and now - known.early[0] > EARLY:
                known.early.popleft()
            if known.early:
                known.early.popleft()
            else:
                known.waiting.append(now)
                self._waiting[key] = None

    def explain(self, event: SecurityEvent, now: float, *, repeated: bool = False) -> None:
        """Record that ``event`` explains an exchange of its connection, or all if it is a login.

        ``repeated``: another source has reported the same attempt before.
        """
        remote = event.remote
        if event.source.name != AMI or remote.transport not in ENCRYPTED or event.tampered:
            return
        known = self._connection((address_key(remote.address), remote.port), remote.address)
        if event.kind is EventKind.SUCCESSFUL_AUTH:
            known.explained = True
            known.waiting.clear()
        elif role_of(event) is Role.QUESTION:
            return  # the event of its challenge, or of its refusal, follows
        elif event.service is Service.SIP and event.kind is not EventKind.CHALLENGE_SENT:
            return
        elif known.shown and repeated:
            known.shown -= 1
        else:
            known.explain_one(now)

    def explain_guess(self, attempt: Attempt, port: int, now: float) -> None:
        """Record that a new attempt explains an exchange, if the export has shown it."""
        if attempt.event in _SHOWN and attempt.transport in _EXPORTED:
            known = self._connection((address_key(attempt.address), port), attempt.address)
            known.shown = min(known.shown + 1, MOST_WAITING)
            known.explain_one(now)

    @property
    def is_crowded(self) -> bool:
        """Whether it is worth asking how far AMI's events have been read."""
        together: Counter[AddressKey] = Counter()
        for key in self._waiting:
            together[key[0]] += len(self._known[key].waiting)
            if together[key[0]] > FEW:
                return True
        return False

    def unexplained(self, now: float, since: float | None, read: float = -inf) -> list[Address]:
        """Return the address of each exchange that has waited long enough, and forget it.

        ``since`` is when the last AMI began to deliver events. None: some AMI does not, so nothing is
        concluded. ``read``: every AMI's events have been read up to this time.
        """
        found: list[Address] = []
        together: Counter[AddressKey] = Counter()
        for key in self._waiting:
            together[key[0]] += len(self._known[key].waiting)
        for key in list(self._waiting):
            known = self._known[key]
            waiting = known.waiting
            end = max(now - WAIT, min(read, now - BUSY) if together[key[0]] > FEW else -inf)
            while waiting and waiting[0] <= end:
                came = waiting.popleft()
                if since is not None and since < came:
                    found.append(known.address)
            if not waiting:
                del self._waiting[key]
        return found

    def _connection(self, key: _Key, address: Address) -> _Connection:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Connection(address)
            if len(self._known) > self._most:
                oldest, _ = self._known.popitem(last=False)
                self._waiting.pop(oldest, None)
        else:
            self._known.move_to_end(key)
        return known
