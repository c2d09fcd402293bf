"""Observed friends: the kernel copies their packets, because Asterisk refuses them again and again.

Of a stranger the kernel copies the whole conversation, so each guess is seen (``conversation``). Of a friend
it copies only the refusals (401, 403, 407), because phones and trunks send much. A phone that works gets a
refusal for each success: the challenge that it answers. So the refusals to a friend are counted, and a
success that AMI reports takes away those that it answers. They have its Call-ID and its account as the user
of their From, and are at most as many as the challenges that AMI reported of its session and account within
``ANSWERED_WITHIN``. (chan_sip's events name no Call-ID, so there any refusals are taken away.) AMI reports no
challenge for a hidden guess, or one of the account that is tried. It also reports challenges that cannot
leave this host, such as to 255.255.255.255. So a login pays for no guess at another account, even if an
attacker guesses with the Call-ID of its own logins, and repeats a nonce in these. With more than ``MANY`` in
``WITHIN``, the friend is *observed* for ``OBSERVED_FOR``: the kernel copies its conversation like that of a
stranger, and its guesses are seen. The friends of an IPv6 /64 are counted and observed together, because one
password makes many friends there.

A *new* friend, where an account has not worked before, is observed for ``NEW_FOR`` from the beginning
(:class:`FirstDay`): an attacker with one password may log in and hide its guesses at other accounts, also by
TLS and where no refusal is copied. So are the other addresses of a /64 that the account makes friends
meanwhile, by a login or a contact. A contact is what its sender writes: several in one REGISTER if
``max_contacts`` permits it, and any number one after the other if a new one replaces the last.

All phones are observed for ``NEW_FOR`` if the log shows that Asterisk could not report an event: somebody may
hide guesses whose answers cannot leave. Anyone can cause this by one request, so it must harm no phone.
Behind a SIP proxy of this host, all phones are always observed: Asterisk's events name the proxy, and only
the copied request shows which phone has logged in (``proxies``).

Nothing else follows from being observed, so it harms no phone. Some phones that work are observed too: PJSIP
challenges the OPTIONS by which a phone keeps its NAT mapping open, chan_sip reports no success of a SUBSCRIBE
(the lamps of a phone), and an endpoint may have another name than the user in the From (``auth_username``).
So the number may be small: at most ``MANY`` guesses a day that Asterisk does not report remain uncounted, if
it refuses them by answers that leave this host. It is not smaller, because a phone that registers, calls and
subscribes at once gets some refusals before the first success.

Bounds: ``MOST_COUNTED`` senders (IPv4 addresses or /64s), and as many Call-IDs and sessions, are counted, and
``MOST`` senders observed for each reason. Those refused longest ago, and those that are new for longest, are
discarded first. A new account makes at most ``MOST_TOGETHER`` friends in a /64, so that all of them are
observed. Times are monotonic seconds, but those of the first day are wall-clock seconds, as those of all
friends.
"""

from collections import Counter, OrderedDict
from collections.abc import Set as AbstractSet
from math import inf

from attrs import define

from ringfence.detect.rules import DAY
from ringfence.detect.sessions import remember
from ringfence.values.event import SecurityEvent, Service, Transport
from ringfence.values.network import Address, Network, sender_of
from ringfence.values.packet import CopiedAnswer

MANY = 20
WITHIN = DAY
OBSERVED_FOR = 600.0
ANSWERED_WITHIN = 64.0  # PJSIP accepts a nonce for 32 s by default
NEW_FOR = DAY
MOST = 1_024
MOST_TOGETHER = 64
MOST_COUNTED = 16_384


class Observation:
    """Counts Asterisk's refusals to friends: the kernel copies the packets of those that get many."""

    def __init__(self) -> None:
        self._refused: OrderedDict[Network, tuple[float, int]] = OrderedDict()  # since when, and how many
        self._by_session: OrderedDict[int, int] = OrderedDict()
        self._challenges: OrderedDict[int, tuple[float, int]] = OrderedDict()  # the latest, and how many
        self._observed: OrderedDict[Network, float] = OrderedDict()  # by sender, its latest refusal
        self._silenced = -inf

    def on_refusal(self, friend: Address, answer: CopiedAnswer, now: float) -> bool:
        """Record that Asterisk refused a request of ``friend`` by ``answer``.

        Return whether the kernel must copy the packets of the friend's sender from now on.
        """
        sender = sender_of(friend)
        key = _session_of(friend, answer.service, answer.call_id, answer.transport, answer.account)
        remember(self._by_session, key, self._by_session.get(key, 0) + 1, MOST_COUNTED)
        since, number = self._refused.get(sender, (now, 0))
        if now - since >= WITHIN:
            since, number = now, 0
        remember(self._refused, sender, (since, number + 1), MOST_COUNTED)
        if number < MANY:
            return False
        begins = sender not in self.senders(now)
        remember(self._observed, sender, now, MOST)
        return begins

    def on_challenge(self, event: SecurityEvent, now: float) -> None:
        """Record that AMI reports a challenge to a friend: its login with this session may answer it."""
        key = _login_of(event)
        at, number = self._challenges.get(key, (now, 0))
        if now - at >= ANSWERED_WITHIN:
            number = 0
        remember(self._challenges, key, (now, number + 1), MOST_COUNTED)

    def on_success(self, event: SecurityEvent, now: float) -> None:
        """Record that AMI reports a login: refusals that were the challenges of its request count no more."""
        at, challenges = self._challenges.pop(_login_of(event), (now, 0))
        address = event.remote.address
        key = _session_of(address, event.service, event.session, event.remote.transport, event.account)
        answered = min(challenges, self._by_session.get(key, 0))
        sender = sender_of(address)
        since, number = self._refused.get(sender, (0.0, 0))
        if number and answered and now - at < ANSWERED_WITHIN:
            self._by_session[key] -= answered
            self._refused[sender] = since, max(0, number - answered)

    def on_silence(self, now: float) -> None:
        """Record that Asterisk could not report an event, because of the bytes in a request."""
        self._silenced = now

    def has_silence(self, now: float) -> bool:
        """Whether Asterisk could not report an event within the last ``NEW_FOR`` seconds."""
        return now - self._silenced < NEW_FOR

    def senders(self, now: float) -> AbstractSet[Network]:
        """Return the senders whose friends were refused often, and lately."""
        while self._observed and now - next(iter(self._observed.values())) >= OBSERVED_FOR:
            self._observed.popitem(last=False)
        return self._observed.keys()


def _session_of(friend: Address, service: Service, call_id: bytes, transport: Transport, account: str) -> int:
    """Return the key of a friend's requests for one account with one Call-ID by one transport.

    chan_sip's events name no Call-ID, and for a call another account than its answers.

    The key is a hash, because a tuple for each would take more memory. The wire calls a WebSocket TCP. By TLS
    it sees no refusal, so challenges by TLS must pay for none.
    """
    by = Transport.TCP if transport is Transport.WS else transport
    return hash((friend, by, call_id, account) if service is Service.PJSIP else (friend, by))


def _login_of(event: SecurityEvent) -> int:
    """Return the key of an account's requests in one session; a hash, as for :func:`_session_of`.

    For calls, chan_sip's events of a challenge and of a success name different accounts.
    """
    account = event.account if event.service is Service.PJSIP else ""
    return hash((event.remote.address, event.remote.transport, event.session, account))


@define
class _New:
    """Since when an account is new at an IPv4 address or /64 (epoch seconds), and its addresses there."""

    since: float
    addresses: list[Address]


class FirstDay:
    """The friends where some account began to work within ``NEW_FOR`` seconds."""

    def __init__(self) -> None:
        self._new: OrderedDict[tuple[str, Network], _New] = OrderedDict()  # by account, and address or /64
        self._accounts: Counter[Address] = Counter()  # by address, how many accounts are new there

    @property
    def addresses(self) -> AbstractSet[Address]:
        """The addresses of these friends, until :meth:`expire` ends their first day."""
        return self._accounts.keys()

    def is_new(self, account: str, sender: Network) -> bool:
        """Whether ``account`` is on its first day at ``sender``, an IPv4 address or IPv6 /64."""
        return (account, sender) in self._new

    def begin(self, account: str, sender: Network, address: Address, since: float) -> None:
        """Record that ``account`` works at ``address`` since ``since``, and nowhere else in ``sender``."""
        key = account, sender
        self._forget(key)
        self._new[key] = _New(since, [address])
        self._accounts[address] += 1
        if len(self._new) > MOST:
            self._forget(next(iter(self._new)))

    def admit(self, account: str, sender: Network, address: Address) -> bool:
        """Record that ``account`` works at ``address`` too, in ``sender``, where it has worked before.

        Return False if the account is new there and has no room for another address.
        """
        new = self._new.get((account, sender))
        if new is None or address in new.addresses:
            return True
        if len(new.addresses) >= MOST_TOGETHER:
            return False
        new.addresses.append(address)
        self._accounts[address] += 1
        return True

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much."""
        for new in self._new.values():
            new.since += seconds

    def expire(self, now: float) -> None:
        """Forget those whose first day is over at ``now`` (epoch), in any order: Asterisks' clocks differ."""
        for key in [key for key, new in self._new.items() if now - new.since >= NEW_FOR]:
            self._forget(key)

    def _forget(self, key: tuple[str, Network]) -> None:
        """Forget that an account is new at a sender, if it is known."""
        if key in self._new:
            for address in self._new.pop(key).addresses:
                self._accounts[address] -= 1
                if not self._accounts[address]:
                    del self._accounts[address]
