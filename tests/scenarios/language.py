"""The language of the scenarios: a transcript as text, and what it says. README.md tells how to write one.

Strict: a line that is not wholly understood is a fault, with its number. Nothing here knows a detector.
"""

import enum
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from itertools import islice
from pathlib import Path

from attrs import Factory, define, evolve, frozen

from ringfence.model import Address, Network, Service, Transport, shown

MOST_DEEDS = 200_000
"""So many single deeds may one line ask for: a typing error must not cost the machine."""

HEARD = ("AMI", "log", "wire")
"""The witnesses of a PBX."""


class TranscriptError(ValueError):
    """A transcript that says something nobody can act upon."""


class Verb(enum.Enum):
    """What somebody does, or what becomes of the PBX."""

    REGISTERS = "registers"
    FAILS = "fails"
    SCANS = "scans"
    CALLS = "calls"
    DIALPLAN = "is refused by the dialplan"
    REGISTRAR = "is refused by the registrar"
    FLOODS = "is over the limit"
    HIDES = "hides a guess"
    TAMPERS = "tampers with AMI"
    FORGES_LINES = "writes lines that blame"
    LOSES_ACCOUNTS = "Asterisk loses its accounts"
    FINDS_ACCOUNTS = "Asterisk has its accounts back"
    LIFTS = "the administrator lifts the ban"


_BY = {
    Verb.REGISTERS: (Service.PJSIP, Service.SIP, Service.AMI),
    Verb.FAILS: (Service.PJSIP, Service.SIP, Service.IAX2, Service.AMI),
    Verb.CALLS: (Service.PJSIP, Service.SIP, Service.IAX2),
}
DONE = frozenset((verb, service) for verb in Verb for service in _BY.get(verb, (Service.PJSIP,)))
"""What can be done by way of which part of Asterisk; of all else nobody knows what it would say."""


@frozen
class Deed:
    """A line of the transcript in which something is done: once, or ``number`` times every ``every`` seconds.

    With several addresses and accounts each next deed is of the next one. ``at_once``: all of it was sent
    before any answer came. ``forged``: the senders named sent nothing. ``naming``: whom a Via names, or whom
    a forged line blames.
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
    naming: Address | None = None


class What(enum.Enum):
    """The kinds of outcomes."""

    BAN = "ban"
    ALARM = "alarm"
    OVER = "over"
    NOTHING = "nothing"
    NO_BAN = "no ban"
    COUNT = "count"
    BANNED = "is banned"
    NOT_BANNED = "is not banned"


@frozen
class Outcome:
    """What must follow of a line: ``number`` bans or alarms, or how something stands then."""

    line: int
    what: What
    name: str = ""
    network: Network | None = None
    is_within: bool = False
    number: int = 1
    seconds: float = 0.0
    only_sip: bool = False
    after: int | None = None
    subject: str = ""


@define
class Step:
    """A time (seconds since the midnight before the first day), what is done then, and what must follow."""

    line: int
    time: float
    deed: Deed | None = None
    outcomes: list[Outcome] = Factory(list)


@define
class Scenario:
    """A transcript, read. ``lines`` are its text; ``title`` is what it says of itself."""

    name: str
    lines: tuple[str, ...]
    steps: list[Step] = Factory(list)
    names: dict[str, Network] = Factory(dict)
    accounts: set[str] = Factory(set)
    heard: tuple[str, ...] = HEARD
    protected: dict[Network, str] = Factory(dict)
    configuration: Mapping[str, object] = Factory(dict)

    def __str__(self) -> str:
        return self.name


_NUMBER = r"\d{1,3}(?: \d{3})+|\d+"
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = rf"(?:{_NUMBER}) (?:{'|'.join(_UNITS)})"
_TIMED = re.compile(r"(?:day ([1-9]\d?) )?([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?  +(\S.*)")
_FOLLOWS = re.compile(r" +=> +(\S.*)")
_OUTCOME = re.compile(r"=> +(\S.*)")
_SET: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"accounts: (.+)"), "_set_accounts"),
    (re.compile(r"heard: (.+)"), "_set_heard"),
    (re.compile(r"never banned: (\S+) \((.+)\)"), "_set_protected"),
    (re.compile(r"([a-z][a-z-]*) is (\S+)"), "_set_name"),
)


def read(name: str, text: str) -> Scenario:
    """Read a transcript; TranscriptError names the line that is not understood."""
    return _Reader(Scenario(name, tuple(text.split("\n")))).read()


def read_file(path: Path) -> Scenario:
    """Read the transcript in a file."""
    return read(path.stem, path.read_text("utf-8"))


def number_from(text: str) -> int:
    """Read a number as people write it: ``1 000``."""
    return int(text.replace(" ", ""))


def duration_from(text: str) -> float:
    """Read ``10 min``."""
    number, _, unit = text.rpartition(" ")
    return number_from(number) * _UNITS[unit]


def duration_text(seconds: float) -> str:
    """Write a duration as a transcript does."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size and round(seconds / size, 6).is_integer():
            return f"{round(seconds / size)} {unit}"
    return f"{seconds:g} s"


def clock_text(seconds: float) -> str:
    """Write a time as a transcript does."""
    day, of_day = divmod(seconds, 86_400)
    minutes, second = divmod(of_day, 60)
    clock = f"{int(minutes) // 60:02}:{int(minutes) % 60:02}:{second:06.3f}".removesuffix(".000")
    return f"day {int(day) + 1} {clock}" if day else clock


class _Reader:
    """Reads line by line. What belongs to the PBX stands before the first time."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._line = 0

    def read(self) -> Scenario:
        rest = iter(enumerate(self._scenario.lines, 1))
        try:
            for self._line, text in rest:
                if text == "configuration:":
                    self._read_configuration()
                elif text.strip() and not text.startswith(("#", "    ")):
                    self._read_line(text)
                elif text.startswith("    ") and text.strip():
                    self._read_indented(text)
        except (ValueError, KeyError) as error:
            words = str(error.args[0]) if error.args else ""
            raise TranscriptError(f"{self._scenario.name}.scenario, line {self._line}: {words}") from None
        if not any(step.deed for step in self._scenario.steps):
            raise TranscriptError(f"{self._scenario.name}.scenario: nothing happens in it")
        return self._scenario

    def _read_configuration(self) -> None:
        table = []
        for text in islice(self._scenario.lines, self._line, None):
            if text.strip() and not text.startswith("    "):
                break
            table.append(text)
        if self._scenario.configuration:
            raise ValueError("there is a configuration already")
        if self._scenario.steps:
            raise ValueError("what belongs to the PBX stands before the first time")
        self._scenario.configuration = tomllib.loads("\n".join(table))
        if not self._scenario.configuration:
            raise ValueError("a configuration stands below, indented by four spaces, as in ringfence.toml")

    def _read_indented(self, text: str) -> None:
        if not self._scenario.steps:
            if self._scenario.configuration:  # its lines were read with its head
                return
            raise ValueError("nothing that this could follow")
        found = _FOLLOWS.fullmatch(text)
        if found is None:
            raise ValueError("what follows stands behind =>")
        self._scenario.steps[-1].outcomes.append(_outcome(found[1], self._line, self._scenario.names))

    def _read_line(self, text: str) -> None:
        timed = _TIMED.fullmatch(text)
        if timed is None:
            self._read_setting(text)
            return
        day, hour, minute, second, rest = timed.groups(default="0")
        time = max(int(day) - 1, 0) * 86_400.0 + int(hour) * 3_600 + int(minute) * 60 + int(second)
        if self._scenario.steps and time < self._scenario.steps[-1].time:
            raise ValueError("time goes on: this is before the line above (the next day is 'day 2 00:00')")
        step = Step(self._line, time)
        outcome = _OUTCOME.fullmatch(rest)
        if outcome is not None:
            step.outcomes.append(_outcome(outcome[1], self._line, self._scenario.names))
        else:
            step.deed = self._deed(rest)
        self._scenario.steps.append(step)

    def _read_setting(self, text: str) -> None:
        if self._scenario.steps:
            raise ValueError("no time: a line begins with HH:MM:SS and two spaces")
        for pattern, method in _SET:
            found = pattern.fullmatch(text)
            if found is not None:
                getattr(self, method)(*found.groups())
                return
        raise ValueError("neither a time nor anything that is known of a PBX")

    def _set_accounts(self, text: str) -> None:
        self._scenario.accounts.update(_accounts(text))

    def _set_heard(self, text: str) -> None:
        heard = tuple(text.split(", "))
        if not set(heard) <= set(HEARD):
            raise ValueError(f"a PBX is heard by {', '.join(HEARD)}")
        self._scenario.heard = heard

    def _set_protected(self, text: str, why: str) -> None:
        self._scenario.protected[self._network(text)] = why

    def _set_name(self, name: str, text: str) -> None:
        if name in self._scenario.names:
            raise ValueError(f"{name} has an address already")
        self._scenario.names[name] = ip_network(text)

    def _network(self, text: str) -> Network:
        return _network(text, self._scenario.names)

    def _deed(self, text: str) -> Deed:
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
        stranger = next((one for one in deed.accounts if one not in self._scenario.accounts), None)
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
                deed = evolve(deed, accounts=tuple(_accounts(said["accounts"])))
            if "naming" in said:
                deed = evolve(deed, naming=self._network(said["naming"]).network_address)
            return deed
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
        # The first host of each: .0 of an IPv4 network is nobody's, unless all of them are asked for.
        first = int(of.network_address) + (number < of.num_addresses)
        return (ip_address(first + step * index) for index in range(number))


_WITH_AN_ACCOUNT = (Verb.REGISTERS, Verb.REGISTRAR)
_MANY = re.compile(rf"({_NUMBER}) (addresses|/64s) (?:of|(spread over)) (\S+)")
_WHO = r"(?P<who>\S.*?)"
_AS = r"(?P<accounts>\S.*)"
_HEADS: tuple[tuple[Verb, re.Pattern[str]], ...] = tuple(
    (verb, re.compile(pattern))
    for verb, pattern in (
        (Verb.LOSES_ACCOUNTS, r"Asterisk loses its accounts"),
        (Verb.FINDS_ACCOUNTS, r"Asterisk has its accounts back"),
        (Verb.LIFTS, rf"the administrator lifts the ban of {_WHO}"),
        (Verb.REGISTERS, rf"{_WHO} (?:registers?|logs? in) as {_AS}"),
        (Verb.FAILS, rf"{_WHO} fails? as {_AS}"),
        (Verb.SCANS, rf"{_WHO} scans? {_AS}"),
        (Verb.CALLS, rf"{_WHO} calls? a number that does not exist(?: as {_AS})?"),
        (Verb.DIALPLAN, rf"{_WHO} (?:is|are) refused by the dialplan"),
        (Verb.REGISTRAR, rf"{_WHO} (?:is|are) refused by the registrar as {_AS}"),
        (Verb.FLOODS, rf"{_WHO} (?:is|are) over the limit"),
        (Verb.HIDES, rf"{_WHO} hides? a guess as {_AS}"),
        (Verb.TAMPERS, rf"{_WHO} tampers? with AMI as {_AS}"),
        (Verb.FORGES_LINES, r"somebody writes a line that blames (?P<naming>\S+)"),
    )
)


def _network(text: str, names: Mapping[str, Network]) -> Network:
    if text in names:
        return names[text]
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a name that was given one") from None


def _accounts(text: str) -> Iterator[str]:
    for part in text.split(" and "):
        first, to, last = part.partition(" to ")
        if not to:
            if " " in part:
                raise ValueError(f"{part!r} is no account")
            yield part
        elif first.isdecimal() and last.isdecimal() and int(first) < int(last) <= int(first) + MOST_DEEDS:
            yield from (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        else:
            raise ValueError(f"{part!r} goes from one number to a higher one")


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
    (re.compile(rf"({_NUMBER}) times( each)?"), _times),
    (re.compile(rf"every ({_DURATION})(?: for ({_DURATION}))?"), _every),
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
    if deed.naming is not None and deed.verb is Verb.FAILS and not chan_sip:
        raise ValueError("only chan_sip believes a Via: say 'by SIP'")
    if (deed.verb, deed.service) not in DONE:
        raise ValueError(f"{deed.verb.value}, by {deed.service}: nobody tells of it")
    if deed.forged and (deed.transport is not Transport.UDP or deed.service is not Service.PJSIP):
        raise ValueError("forged is said of PJSIP over UDP alone")
    return deed


_KINDS_OF_COUNT = "late|never banned|withheld|forged"
_BAN_TAIL = (
    rf"(?: of (?P<who>\S+)| in (?P<within>\S+)) by (?P<rule>[a-z]+) for (?P<length>{_DURATION})"
    rf"(?P<sip>, UDP to the SIP ports)?(?:, after (?P<after>{_NUMBER}) attempts?)?"
)
_OUTCOMES: tuple[tuple[re.Pattern[str], What], ...] = (
    (re.compile(r"nothing"), What.NOTHING),
    (re.compile(r"no ban"), What.NO_BAN),
    (re.compile(rf"(?:(?P<number>{_NUMBER}) )?bans?{_BAN_TAIL}"), What.BAN),
    (re.compile(r"alarm (?P<name>[a-z._]+) is over(?: for (?P<subject>\S+))?"), What.OVER),
    (
        re.compile(rf"(?:(?P<number>{_NUMBER}) )?alarms? (?P<name>[a-z._]+)(?: for (?P<subject>\S+))?"),
        What.ALARM,
    ),
    (re.compile(rf"(?P<number>{_NUMBER}) attempts? (?P<name>{_KINDS_OF_COUNT})"), What.COUNT),
    (re.compile(r"(?P<who>\S+) is banned"), What.BANNED),
    (re.compile(r"(?P<who>\S+) is not banned"), What.NOT_BANNED),
)


def _outcome(text: str, line: int, names: Mapping[str, Network]) -> Outcome:
    for pattern, what in _OUTCOMES:
        found = pattern.fullmatch(text)
        if found is not None:
            said = found.groupdict()
            who = said.get("who") or said.get("within")
            subject = said.get("subject") or ""
            return Outcome(
                line,
                what,
                name=said.get("rule") or said.get("name") or "",
                network=_network(who, names) if who else None,
                is_within=bool(said.get("within")),
                number=number_from(said.get("number") or "1"),
                seconds=duration_from(said["length"]) if said.get("length") else 0.0,
                only_sip=bool(said.get("sip")),
                after=number_from(said["after"]) if said.get("after") else None,
                subject=shown(names[subject]) if subject in names else subject,
            )
    raise ValueError(f"nobody knows whether this has followed: {text!r}")
