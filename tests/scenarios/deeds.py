"""The actions of a scenario: what is done, by which senders, and how often. Each is one line."""

import enum
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address

from attrs import evolve, frozen
from tests.scenarios.words import (
    DURATION,
    MOST_DEEDS,
    NUMBER,
    accounts_from,
    duration_from,
    network_from,
    number_from,
)

from ringfence.values.event import Service, Transport
from ringfence.values.network import Address, Network


class Verb(enum.Enum):
    """The action of a sender, or an event at the PBX."""

    REGISTERS = "registers"
    FAILS = "fails"
    SCANS = "scans"
    CALLS = "calls"
    DIALPLAN = "is refused by the dialplan"
    REGISTRAR = "is refused by the registrar"
    FLOODS = "is over the limit"
    UNREAD = "is answered by TLS"
    HIDES = "hides a guess"
    TAMPERS = "tampers with AMI"
    FORGES_LINES = "writes lines that blame"
    HAS_CONTACT = "has a contact"
    LOSES_CONTACT = "has no contact any more"
    LOSES_ACCOUNTS = "Asterisk loses its accounts"
    FINDS_ACCOUNTS = "Asterisk has its accounts back"
    UNBANS = "the administrator unbans"


_BY = {
    Verb.REGISTERS: (Service.PJSIP, Service.SIP, Service.AMI),
    Verb.FAILS: (Service.PJSIP, Service.SIP, Service.IAX2, Service.AMI),
    Verb.CALLS: (Service.PJSIP, Service.SIP, Service.IAX2),
}
DONE = frozenset((verb, service) for verb in Verb for service in _BY.get(verb, (Service.PJSIP,)))
"""The combinations of action and service that are supported; what Asterisk reports of others is unknown."""


@frozen
class Deed:
    """An action in a line of the transcript: done once, or ``number`` times every ``every`` seconds.

    With several addresses and accounts each repetition uses the next one. ``at_once``: all requests are sent
    before any answer arrives. ``forged``: the named senders sent nothing. ``naming``: the address that a Via
    names, or that a forged line blames.
    """

    verb: Verb
    addresses: tuple[Address, ...] = ()
    accounts: tuple[str, ...] = ()
    service: Service = Service.PJSIP
    transport: Transport = Transport.UDP
    number: int = 1
    every: float = 1.0
    at_once: bool = False
    forged: bool = False
    one_call_id: bool = False
    reachable: bool = False
    naming: Address | None = None


class DeedReader:
    """A parser of actions at a PBX that has ``accounts``; ``names`` stand for networks."""

    def __init__(self, names: Mapping[str, Network], accounts: Collection[str]) -> None:
        self._names = names
        self._accounts = accounts

    def read(self, text: str) -> Deed:
        """Parse a line behind its time; raise ValueError that names what is not understood."""
        head, *said = text.split(", ")
        deed = self._head(head)
        changed = dict[str, object]()
        for words in said:
            for key, value in _modifier(words, deed, self._network):
                if key in changed:
                    raise ValueError(f"{words!r} says anew what was said before")
                changed[key] = value
        changed.setdefault("number", max(len(deed.addresses), len(deed.accounts), 1))
        deed = _evolved(deed, changed)
        if not 0 < deed.number <= MOST_DEEDS:
            raise ValueError(f"{deed.number} times: between 1 and {MOST_DEEDS}")
        stranger = next((one for one in deed.accounts if one not in self._accounts), None)
        if deed.verb in _WITH_AN_ACCOUNT and stranger is not None:
            raise ValueError(f"{stranger!r} is no account of this PBX: accounts: ...")
        return deed

    def _head(self, text: str) -> Deed:
        for verb, pattern in _HEADS:
            found = pattern.fullmatch(text)
            if found is None:
                continue
            said = found.groupdict()
            deed = Deed(verb)
            if "who" in said:
                who = said["who"].removeprefix("forged ")
                addresses = tuple(self._who(who))
                deed = evolve(deed, addresses=addresses, forged=said["who"] != who)
            if said.get("accounts"):
                deed = evolve(deed, accounts=tuple(accounts_from(said["accounts"])))
            if "naming" in said:
                deed = evolve(deed, naming=self._network(said["naming"]).network_address)
            return evolve(deed, reachable=bool(said.get("reachable")))
        raise ValueError(f"nobody knows how to do this: {text!r}")

    def _who(self, text: str) -> Iterator[Address]:
        many = _MANY.fullmatch(text)
        if many is None:
            network = self._network(text)
            if network.num_addresses > 1:
                raise ValueError(f"{text} is many: say how many addresses of it")
            return iter((network.network_address,))
        number, what, spread, of = number_from(many[1]), many[2], many[3], self._network(many[4])
        unit = 1 << 64 if what == "/64s" else 1
        step = max(of.num_addresses // number, unit) if spread else unit
        if of.num_addresses < number * step or not 0 < number <= MOST_DEEDS:
            raise ValueError(f"{of} has not so many")
        # The first host of each: .0 of an IPv4 network is no host, unless all addresses are asked for.
        first = int(of.network_address) + (number < of.num_addresses)
        return (ip_address(first + step * index) for index in range(number))

    def _network(self, text: str) -> Network:
        return network_from(text, self._names)


_WITH_AN_ACCOUNT = (Verb.REGISTERS, Verb.REGISTRAR, Verb.HAS_CONTACT, Verb.LOSES_CONTACT)
_MANY = re.compile(rf"({NUMBER}) (addresses|/64s) (?:of|(spread over)) (\S+)")
_WHO = r"(?P<who>\S.*?)"
_AS = r"(?P<accounts>\S.*)"
_HEADS: tuple[tuple[Verb, re.Pattern[str]], ...] = tuple(
    (verb, re.compile(pattern))
    for verb, pattern in (
        (Verb.LOSES_ACCOUNTS, r"Asterisk loses its accounts"),
        (Verb.FINDS_ACCOUNTS, r"Asterisk has its accounts back"),
        (Verb.UNBANS, rf"the administrator unbans {_WHO}"),
        (Verb.REGISTERS, rf"{_WHO} (?:registers?|logs? in) as {_AS}"),
        (Verb.FAILS, rf"{_WHO} fails? as {_AS}"),
        (Verb.SCANS, rf"{_WHO} scans? {_AS}"),
        (Verb.CALLS, rf"{_WHO} calls? a number that does not exist(?: as {_AS})?"),
        (Verb.DIALPLAN, rf"{_WHO} (?:is|are) refused by the dialplan"),
        (Verb.REGISTRAR, rf"{_WHO} (?:is|are) refused by the registrar as {_AS}"),
        (Verb.FLOODS, rf"{_WHO} (?:is|are) over the limit"),
        (Verb.UNREAD, rf"{_WHO} (?:is|are) answered by TLS"),
        (Verb.HIDES, rf"{_WHO} hides? a guess as {_AS}"),
        (Verb.TAMPERS, rf"{_WHO} tampers? with AMI as {_AS}"),
        (Verb.FORGES_LINES, r"somebody writes a line that blames (?P<naming>\S+)"),
        (Verb.HAS_CONTACT, rf"{_WHO} (?:has|have) a (?P<reachable>reachable )?contact of {_AS}"),
        (Verb.LOSES_CONTACT, rf"{_WHO} (?:has|have) no contact any more of {_AS}"),
    )
)


Pairs = Sequence[tuple[str, object]]


def _times(found: re.Match[str], deed: Deed, _: Callable[[str], Network]) -> Pairs:
    each = len(deed.addresses) if found[2] else 1
    return [("number", number_from(found[1]) * each)]


def _every(found: re.Match[str], _: Deed, __: Callable[[str], Network]) -> Pairs:
    every = duration_from(found[1])
    if found[2] is None:
        return [("every", every)]
    return [("every", every), ("number", round(duration_from(found[2]) / every))]


_MODIFIERS: tuple[
    tuple[re.Pattern[str], Callable[[re.Match[str], Deed, Callable[[str], Network]], Pairs]], ...
]
_MODIFIERS = (
    (re.compile(rf"({NUMBER}) times( each)?"), _times),
    (re.compile(rf"every ({DURATION})(?: for ({DURATION}))?"), _every),
    (re.compile(r"at once"), lambda found, deed, network: [("at_once", True), ("every", 0.0)]),
    (re.compile(r"under one Call-ID"), lambda found, deed, network: [("one_call_id", True)]),
    (
        re.compile(rf"by ({'|'.join(Service)})"),
        lambda found, deed, network: [("service", Service(found[1]))],
    ),
    (
        re.compile(r"over (UDP|TCP|TLS|WS|WSS)"),
        lambda found, deed, network: [("transport", Transport(found[1]))],
    ),
    (
        re.compile(r"naming (\S+) in a Via"),
        lambda found, deed, network: [("naming", network(found[1]).network_address)],
    ),
)


def _modifier(words: str, deed: Deed, network: Callable[[str], Network]) -> Pairs:
    for pattern, meaning in _MODIFIERS:
        found = pattern.fullmatch(words)
        if found is not None:
            return meaning(found, deed, network)
    raise ValueError(f"{words!r} says nothing of how it is done")


def _evolved(deed: Deed, changed: Mapping[str, object]) -> Deed:
    deed = evolve(deed, **changed)  # type: ignore[arg-type]  # the pairs above are of its fields
    chan_sip = deed.service is Service.SIP
    if deed.naming is not None and deed.verb is not Verb.FORGES_LINES and not chan_sip:
        raise ValueError("only chan_sip believes a Via: say 'by SIP'")
    if (deed.verb, deed.service) not in DONE:
        raise ValueError(f"{deed.verb.value}, by {deed.service}: nobody tells of it")
    if deed.forged and (deed.transport is not Transport.UDP or deed.service is not Service.PJSIP):
        raise ValueError("forged is said of PJSIP over UDP alone")
    return deed
