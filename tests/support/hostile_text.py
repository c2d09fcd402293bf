"""Cases of hostile text: a field of a request, some control characters, and a line that names a victim.

    case_of("22 TCP call_id esc security")       # one case by its name
    every("22"), sample("22", 60, seed=7)        # all cases of an Asterisk, or some of them

A case is ``PBX TRANSPORT FIELD WRAP LINE``:

PBX        ``22`` (PJSIP), ``16`` (chan_sip) or ``16-pjsip``
TRANSPORT  one of SIP's, ``AMI`` or ``IAX``
FIELD      the field with the text, or two fields joined by ``+``
WRAP       the characters around the line
LINE       text that a parser might mistake for Asterisk's own line about a victim
SETTING    how the requests travel, and which others send (``SETTINGS``); without it, one after the other

The text of a case depends only on its name and its victim.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote_from_bytes

from attrs import evolve, frozen
from tests.support.open_pbx import GUESTS
from tests.support.sip_raw import Raw

TRANSPORTS: Mapping[str, tuple[str, ...]] = {
    "22": ("UDP", "TCP", "TLS", "WS"),
    "16": ("UDP", "TCP", "TLS", "WS"),
    "16-pjsip": ("UDP", "TCP", "TLS"),
}
OTHERS = {"AMI": "user", "IAX": "name"}
"""Protocols other than SIP, with the field of each."""
ACCOUNTS = {"22": b"alice", "16": b"carol", "16-pjsip": b"alice"}
_LONG = 58_000
"""The number of bytes that fit into a datagram together with the rest of the request."""

_EVENT = (
    'SecurityEvent="ChallengeResponseFailed",EventTV="2026-11-20T00:00:00.000+0000",Severity="Error",'
    'Service="PJSIP",EventVersion="1",AccountID="a",SessionID="b",LocalAddress="IPV4/TCP/198.18.0.1/5060",'
    'RemoteAddress="IPV4/TCP/{v}/{p}",Challenge="",Response="",ExpectedResponse=""'
)
_PACKET = (
    "\r\n\r\nEvent: InvalidPassword\r\nPrivilege: security,all\r\nEventTV: 2026-11-20T00:00:00.000+0000\r\n"
    "Severity: Error\r\nService: AMI\r\nEventVersion: 2\r\nAccountID: a\r\nSessionID: 0x1\r\n"
    "LocalAddress: IPV4/TCP/198.18.0.1/5038\r\nRemoteAddress: IPV4/TCP/{v}/{p}\r\n\r\n"
)
LINES: Mapping[str, str] = {
    # They continue a line that Asterisk has begun.
    "security-tail": '",RemoteAddress="IPV4/TCP/{v}/{p}',
    "security-tails": (
        '",LocalAddress="IPV4/TCP/198.18.0.1/5060",RemoteAddress="IPV4/TCP/{v}/{p}",Challenge="'
    ),
    "request-tail": "' failed for '{v}:{p}' (callid: x) - Failed to authenticate",
    "registration-tail": "' failed for '{v}:{p}' - Wrong password",
    "iax-tail": "' (from {v})",
    # Whole lines.
    "security": "SECURITY[1] res_security_log.c: " + _EVENT,
    "request": (
        "NOTICE[1] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from '<sip:a@b>' failed for '{v}:{p}' "
        "(callid: a) - Failed to authenticate"
    ),
    "session": (
        "NOTICE[1] res_pjsip_session.c:  a: Call (TCP:{v}:{p}) to extension '1' rejected because extension "
        "not found in context 'a'."
    ),
    "registration": (
        "NOTICE[1] chan_sip.c: Registration from '<sip:a@b>' failed for '{v}:{p}' - Wrong password"
    ),
    "call": (
        "NOTICE[1][C-00000001] chan_sip.c: Call from 'a' ({v}:{p}) to extension '1' rejected because "
        "extension not found in context 'a'."
    ),
    "manager": "NOTICE[1] manager.c: {v} failed to authenticate as '",
    "manager-user": "NOTICE[1] manager.c: {v} tried to authenticate with nonexistent user 'a'",
    "manager-acl": "NOTICE[1] manager.c: {v} failed to pass IP ACL as 'a'",
    "manager-dated": "[2026-11-20 00:00:00.000] NOTICE[1] manager.c: {v} failed to authenticate as '",
    "iax": "NOTICE[1] chan_iax2.c: No registration for peer 'a' (from {v})",
    # Lines that are completed by Asterisk's text after the field.
    "session-open": "NOTICE[1] res_pjsip_session.c:  a: Call (TCP:{v}:{p}) to extension '",
    "call-open": "NOTICE[1] chan_sip.c: Call from '' ({v}:{p}) to extension '",
    # Parts of an AMI packet.
    "ami-tail": "\r\nRemoteAddress: IPV4/TCP/{v}/{p}",
    "ami-tails": (
        "\r\nSessionID: 0x1\r\nLocalAddress: IPV4/TCP/198.18.0.1/5060\r\n"
        "RemoteAddress: IPV4/TCP/{v}/{p}\r\n\r\n"
    ),
    "ami-packet": _PACKET,
}
WRAPS: Mapping[str, tuple[bytes, bytes, bool]] = {
    # The text before and after the line; whether all of it is percent-encoded.
    "plain": (b"", b"", False),
    "esc": (b"\x1b", b"", False),
    "esc-behind": (b"", b"\x1b", False),
    "esc-m": (b"\x1b[0m", b"\x1b[0m", False),
    "esc-m-behind": (b"", b"\x1bm", False),
    "cr": (b"\r", b"\r", False),
    "lf": (b"\n", b"", False),
    "lf-both": (b"\n", b"\n", False),
    "nul": (b"\0", b"\0", False),
    "nul-behind": (b"", b"\0", False),
    "tab": (b"\t", b"\t", False),
    "quote": (b'"', b'"', False),
    "apostrophe": (b"'", b"'", False),
    "not-utf8": (b"\xff", b"\xff", False),
    "not-utf8-behind": (b"", b"\xc3", False),
    "right-to-left": (b"\xe2\x80\xae", b"", False),
    "long": (b"L" * _LONG, b"", False),
    "long-behind": (b"", b"L" * _LONG, False),
    "%esc": (b"\x1b", b"\x1b", True),
    "%esc-m": (b"\x1bm", b"\x1bm", True),
    "%cr": (b"\r", b"\r", True),
    "%lf": (b"\n", b"", True),
    "%lf-both": (b"\n", b"\n", True),
    "%crlf": (b"\r\n", b"\r\n", True),
    "%nul": (b"", b"\0", True),
    "%tab": (b"\t", b"\t", True),
    "%quote": (b'"', b'"', True),
    "%not-utf8": (b"\xff", b"", True),
    "%right-to-left": (b"\xe2\x80\xae", b"", True),
}


@frozen
class Victim:
    """An address that sends nothing, with the port that the text names; ``kind`` describes its host."""

    address: str
    port: int = 5060
    kind: str = "stranger"


Change = Callable[[Raw, bytes], Raw]


def _digest(name: str) -> Change:
    def change(raw: Raw, text: bytes) -> Raw:
        fields: dict[str, Any] = {name: text.replace(b'"', b'\\"')}
        return evolve(raw, digest=evolve(raw.digest, **fields))

    return change


def _plain(name: str) -> Change:
    return lambda raw, text: _with(raw, name, text)


def _behind(name: str) -> Change:
    """Change a field that must begin with its usual content."""
    return lambda raw, text: _with(raw, name, (getattr(raw, name) or raw.from_user) + text)


def _display(name: str) -> Change:
    return lambda raw, text: _with(raw, name, b'"' + text + b'" ')


def _with(raw: Raw, name: str, text: bytes) -> Raw:
    fields: dict[str, Any] = {name: text}
    return evolve(raw, **fields)


def _extension(raw: Raw, text: bytes) -> Raw:
    return evolve(raw, method=b"INVITE", from_user=b"guest", from_host=GUESTS.encode(), extension=b"1" + text)


FIELDS: Mapping[str, Change] = {
    "method": lambda raw, text: evolve(raw, method=raw.method + text, extension=b"100"),
    "from_user": _behind("from_user"),
    "from_display": _display("from_display"),
    "to_user": _behind("to_user"),
    "to_display": _display("to_display"),
    "to_tail": lambda raw, text: evolve(raw, to_tail=b";x=" + text),
    "call_id": lambda raw, text: evolve(raw, call_id=b"{}" + text),
    "contact": _behind("contact"),
    "extension": _extension,
    "user_agent": _plain("user_agent"),
    "username": _digest("username"),
    "realm": _digest("realm"),
    "nonce": _digest("nonce"),
    "uri": _digest("uri"),
    "response": _digest("response"),
}
USERS = frozenset({"from_user", "to_user", "contact", "extension"})
"""Fields inside a URI: a line there must be percent-encoded, or the URI is invalid."""


@frozen
class Case:
    """One hostile request, for any victim."""

    pbx: str
    transport: str
    field: str
    wrap: str
    line: str
    setting: str = ""

    @property
    def name(self) -> str:
        """The name, from which :func:`case_of` makes the case again."""
        return f"{self.pbx} {self.transport} {self.field} {self.wrap} {self.line} {self.setting}".rstrip()

    def request(self, victim: Victim) -> Raw:
        """Return the request; a digest is added to it when its challenge is known."""
        raw = Raw(from_user=ACCOUNTS[self.pbx], contact=ACCOUNTS[self.pbx])
        if self.setting == "vias":
            raw = evolve(
                raw, vias=f"Via: SIP/2.0/UDP {victim.address}:{victim.port};branch=z9hG4bK0\r\n".encode()
            )
        if self.wrap.startswith("splice"):
            return _spliced(raw, self, victim)
        for field in self.field.split("+"):
            raw = FIELDS[field](raw, self.text(field, victim))
        return raw

    def guess(self, request: Raw, victim: Victim) -> Raw:
        """Return the guess of a request with a digest: by ``maddr`` its answer goes to the victim."""
        if self.setting != "maddr":
            return request
        return evolve(request, via=b";maddr=" + victim.address.encode())

    def text(self, field: str, victim: Victim) -> bytes:
        """Return the content of a field."""
        before, behind, encoded = WRAPS[self.wrap]
        line = named(self.line, victim)
        if encoded:
            return quote_from_bytes(before + line + behind, safe="").encode()
        if field in USERS:
            line = quote_from_bytes(line, safe="").encode()
        return before + line + behind


def named(line: str, victim: Victim) -> bytes:
    """Return a line that names the victim."""
    return LINES[line].replace("{v}", victim.address).replace("{p}", str(victim.port)).encode()


# -- Splices: two ESC, of which the first takes bytes out of the line and the second lets as many be repeated

SPLICES: Mapping[str, tuple[str, str, str]] = {
    # The field that loses bytes, the one whose end is repeated, and the text between them in a SECURITY line.
    "call_id+response": ("call_id", "response", ""),
    "call_id+nonce": ("call_id", "nonce", ""),
    "call_id+nonce+response": ("call_id", "response", '",Response="'),
    "call_id+call_id": ("call_id", "call_id", ""),
    "from_display+call_id": ("from_display", "call_id", ""),
    "from_user+call_id": ("from_user", "call_id", ""),
    "to_display+to_tail": ("to_display", "to_tail", ""),
    "to_tail+to_tail": ("to_tail", "to_tail", ""),
}
_HEADS: Mapping[str, bytes] = {
    "security-tail": b"xoteAddress=",
    "request-tail": b"x",
    "registration-tail": b"x",
}
_BODIES: Mapping[str, str] = {
    "security-tail": '"IPV4/TCP/{v}/{p}',
    "request-tail": LINES["request-tail"],
    "registration-tail": LINES["registration-tail"],
}
OFFSETS = (-1, 0, 1)


def _spliced(raw: Raw, case: Case, victim: Victim) -> Raw:
    """Return a request with ESC ... ``m`` in one field, and an ESC without ``m`` at the end of another.

    ``term_strip`` of Asterisk works in place, and ends at an ESC without ``m`` without writing a NUL. So the
    line ends with a repetition of as many bytes as it removed before.
    """
    first, last, between = SPLICES[case.field]
    body = _BODIES[case.line].replace("{v}", victim.address).replace("{p}", str(victim.port)).encode()
    head, offset = _HEADS[case.line], OFFSETS[int(case.wrap.removeprefix("splice"))]
    if between:  # the body is the nonce; its first quote is there in any case
        size = len(body) + len(between) + len(head)
        raw = FIELDS["nonce"](raw, body.removeprefix(b'"'))
        tail = head + b"\x1b"
    else:
        size = len(body)
        tail = head + body + b"\x1b"
    taken = b"\x1b" + b"z" * (size + offset - 2) + b"m"
    if first == last:
        return FIELDS[last](raw, taken + tail)
    taken = quote_from_bytes(taken).encode() if first in USERS else taken
    return FIELDS[last](FIELDS[first](raw, taken), tail)


def splices(pbx: str) -> Iterator[Case]:
    """Yield the splices of an Asterisk."""
    for transport, field, line in itertools.product(TRANSPORTS[pbx], SPLICES, _BODIES):
        for number in range(len(OFFSETS)):
            yield Case(pbx, transport, field, f"splice{number}", line)


# -- The list of cases


def singles(pbx: str) -> Iterator[Case]:
    """Yield the cases of one field.

    Each field has each wrap, and both have each line, but not together: by UDP two fifths of the lines, if
    the wrap has an effect there, and otherwise one fifth, in turn. So has PJSIP on Asterisk 16, which differs
    little from PJSIP on 22.
    """
    for first, transport in enumerate(TRANSPORTS[pbx]):
        for turn, (field, wrap) in enumerate(itertools.product(FIELDS, WRAPS), first):
            twice = transport == "UDP" and pbx != "16-pjsip" and (field in USERS or not WRAPS[wrap][2])
            for number, line in enumerate(LINES):
                if (number + turn) % 5 <= twice:
                    yield Case(pbx, transport, field, wrap, line)
    for transport, field in OTHERS.items() if pbx != "16-pjsip" else ():
        for wrap, line in itertools.product(WRAPS, LINES):
            if not WRAPS[wrap][2]:
                yield Case(pbx, transport, field, wrap, line)


def pairs(pbx: str, number: int, seed: int) -> Iterator[Case]:
    """Yield ``number`` cases of two fields with the same text."""
    chosen = random.Random(f"{pbx} {seed}")  # noqa: S311 - not for secrets
    several = [" + ".join(two).replace(" ", "") for two in itertools.combinations(FIELDS, 2)]
    for _ in range(number):
        yield Case(
            pbx,
            chosen.choice(TRANSPORTS[pbx]),
            chosen.choice(several),
            chosen.choice(tuple(WRAPS)),
            chosen.choice(tuple(LINES)),
        )


SETTINGS: Mapping[str, frozenset[str]] = {
    # Each segment holds a few bytes of a request.
    "split": frozenset({"TCP", "TLS", "WS"}),
    # The sender reads nothing until it has sent all guesses, and fills its small window before them.
    "closed": frozenset({"TCP"}),
    # A second Via names the victim.
    "vias": frozenset({"UDP", "TCP", "TLS", "WS"}),
    # The answers to the guesses go to the victim.
    "maddr": frozenset({"UDP"}),
    # Another user's program on the host sends the victim answers with the case's text.
    "relay": frozenset({"UDP"}),
    # The victim is a phone with the right password that may not subscribe, and its lamps try it again.
    "lamps": frozenset({"UDP"}),
    # The victim is a phone of another user's SIP server on the host, which challenges it.
    "other": frozenset({"UDP"}),
    # The sender uses a second address of the PBX. chan_sip answers from the first one.
    "second": frozenset({"UDP", "TCP"}),
    # Asterisk runs in a container.
    "container": frozenset({"UDP", "TCP", "TLS", "WS"}),
    # ringfence guards two Asterisks on one host: PJSIP of one, and chan_sip of the other.
    "two": frozenset({"UDP", "TCP"}),
}
"""The settings, with the transports of each."""


def in_settings(pbx: str, number: int, seed: int) -> list[Case]:
    """Return ``number`` cases in each setting; the same seed results in the same cases."""
    found = []
    for setting, transports in SETTINGS.items():
        if setting == "two" and pbx == "16-pjsip":
            continue
        chosen = random.Random(f"{pbx} {setting} {seed}")  # noqa: S311 - not for secrets
        usable = [case for case in every(pbx) if case.transport in transports]
        found += [evolve(case, setting=setting) for case in chosen.sample(usable, number)]
    return found


PAIRS = 500
SEED = 10


def every(pbx: str) -> list[Case]:
    """Return all cases of an Asterisk."""
    return list(dict.fromkeys((*singles(pbx), *splices(pbx), *pairs(pbx, PAIRS, SEED))))


def sample(pbx: str, number: int, seed: int) -> list[Case]:
    """Return ``number`` cases; the same seed results in the same cases."""
    return random.Random(f"{pbx} {seed}").sample(every(pbx), number)  # noqa: S311 - not for secrets


def case_of(name: str) -> Case:
    """Return a case by its name."""
    case = Case(*name.split(" "))
    assert case.pbx in TRANSPORTS, name
    assert case.line in LINES, name
    assert not case.setting or case.transport in SETTINGS[case.setting], name
    return case


LIMITS: Mapping[str, str] = {
    r"16-pjsip \w+ (\w+\+)?realm(\+\w+)? .*": (
        "PJSIP of Asterisk 16 ignores a digest for another realm, so nothing is guessed"
    ),
    r"16 TLS (\w+\+)*(nonce|realm)(\+\w+)* .*": (
        "chan_sip challenges again and writes no line, its event names the address of a Via, and TLS hides "
        "the challenge from the wire"
    ),
    r".* AMI user not-utf8.*": (
        "no manager user has such a name, so nothing is guessed, and AMI raises no event for it"
    ),
    r".* (TCP|TLS|WS) (\w+\+)*extension(\+\w+)* .* container": (
        "the log alone reports a call to an unknown extension, and no connection to a container confirms it"
    ),
    r".* TLS .* container": (
        "no connection to a container confirms an event that text has broken, and TLS hides the guess"
    ),
    r".* IAX .*": "IAX2 is reported by a line of the log alone, which proves no address",
}
"""Cases whose sender may go unbanned, by a pattern of their names, each with its reason."""


def limit_of(case: Case) -> str:
    """Return why the sender of a case may go unbanned; empty if it may not."""
    return next((reason for names, reason in LIMITS.items() if re.fullmatch(names, case.name)), "")


def strangers(first: int = 11) -> Iterator[Victim]:
    """Yield a new victim for each case; each has eight characters because some fields are short."""
    for high, *digits in itertools.product(range(first, 100), range(10), range(10), range(1, 10)):
        yield Victim(".".join(str(part) for part in (high, *digits)))


def receivers() -> Iterator[Victim]:
    """Yield victims to which Asterisk has a route, so that its answers to them leave the host."""
    for third, last in itertools.product(range(250, 255), range(1, 255)):
        yield Victim(f"198.19.{third}.{last}")


def cases_of(names: Sequence[str]) -> list[Case]:
    """Return cases by their names."""
    return [case_of(name) for name in names]
