"""Exchanges that nothing explains: what the wire cannot read, and AMI does not report.

A stranger's request by TLS is an *exchange* (``parse/tls_records.py``), whether or not its answer leaves
this host. So is one by plain TCP or WS, if its connection is unread (``parse/request_stream.py``). Asterisk
reports a challenge, a wrong password and a login as a security event with the address and port of the
connection. So each event explains one exchange. What no event explains is an attempt of the kind
``unexplained``: the text of the request has suppressed the event, or the request is one that Asterisk never
reports. The second is why the rule needs many of them.

On a connection with a login, Asterisk also sends requests to the phone, and reports nothing of what belongs
to a dialog. So a login excuses some exchanges of its connection (:class:`_OwnRequests`), and more if it has
begun many dialogs, such as the lamps of a phone. All connections of one account from a host share what its
logins excuse, and so do all hosts at which its logins make no friend; several phones with one account may
need more in nine minutes, and get it (``MOST_PHONES``). A connection with several accounts may use what each
of them excuses. Nothing excuses the pace of a program: an attacker with one password may log in, and hide
guesses at other accounts. A login at chan_sip explains all of its connection, because chan_sip does not
report the success of a SUBSCRIBE. So does one by TCP or WS. Of what the phone sends without an answer, only
more than ``MOST_OF_PHONE`` counts: it also answers Asterisk's requests.

A connection may also have logged in *unseen*: before the kernel copied it to this daemon, or while some AMI
delivered no events. A phone registers again within ``UNSEEN_FOR`` seconds. Until then, all such connections
of a host excuse as much together as the logins of one account. So an attacker that holds such a connection
may hide as many guesses as one that has a password, but only after a start of the daemon or of Asterisk.

No number excuses the lamps of an office: when a group of twenty phones rings, each phone with their lamps
gets forty requests. So the detector leaves out the connections of phones that have settled at their address:
those whose logins are of accounts that are not new there, and all with a login at an address with many
accounts (``Friends.settled_at``). An unseen login may be of any of its accounts.

    exchange, event ChallengeSent      explained
    exchange                           unexplained after ``WAIT``
    five exchanges, AMI is read on     all unexplained

Answers that leave are counted. What a stranger asks without an answer is counted in bytes: each ``PART`` of
them is an exchange, because no guess is shorter. The answers leave in the order of the requests. So usually
an answer settles all that was asked before it: phones wait for the answer to one request before they send
another. It settles one part only if more has been asked than one request has, or more than ``USUAL`` within
more than ``SLOW``. Bytes without an answer count:

- at once, if there are more than one request has, and the oldest have waited for ``SLOW``: their sender
  closes its receive window, so that no answer can leave. From then on, each answer settles one part only.
- once somebody is answered who asked at least ``LATER`` seconds later
- after ``SILENCE``

In the last two cases, what came within ``SLOW`` may be one long request, such as a call that waits. So at
most ``MOST_PARTS`` of it count.

If an answer to counted bytes leaves later, it does not count again. The bytes of a handshake do not count.

    660 bytes, an answer                                one exchange
    20 times 330 bytes, no answer                       26 exchanges

Nearly always AMI reports an event within some milliseconds. A busy Asterisk is slower, so an exchange waits
for ``WAIT``, and until AMI has shown how far its events have been read (``sources/ami.py``): Asterisk
publishes an event before it sends the answer. A slow AMI is slow to show this too, so an office whose phones
all log in at once on a busy machine only waits longer, at most ``LONGEST``.

A guesser must not use that time, on one connection or on many. So if an address has more than ``FEW`` waiting
exchanges, each waits only for ``BUSY``, and until AMI has been read.

PJSIP reports a request of an unknown account by two events. The first one explains nothing: otherwise the
pair would also explain a hidden guess.

chan_sip's reports of failures explain nothing: the sender may have chosen their address, so that they are no
proven attempts (``detect/confirmation.py``). Its challenges and logins do explain.

A guess that Asterisk's own export of its messages shows first explains its exchange too, because it counts
as an attempt already. AMI's report of this guess then explains nothing.

Nothing else explains: the log repeats events, and each repetition would pay for a hidden guess. Unless
every AMI has delivered events since before an exchange, nothing is concluded of it.

The answers of an unread connection by plain TCP are read (``conversation.py``), so they only settle bytes.

Bounds: ``MOST`` connections and ``MOST_ACCOUNTS`` pairs of a host and an account, of which the least recently
used are forgotten first, ``MOST_WAITING`` exchanges and ``MOST_EARLY`` early events of each connection. The
queue of exchanges also has those of the last ``LONGEST`` seconds that an event has explained. Times are
monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from functools import partial
from math import inf
from typing import NamedTuple

from attrs import Factory, define

from ringfence.detect.refused_logins import is_refused_login
from ringfence.detect.sessions import AddressKey, Role, address_key, host_of, remember, role_of
from ringfence.values.attempt import Attempt
from ringfence.values.event import AMI, Endpoint, EventKind, SecurityEvent, Service, Transport
from ringfence.values.network import Address
from ringfence.values.packet import Exchange

MOST = 16_384
MOST_WAITING = 128
MOST_EARLY = 8

WAIT = 1.0
LONGEST = 10.0
"""Maximum seconds to wait until AMI's events are read. If AMI answers no Ping for so long, it is down."""
BUSY = 0.005
FEW = 4
EARLY = 1.0
"""The time (seconds) within which an unreadable request may follow the event that reports it."""

PART = 250
"""The number of bytes without an answer that count as one request: the shortest guess has 278."""
USUAL = 1_000
"""The number of bytes above which bytes answered late are several requests; most requests are shorter."""
MOST_REQUEST = 6_000
MOST_AT_ONCE = 12_000
"""The maximum number of bytes that may be one request, if they came at once.

The longest request is a browser's call with video, of some 8 000 bytes.
"""
MOST_PARTS = 10
"""The maximum number of requests as which bytes count that came at once, while they may be one call."""
MOST_OF_PHONE = 65_536
"""Maximum bytes that a phone with a login may send unanswered: enough for 128 lamps or some calls."""
OPENING = 1_500
"""The maximum size in bytes of a part of a handshake, such as the request for a WebSocket with cookies."""
SLOW = 0.25
LATER = 1.0
SILENCE = 8.0
_SEARCHED = 0.25  # how often connections without an answer are searched for (seconds)


class OwnLimit(NamedTuple):
    """How many unreadable requests the logins of one account excuse within ``seconds``.

    ``by_dialog`` are more for each login beyond the first, ``by_phone`` for each connection beyond the first.
    """

    seconds: float
    requests: int
    by_dialog: int
    by_phone: int


OWN = (OwnLimit(1.0, 10, 2, 0), OwnLimit(540.0, 160, 10, 160))
"""The limits for an account's own phones.

A phone of a queue may ring every 20 s, with three messages of Asterisk each, and a lamp changes twice with
each call. At one other account, a friend may make as many guesses in the clear (``rules``).
"""
MOST_PHONES = 4
"""The maximum number of an account's connections that excuse requests.

Each phone has one. A phone that connects again gets as much as another phone, and so does an attacker.
"""
MOST_LOGINS = 64
MOST_ACCOUNTS = 4_096
UNSEEN_FOR = 7_200.0
"""The seconds since AMI delivers events after which each phone has registered again where AMI reports it.

PJSIP permits no longer registration by default (``maximum_expiration``).
"""
_MOST_EXCUSED = max(one.requests + one.by_phone * MOST_PHONES + one.by_dialog * MOST_LOGINS for one in OWN)

STREAMS = frozenset({Transport.TCP, Transport.TLS, Transport.WS, Transport.WSS})
"""The transports of events that may be about a request that could not be read, such as by TLS."""

_Key = tuple[AddressKey, int]
_SHOWN, _EXPORTED = (EventKind.HIDDEN, EventKind.REFUSED), (Transport.TLS, Transport.WSS)


@define(eq=False)
class _OwnRequests:
    """The unreadable requests that one account's logins, or unseen logins, excuse at a host (IPv6: a /64).

    They may be on any connection. ``sessions``: the logins' Call-IDs. ``connections``: those with a login.
    ``excused`` has the times of the latest of these requests. If there were too many, none is excused before
    the time ``over``.
    """

    sessions: set[bytes] = Factory(set)
    connections: set[_Key] = Factory(set)
    excused: deque[float] = Factory(partial(deque, maxlen=_MOST_EXCUSED))
    over: float = -inf

    def log_in(self, session: bytes, connection: _Key) -> None:
        """Record a login with the Call-ID ``session``."""
        if len(self.sessions) < MOST_LOGINS:
            self.sessions.add(session)
        if len(self.connections) < MOST_PHONES:
            self.connections.add(connection)

    def has_room(self, came: float) -> bool:
        """Whether one more unreadable request, at ``came``, is excused."""
        return came >= self.over and not self._excess(came)

    def count(self, came: float) -> int:
        """Count an unreadable request that no event reports; return how many requests are attempts now.

        ``came`` is its time. A few such requests are excused, because a phone that has logged in sends some.
        """
        if came < self.over:
            return 1
        excess = self._excess(came)
        self.excused.append(came)
        if excess:
            self.over = came + OWN[-1].seconds
        return excess

    def _excess(self, came: float) -> int:
        """Return how many requests there are lately with one more at ``came``; 0 if they are not too many."""
        dialogs, phones = len(self.sessions) - 1, len(self.connections) - 1
        for limit in OWN:
            lately = 1 + sum(came - at < limit.seconds for at in self.excused)
            if lately > limit.requests + limit.by_dialog * dialogs + limit.by_phone * phones:
                return lately
        return 0


@define
class _Connection:
    """A stranger's connection that cannot be read, with the times of the requests that wait for an event.

    ``early`` has the times of events without a request yet. ``shown``: the guesses that Asterisk's export has
    shown, and that AMI has not reported yet. ``asked`` bytes have no answer; the first of them came at
    ``since``, and the last at ``last``. ``owed`` requests were counted by their bytes, and have no answer
    yet. ``closed``: no answer can leave. ``own``: what its logins at PJSIP excuse, by account. The account of
    a login that may be unseen is None. ``began``: when it was first known here. ``seen``: no login on it was
    unseen.
    """

    address: Address
    port: int
    began: float
    transport: Transport = Transport.TLS
    waiting: deque[float] = Factory(partial(deque, maxlen=MOST_WAITING))
    early: deque[float] = Factory(partial(deque, maxlen=MOST_EARLY))
    explained: bool = False
    shown: int = 0
    asked: int = 0
    since: float = 0.0
    last: float = 0.0
    owed: int = 0
    closed: bool = False
    own: dict[str | None, _OwnRequests] = Factory(dict)
    seen: bool = True

    def count(self, came: float) -> int:
        """Count a request at ``came`` that no event reports; return how many requests are attempts now."""
        if not self.own:
            return 1
        logins = [*self.own.values()]
        return next((one for one in logins if one.has_room(came)), logins[-1]).count(came)

    @property
    def remote(self) -> Endpoint:
        """The address and port of the stranger."""
        return Endpoint(self.address, self.port, self.transport)

    def close_if_unread(self, now: float) -> None:
        """Record that the sender takes no answers, if too many of its bytes have waited for one for too long.

        A phone with a login also sends its answers to Asterisk's requests, such as calls.
        """
        most = MOST_OF_PHONE if self.own else self.most_of_request
        if self.asked > most and now - self.since >= SLOW:
            self.closed = True

    @property
    def came_at_once(self) -> bool:
        """Whether the bytes without an answer came within ``SLOW`` seconds, as those of one request do."""
        return self.last - self.since < SLOW

    @property
    def most_of_request(self) -> int:
        """The most bytes without an answer that may be one request: more if they came at once."""
        return MOST_AT_ONCE if self.came_at_once else MOST_REQUEST

    def waits_since(self, came: float) -> bool:
        """Whether a request waits that came at ``came`` or earlier."""
        return bool(self.waiting) and self.waiting[0] <= came

    def explain_one(self, now: float) -> None:
        """Record an event about one unreadable request: the oldest that waits, or else the next to come."""
        if self.waiting:
            self.waiting.popleft()
        else:
            self.early.append(now)

    def add(self, now: float) -> bool:
        """Add an unreadable request; return whether it waits for an event, since no earlier one was left."""
        while self.early and now - self.early[0] > EARLY:
            self.early.popleft()
        if self.early:
            self.early.popleft()
            return False
        self.waiting.append(now)
        return True


class Exchanges:
    """Compares strangers' unreadable requests, such as by TLS, with the events that Asterisk reports."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[_Key, _Connection] = OrderedDict()
        # By host (IPv6: /64) and account, what the logins of the account excuse. The host is None for all
        # logins of the account that make no friend.
        self._own: OrderedDict[tuple[AddressKey | None, str | None], _OwnRequests] = OrderedDict()
        # By address, the connections with requests that wait, and those addresses with more than ``FEW``.
        self._waiting: dict[AddressKey, dict[_Key, _Connection]] = {}
        self._crowded: dict[AddressKey, None] = {}
        self._newly_crowded: list[AddressKey] = []  # since the last search
        self._queue: deque[tuple[float, _Connection]] = deque()  # those that wait, the oldest first
        self._judged = -inf  # up to when the requests of crowded addresses were judged
        self._asking: OrderedDict[_Key, None] = OrderedDict()  # with bytes that have no answer, by ``last``
        self._answered = -inf  # when the latest bytes came that have an answer
        self._searched = -inf
        self._since = inf  # since when every AMI delivers events; inf before the first time
        self._delivered = -inf  # when every AMI was last known to deliver them

    def __len__(self) -> int:
        """Return the number of connections that are remembered."""
        return len(self._known)

    def observe(self, exchange: Exchange, now: float) -> None:
        """Record the answers and acknowledged bytes that a copied packet shows at ``now`` (monotonic)."""
        key = (address_key(exchange.address), exchange.port)
        known = self._connection(key, exchange.address, now)
        if known.explained:
            return
        known.transport, known.seen = exchange.transport, known.seen and exchange.begun
        self._excuse_unseen(key, known, now)
        if exchange.asked:
            self._ask(key, known, exchange.asked, now)
        if exchange.opens:
            known.asked = max(0, known.asked - OPENING)
        for _ in range(min(exchange.number, MOST_WAITING)):
            self._answer(key, known, now)

    def _excuse_unseen(self, key: _Key, known: _Connection, now: float) -> None:
        """Let a connection excuse what a login does, for as long as a login on it may be unseen."""
        if now - self._since >= UNSEEN_FOR:
            known.own.pop(None, None)
        elif not known.seen:
            self._log_in((address_key(host_of(known.address)), None), b"%d" % key[1], key, known)

    def _log_in(
        self, account: tuple[AddressKey | None, str | None], session: bytes, key: _Key, known: _Connection
    ) -> None:
        """Record a login of ``account`` (with its host) on the connection ``known``, which has ``key``."""
        own = known.own[account[1]] = self._own.get(account) or _OwnRequests()
        remember(self._own, account, own, MOST_ACCOUNTS)
        own.log_in(session, key)

    def _ask(self, key: _Key, known: _Connection, asked: int, now: float) -> None:
        """Record ``asked`` bytes of a stranger; on a closed connection they count as requests at once."""
        if not known.asked:
            known.since = now
        known.asked, known.last = known.asked + asked, now
        self._asking[key] = None
        self._asking.move_to_end(key)
        known.close_if_unread(now)
        if known.closed:
            self._count_asked(key, known, now)

    def _answer(self, key: _Key, known: _Connection, now: float) -> None:
        """Record that an answer left for the stranger: it belongs to bytes that the stranger sent before."""
        if known.owed:
            known.owed -= 1  # its exchange has been counted
            return
        late = known.asked > USUAL and not known.came_at_once
        unread = not known.own and (late or known.asked > known.most_of_request)
        if known.closed or unread:
            known.asked = max(0, known.asked - PART)
        elif known.asked:
            self._answered = max(self._answered, known.last)
            known.asked = 0
        if known.transport is Transport.TLS:
            self._add(key, known, now)

    def _count_asked(self, key: _Key, known: _Connection, now: float) -> None:
        """Count the bytes that have no answer as requests, one for each ``PART`` bytes."""
        parts, known.asked = divmod(known.asked, PART)
        known.since = now
        known.owed += parts
        for _ in range(min(parts, MOST_WAITING)):
            self._add(key, known, now)

    def _add(self, key: _Key, known: _Connection, now: float) -> None:
        """Add an unreadable request, which waits for an event unless an earlier one was left."""
        if known.add(now):
            self._waiting.setdefault(key[0], {})[key] = known
            self._queue.append((now, known))
            if key[0] not in self._crowded and self._is_crowd(key[0]):
                self._crowded[key[0]] = None
                self._newly_crowded.append(key[0])

    def _explain_one(self, key: _Key, known: _Connection, now: float) -> None:
        known.explain_one(now)
        self._release(key, known)

    def _release(self, key: _Key, known: _Connection) -> None:
        """Record that fewer requests of a connection wait, or none."""
        connections = self._waiting.get(key[0])
        if connections is None:
            return
        if not known.waiting:
            connections.pop(key, None)
        if not connections:
            del self._waiting[key[0]]
        if not self._is_crowd(key[0]):
            self._crowded.pop(key[0], None)

    def _is_crowd(self, address: AddressKey) -> bool:
        """Whether more than ``FEW`` unreadable requests of an address wait for an event about them."""
        connections = self._waiting.get(address, {})
        return len(connections) > FEW or sum(len(one.waiting) for one in connections.values()) > FEW

    def _count_silent(self, now: float) -> None:
        """Count the requests of connections whose bytes have waited too long for an answer of Asterisk.

        So many bytes as a request needs (``PART``) count as one.
        """
        if now - self._searched < _SEARCHED:
            return
        self._searched = now
        for key in list(self._asking):
            known = self._known[key]
            known.close_if_unread(now)
            lasts = self._answered - known.last >= LATER or now - known.last >= SILENCE
            if known.closed or (not known.own and lasts and known.asked >= PART):
                if known.came_at_once and not known.closed:
                    known.asked = min(known.asked, MOST_PARTS * PART)
                self._count_asked(key, known, now)
            if known.asked < PART:  # neither a request nor too much until more is asked
                del self._asking[key]

    def explain(
        self, event: SecurityEvent, now: float, *, repeated: bool = False, befriends: bool = True
    ) -> None:
        """Record that ``event`` is about an unreadable request of its connection, or about all (a login).

        ``repeated``: another source has reported the same attempt before. ``befriends``: a login made its
        address a friend. Of an account, all others share what they excuse, because somebody may use its
        password from many hosts.
        """
        remote = event.remote
        if event.source.name != AMI or remote.transport not in STREAMS or event.tampered:
            return
        key = address_key(remote.address), remote.port
        if remote.transport is Transport.TCP and key not in self._known:
            return  # the wire reads this connection
        known = self._connection(key, remote.address, now)
        if event.kind is EventKind.SUCCESSFUL_AUTH:
            known.asked = 0
            if event.service is Service.PJSIP and remote.transport in _EXPORTED:
                account = address_key(host_of(remote.address)) if befriends else None, event.account
                self._log_in(account, event.session, key, known)
                self._explain_one(key, known, now)
            else:
                known.explained = True
                known.waiting.clear()
                self._release(key, known)
        elif role_of(event) is Role.QUESTION:
            return  # the event of its challenge, or of its refusal, follows
        elif is_refused_login(event):
            return  # the event of its login came before
        elif event.service is Service.SIP and event.kind is not EventKind.CHALLENGE_SENT:
            return
        elif known.shown and repeated:
            known.shown -= 1
        else:
            self._explain_one(key, known, now)

    def explain_guess(self, attempt: Attempt, port: int, now: float) -> None:
        """Record that a new attempt explains an unreadable request, if Asterisk's export (HEP) has shown it.

        So the guess does not count again as an unexplained one. ``port`` is the sender's.
        """
        if attempt.event in _SHOWN and attempt.transport in _EXPORTED:
            key = address_key(attempt.address), port
            known = self._connection(key, attempt.address, now)
            known.shown = min(known.shown + 1, MOST_WAITING)
            self._explain_one(key, known, now)

    def logins(self, remote: Endpoint) -> Collection[str | None]:
        """Return the accounts that have logged in at PJSIP on the connection of ``remote``.

        None is among them if a login may be unseen.
        """
        known = self._known.get((address_key(remote.address), remote.port))
        return known.own.keys() if known is not None else ()

    def waits_for_ami(self, now: float) -> bool:
        """Whether to ask every AMI how far its events have been read: unreadable requests wait for events."""
        while self._queue and not self._queue[0][1].waits_since(self._queue[0][0]):
            self._queue.popleft()
        return bool(self._crowded) or (bool(self._queue) and self._queue[0][0] <= now - WAIT)

    def unexplained(self, now: float, since: float | None, read: float = inf) -> list[Endpoint]:
        """Return the sender of each unreadable request that no event reported in time; forget the request.

        Times are monotonic seconds. ``since`` is when the last AMI began to deliver events. None: some AMI
        does not, so nothing is concluded. ``read``: every AMI's events have been read up to this time.
        """
        if since is not None:
            self._follow_ami(since, now)
        self._count_silent(now)
        found: list[Endpoint] = []
        for key, known, end in self._due(now, read):
            while known.waiting and known.waiting[0] <= end:
                came = known.waiting.popleft()
                if since is not None and since < came:
                    found += [known.remote] * known.count(came)
            self._release(key, known)
        return found

    def _due(self, now: float, read: float) -> Iterator[tuple[_Key, _Connection, float]]:
        """Yield the connections with requests that have waited long enough, and up to when these came.

        All requests are in the queue. Those of crowded addresses need not wait for their turn there. They are
        searched once, and again only when AMI has been read further, because there may be many.
        """
        addresses, self._newly_crowded = self._newly_crowded, []
        end = min(read, now - BUSY)
        if end > self._judged:
            self._judged, addresses = end, [*self._crowded]
        for address in addresses:
            for key, known in [*self._waiting[address].items()] if address in self._crowded else ():
                yield key, known, end
        end = max(min(read, now - WAIT), now - LONGEST)
        while self._queue and self._queue[0][0] <= end:
            came, known = self._queue.popleft()
            if known.waits_since(came):
                yield (address_key(known.address), known.port), known, end

    def _follow_ami(self, since: float, now: float) -> None:
        """Record that every AMI delivers events, at ``now``, since ``since``.

        The logins of connections that began while some AMI did not are unseen.
        """
        if since != self._since:
            self._since = since
            for key, known in self._known.items():
                if self._delivered - LONGEST < known.began < since:
                    known.seen = False
                self._excuse_unseen(key, known, now)
        self._delivered = now

    def _connection(self, key: _Key, address: Address, now: float) -> _Connection:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Connection(address, key[1], now)
            if len(self._known) > self._most:
                oldest, gone = self._known.popitem(last=False)
                gone.waiting.clear()
                self._release(oldest, gone)
                self._asking.pop(oldest, None)
        else:
            self._known.move_to_end(key)
        return known
