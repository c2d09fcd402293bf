"""Conversations of strangers: which of Asterisk's refusals answer a guess.

The kernel copies the requests of strangers to the SIP ports, and all answers to them. So a guess is seen,
and not deduced: it is a request with credentials that Asterisk refused. An answer belongs to a request of the
same sender with the same Call-ID and the same CSeq number, which Asterisk copies from the request into its
answer (RFC 3261 §8.2.6.2). By TCP, also within a WebSocket, they share a connection too.

    REGISTER, CSeq 1                     ->
                                         <-  401, CSeq 1: a question, no attempt
    REGISTER, CSeq 2, with credentials   ->
                                         <-  401, CSeq 2: a guess

A sender writes its requests as it likes, also so that this module reads another number than Asterisk. That
must not hide a guess. So if no request of the conversation has the number of a refusal, the refusal belongs
to the oldest request with credentials that is not answered yet. For the same reason a request counts as one
with credentials if the word ``authorization`` and a colon are anywhere in it.

A sender can also write a message that Asterisk never answers, and give its guess the same number. So a
refusal belongs to a request with credentials first. And it can write more Call-IDs or numbers than are kept.
Such a request (``crowded``) may have any, so a refusal to its sender belongs to it.

A sender can also write a message that Asterisk answers without checking a password, with the number of a
guess whose own answer goes elsewhere:

    REGISTER, CSeq 7, with a guess, maddr=255.255.255.255   ->
    BYE, CSeq 7                                             ->
                                                            <-  481, CSeq 7: shows nothing about the guess

So an answer that is no refusal belongs to a guess last (``Asked.rank``). No phone is affected: it gives each
request a number of its own, but for an ACK, and for a CANCEL of its call.

Each request is answered once. The same datagram again is a retransmission: Asterisk checks no password for
it, and repeats its answer. A repeated answer belongs to no open request, and shows nothing. By TCP, Asterisk
repeats no answer by itself. So if there are more answers than requests, a request was read wrongly. Such an
answer belongs to the oldest open request with credentials; if there is none, nothing is known of it.

These answers show that the password was right, so the request was no guess:

- any answer that is no refusal, such as 200. chan_sip checks the password of a call before its 100, and may
  refuse the call with 403 after that.
- a challenge with ``stale=true``: only the nonce was too old, or unknown
- chan_sip's ``403 Forbidden (policy)``: the phone may not subscribe, although its password is right

If no copied request can belong to an answer, nothing is known (None). This is so for friends, for requests by
TLS, and if the kernel copied fewer requests than came. Nothing is known either of a conversation of which
only a part of a request was copied (its first fragment): the rest may hold credentials. If a TCP connection
becomes unread (``parse/request_stream.py``), its requests without credentials explain no refusal any more:
the refused one may be another.

A sender may close its receive window, so that only the beginning of an answer leaves, without Call-ID and
number. Such a cut answer belongs to the oldest request of its connection with credentials that is not
answered yet.

A guess may also get no answer: its Via names an unroutable address, or the answer would be longer than a
datagram. PJSIP still checks the password, and a right one registers the attacker (tried on 22.10.1). So a
request with credentials that is not answered within ``SILENCE`` is a *blind* guess. By UDP its nonce must be
one that Asterisk sent, so requests of this sender do reach Asterisk. By TCP, where a segment can be forged
too, the kernel must know the connection, or the nonce must have gone to this sender alone. There the nonce
may be older than is remembered: ``nonce_lifetime`` may be long. And somebody who asked later must have been
answered, so Asterisk lives, and the wire sees its answers.

No later answer is needed if the request may have the answer sent elsewhere, or closes its receive window by
TCP (``diverted``): no phone does that, and after ``DIVERTED_SILENCE`` the wire would have seen an answer. A
window that closes also makes the open requests diverted that came before it on its connection.

If a Via has the answer sent to another address (``redirected``), which no phone does, each datagram without
an answer is an attempt, also without credentials, and also a retransmission. For each one, Asterisk may look
up a name: that of its own host for ``maddr=255.255.255.255``, to which it can send nothing. Until this
look-up ends, Asterisk serves no other sender.

Of a request only what is compared with its answer is remembered. Bounds: ``MOST`` requests of all senders
together, and as many that wait for an answer; ``MOST_REQUESTS`` of each conversation. The oldest are
forgotten first; of a conversation, those that are no open guesses. Of ``MOST`` TCP connections it is
remembered that they became unread.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from math import inf
from operator import itemgetter

from attrs import Factory, define, frozen

from ringfence.detect.sessions import AddressKey, address_key, remember
from ringfence.values.event import Endpoint, Service, Transport
from ringfence.values.fast import evolve
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer, CopiedRequest

MOST = 16_384
"""The greatest number of copied SIP requests that are remembered. They take 18 MB."""

MOST_REQUESTS = 64
"""The greatest number of requests with one sender and Call-ID that are remembered."""

MOST_UNREAD_CONNECTIONS = 4_096
"""The number of unreadable TCP connections, the latest ones, whose challenges are counted."""

LIFE = 64.0
"""How long a copied SIP request is remembered (seconds).

Asterisk repeats an answer for 32 s at most (RFC 3261 §17.2).
"""

SILENCE = 8.0
"""How long after a request Asterisk may still answer it (seconds).

This time is shorter than ``sessions.HORIZON``, so that a report of another source can still be matched.
"""

DIVERTED_SILENCE = 0.25
"""Seconds after a request in which its answer may come, if the sender has it sent elsewhere or nowhere."""

_CHALLENGES, _FORBIDDEN = (401, 407), 403
_REFUSALS = (*_CHALLENGES, _FORBIDDEN)
_FINAL = 200  # the lowest status of a final answer
_UNCHECKED = ("BYE", "CANCEL")  # Asterisk answers these with 200 or 481, and checks no password
_REPEATED = ("INVITE", "")  # Asterisk repeats the answers to these by itself; "" may be any

_Key = tuple[AddressKey, int, bytes]  # of UDP: a sender, 0, a Call-ID; of TCP: a sender, its port, b""


@define(eq=False)
class Asked:
    """A request that the kernel copied, and whether it is answered; it came ``at`` (monotonic seconds).

    ``nonce`` is the one in it. ``proven``: Asterisk has sent this nonce to the sender of the request alone.
    ``challenged``: if it has credentials and nothing answers it, it counts as a guess. ``diverted``: its
    answer goes elsewhere or nowhere. ``accepted``: the answer was no refusal. ``served``: it was a 1xx, so
    more answers follow. ``repeats``: how many retransmissions are not answered. ``shared``: when a request
    with its Call-ID last came from another address than the one before (monotonic seconds; -inf: never).
    ``reported``: it counts because AMI reported it late (:meth:`Conversations.take_silent`).
    """

    request: CopiedRequest
    nonce: bytes
    at: float
    proven: bool
    challenged: bool = False
    diverted: bool = False
    answered: bool = False
    accepted: bool = False
    served: bool = False
    repeats: int = 0
    shared: float = -inf
    reported: bool = False

    @property
    def remote(self) -> Endpoint:
        """The address and port of the sender."""
        return Endpoint(self.request.address, self.request.port, self.request.transport)

    @property
    def may_be_guess(self) -> bool:
        """Whether the request has credentials and is not answered yet."""
        return self.request.credentials and not self.answered

    def may_get(self, answer: CopiedAnswer) -> bool:
        """Whether ``answer`` may belong to this request: the CSeq number and Call-ID are the same.

        If the request has more numbers and Call-IDs than are kept, they need not be the same while it may be
        a guess.
        """
        request = self.request
        if request.crowded and self.may_be_guess:
            return True
        return answer.sequence in request.sequences and answer.call_id in request.call_ids

    @property
    def may_be_answered_again(self) -> bool:
        """Whether Asterisk may answer this request again: by UDP, after a 1xx, or because it came twice."""
        return self.request.transport is Transport.UDP or self.served or self.repeats > 0

    def rank(self, answer: CopiedAnswer) -> int | None:
        """Return how well ``answer``, which is no refusal, fits this request: 0 is best, None not at all.

        First come requests whose password Asterisk does not check (0), then one whose answer it repeats (1).
        A guess (3) comes after other requests with credentials (2): only if none of these can have got the
        answer, the guess was right. Last come answered requests (4).
        """
        if not self.may_get(answer):
            return None
        if self.answered:
            if not self.may_be_answered_again:
                return None
            return 1 if self.repeats > 0 or (self.accepted and self.request.method in _REPEATED) else 4
        if self.request.method in _UNCHECKED:
            return 0 if answer.status >= _FINAL else None
        if not self.request.credentials:
            return 0
        return 3 if self.challenged else 2


@define(eq=False)
class _Conversation:
    """The requests of one sender with one Call-ID, or of one TCP connection, by their hash, oldest first.

    ``unread`` is when a request was last copied only in part, or since when the connection cannot be read
    (monotonic seconds; -inf: never).
    """

    requests: dict[bytes, Asked] = Factory(dict)
    unread: float = -inf

    def forget_one(self) -> None:
        """Forget the oldest request without credentials, or with an answer; if there is none, the oldest.

        A sender can write many messages behind a guess before Asterisk answers it.
        """
        settled = (digest for digest, one in self.requests.items() if not one.may_be_guess)
        del self.requests[next(settled, next(iter(self.requests)))]

    def request_of(self, answer: CopiedAnswer) -> Asked | None:
        """Return the request to which an answer belongs, None if there is none.

        For a refusal, that is the oldest unanswered one with its CSeq number and Call-ID and with
        credentials; without one, the oldest without credentials. If all such requests are answered, it is the
        last of them that may get another answer. If there is no such request, it is the oldest unanswered one
        with credentials. For any other answer, it is the one that fits it best (``Asked.rank``).
        """
        if not _refuses(answer):
            requests = self.requests.values()
            fitting = [(rank, one) for one in requests if (rank := one.rank(answer)) is not None]
            return min(fitting, key=itemgetter(0))[1] if fitting else None
        others = known = question = None
        for one in self.requests.values():
            if one.may_get(answer):
                if one.answered:
                    known = one if one.may_be_answered_again else known
                elif one.may_be_guess:
                    return one
                else:
                    question = question or one
            elif others is None and one.may_be_guess:
                others = one
        return question or known or others


def _refuses(answer: CopiedAnswer) -> bool:
    """Whether Asterisk refuses a password by ``answer``, or asks for one.

    PJSIP's 403 is no such answer: it forbids the request, whatever password it has.
    """
    if answer.accepted:
        return False
    return answer.status in _CHALLENGES or (answer.status == _FORBIDDEN and answer.service is Service.SIP)


@frozen
class Answered:
    """The request ``asked`` to which a SIP answer belongs; None if Asterisk only repeated the answer.

    ``guess``: the request had credentials, and the answer shows that they were wrong.
    """

    asked: Asked | None
    guess: bool = False


_REPEAT = Answered(None)


class Conversations:
    """The latest copied SIP requests of strangers, and whether Asterisk has answered each.

    Times are monotonic seconds.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[_Key, _Conversation] = {}
        self._order: deque[tuple[_Key, Asked]] = deque()
        self._by_call_id: dict[bytes, Asked] = {}  # the latest request with each Call-ID
        self._by_nonce: dict[bytes, Asked] = {}  # the latest request that repeats each nonce
        self._unread: OrderedDict[Endpoint, None] = OrderedDict()  # the latest connections that became unread
        self._waiting: deque[Asked] = deque(maxlen=most)
        self._diverted: deque[Asked] = deque(maxlen=most)  # of those that wait
        self._challenges: dict[_Key, int] = {}  # of unread connections, how many are open
        self._answered = -inf  # when the latest request came that was answered

    def __len__(self) -> int:
        """Return the number of remembered requests; one with several Call-IDs counts once for each."""
        return len(self._order)

    def ask(
        self,
        request: CopiedRequest,
        now: float,
        nonce: bytes = b"",
        *,
        challenged: bool = False,
        proven: bool = False,
    ) -> None:
        """Record a copied request that came at ``now``; if it has several Call-IDs, under each of them.

        ``nonce`` is the one in the request. ``challenged``: if the request has credentials and nothing
        answers it, it counts as a guess. ``proven``: Asterisk has sent the nonce to this sender alone.
        """
        if not request.call_ids:
            if request.unread:
                self._record_unread(request, now)
            self._divert(request)
            return
        one = Asked(evolve(request, nonces=()), nonce, now, proven, challenged)  # its nonces may take 16 kB
        guess = challenged and request.credentials
        if request.redirected or (guess and request.diverted):
            one.diverted = True
            self._diverted.append(one)
        elif guess:
            self._waiting.append(one)
        self._divert(request)
        for call_id in _recorded_call_ids(request):
            key = _key_of(request.address, request.port, request.transport, call_id)
            self._challenges.pop(key, None)  # a new connection of the same port is read
            known = self._known.setdefault(key, _Conversation())
            if request.unread:
                known.unread = now
            if request.digest in known.requests:
                one.answered = not request.redirected  # a retransmission
                known.requests[request.digest].repeats += 1
                continue
            known.requests[request.digest] = one
            self._order.append((key, one))
            self._index(one)
            if len(known.requests) > MOST_REQUESTS:
                known.forget_one()
        self.expire(now)

    def _index(self, one: Asked) -> None:
        for call_id in one.request.call_ids:
            before = self._by_call_id.get(call_id)
            if before is not None:
                same = before.request.address == one.request.address
                one.shared = before.shared if same else one.at
            self._by_call_id[call_id] = one
        if one.nonce:
            self._by_nonce[one.nonce] = one

    def latest(self, call_id: bytes) -> Asked | None:
        """Return the latest request with this Call-ID; None if none is remembered."""
        return self._by_call_id.get(call_id)

    def latest_with(self, nonce: bytes) -> Asked | None:
        """Return the latest request that contains ``nonce``; None if none is remembered."""
        return self._by_nonce.get(nonce)

    def is_unread(self, remote: Endpoint) -> bool:
        """Whether ringfence failed to read requests on the TCP connection of ``remote``."""
        return remote in self._unread

    def has_asked(self, address: Address, call_id: bytes, now: float) -> bool:
        """Whether a datagram with credentials of this address and Call-ID was copied in the last 64 s."""
        known = self._known.get((address_key(address), 0, call_id))
        if known is None:
            return False
        return any(one.request.credentials and now - one.at < LIFE for one in known.requests.values())

    def take_silent(self, address: Address, call_id: bytes) -> bool:
        """Take a guess by UDP, of this address and Call-ID, that no copied packet counts.

        Return whether there was one. Nothing answers it, and no answer is awaited, because Asterisk never
        sent its nonce. Each is taken once.
        """
        known = self._known.get((address_key(address), 0, call_id))
        for one in known.requests.values() if known is not None else ():
            if one.may_be_guess and not (one.challenged or one.reported):
                one.reported = True
                return True
        return False

    def unanswered_others(self, asked: Asked) -> int:
        """Return how many other guesses that may have the Call-ID of ``asked`` are not answered yet."""
        request = asked.request
        keys = {
            _key_of(request.address, request.port, request.transport, call_id)
            for call_id in (*request.call_ids, b"")
        }
        known = [self._known[key] for key in keys if key in self._known]
        others = {one for each in known for one in each.requests.values() if one is not asked}
        own = {*request.call_ids}
        return sum(
            one.may_be_guess and (one.request.crowded or not own.isdisjoint(one.request.call_ids))
            for one in others
        )

    def only_questions(self, address: Address, call_id: bytes, now: float) -> bool:
        """Whether datagrams of this address and Call-ID were copied, all whole and without credentials."""
        known = self._known.get((address_key(address), 0, call_id))
        if known is None or now - known.unread < LIFE:
            return False
        return not any(one.request.credentials for one in known.requests.values())

    def unheard(self, now: float) -> Iterator[Asked]:
        """Yield the requests whose sender had the answer sent elsewhere, or nowhere, so that none was seen.

        Each is yielded once, ``DIVERTED_SILENCE`` seconds after the request.
        """
        while self._diverted and now - self._diverted[0].at >= DIVERTED_SILENCE:
            oldest = self._diverted.popleft()
            if not oldest.answered:
                oldest.answered = True
                yield oldest

    def unanswered(self, now: float) -> Iterator[Asked]:
        """Yield, each once, the guesses that Asterisk has not answered by ``now`` and will not answer.

        ``now`` is in monotonic seconds.
        """
        yield from self.unheard(now)
        while self._waiting and now - self._waiting[0].at >= SILENCE:
            oldest = self._waiting[0]
            if not oldest.answered and self._answered <= oldest.at and now - oldest.at < LIFE:
                return  # no later request was answered yet
            self._waiting.popleft()
            if not oldest.answered and self._answered > oldest.at:
                oldest.answered = True
                yield oldest

    def forget_silence(self) -> None:
        """Let no request wait for its answer any more, because copies of answers were lost.

        Requests whose Via has the answer sent to another address stay.
        """
        self._waiting.clear()
        redirected = [one for one in self._diverted if one.request.redirected]
        self._diverted.clear()
        self._diverted.extend(redirected)

    def answer(self, answer: CopiedAnswer, sender: Address, now: float) -> Answered | None:
        """Record a SIP answer to ``sender``; return the request that it answers, None if that is unknown."""
        self.expire(now)
        known, one = self._request_of(answer, sender)
        if known is None or one is None:
            return None
        if now - known.unread < LIFE and not one.may_be_guess:
            one.answered, one.accepted = True, one.accepted or not _refuses(answer)
            return None
        if one.answered:
            one.repeats = max(one.repeats - 1, 0)
            return _REPEAT
        one.answered, one.accepted, one.served = True, not _refuses(answer), answer.status < _FINAL
        self._answered = max(self._answered, one.at)
        refused = answer.status in _REFUSALS and not answer.accepted
        return Answered(one, guess=refused and one.request.credentials)

    def _request_of(self, answer: CopiedAnswer, sender: Address) -> tuple[_Conversation | None, Asked | None]:
        """Return the conversation and the request to which an answer belongs, None for what is unknown.

        A refusal belongs first to a request with more Call-IDs than are kept, any other answer last.
        """
        known, crowded = (
            self._known.get(_key_of(sender, answer.port, answer.transport, call_id))
            for call_id in (answer.call_id, b"")
        )
        if crowded is not None and (known is None or _refuses(answer)):
            one = crowded.request_of(answer)
            if one is not None and not one.answered:
                return crowded, one
        return known, known.request_of(answer) if known is not None else None

    def shows_guess(self, answer: CopiedAnswer, sender: Address) -> bool:
        """Record chan_sip's refusal by TCP; return whether it shows that an unreadable request was a guess.

        On a connection that cannot be read, the first challenge may answer a request without credentials. So
        may the first one after each 403, which is the answer to a guess. Every other challenge answers
        credentials with an invented nonce. So the answer shows no guess if it is such a first challenge.
        """
        key = _key_of(sender, answer.port, answer.transport, b"")
        challenges = self._challenges.get(key)
        if challenges is None or answer.transport is Transport.UDP or answer.accepted:
            return False
        is_question = answer.status in _CHALLENGES
        self._challenges[key] = int(is_question)
        return is_question and challenges > 0

    def _divert(self, request: CopiedRequest) -> None:
        """If ``request`` shows that its sender closed the receive window, mark earlier guesses as diverted.

        These are the unanswered guesses of the same TCP connection: no answer can reach the sender.
        """
        if not request.diverted or request.transport is Transport.UDP:
            return
        known = self._known.get(_key_of(request.address, request.port, request.transport, b""))
        for one in known.requests.values() if known is not None else ():
            if one.may_be_guess and one.challenged and not one.diverted:
                one.diverted = True
                self._diverted.append(one)

    def _record_unread(self, request: CopiedRequest, now: float) -> None:
        """Record that requests of a conversation cannot be read; forget old connections beyond the bounds."""
        key = _key_of(request.address, request.port, request.transport, b"")
        if key in self._known:
            self._known[key].unread = now
        if request.transport is not Transport.UDP:
            remember(self._unread, Endpoint(request.address, request.port, request.transport), None, MOST)
            self._challenges.setdefault(key, 0)
            if len(self._challenges) > MOST_UNREAD_CONNECTIONS:
                del self._challenges[next(iter(self._challenges))]

    def expire(self, now: float) -> None:
        """Forget the requests that are ``LIFE`` seconds old, and the oldest ones beyond the bound."""
        while self._order:
            key, oldest = self._order[0]
            if len(self._order) <= self._most and now - oldest.at < LIFE:
                return
            self._order.popleft()
            known = self._known.get(key)  # None if its latest request was forgotten before the others
            if known is not None and known.requests.get(oldest.request.digest) is oldest:
                del known.requests[oldest.request.digest]
            if known is not None and not known.requests:
                del self._known[key]
            for call_id in oldest.request.call_ids:
                if self._by_call_id.get(call_id) is oldest:
                    del self._by_call_id[call_id]
            if self._by_nonce.get(oldest.nonce) is oldest:
                del self._by_nonce[oldest.nonce]


def _recorded_call_ids(request: CopiedRequest) -> tuple[bytes, ...]:
    """Return the Call-IDs under which a request is recorded; b"" for TCP, and if Call-IDs are missing."""
    if request.transport is not Transport.UDP:
        return (b"",)
    return tuple(dict.fromkeys((*request.call_ids, b""))) if request.crowded else request.call_ids


def _key_of(address: Address, port: int, transport: Transport, call_id: bytes) -> _Key:
    if transport is Transport.UDP:
        return address_key(address), 0, call_id
    return address_key(address), port, b""
