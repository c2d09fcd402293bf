"""The results that may follow a line of a scenario."""

import enum
import re
from collections.abc import Mapping

from attrs import frozen
from tests.scenarios.words import DURATION, NUMBER, duration_from, network_from, number_from

from ringfence.values.network import Network, format_network


class What(enum.Enum):
    """The kinds of results."""

    BAN = "ban"
    ALARM = "alarm"
    CLEARS = "clears"
    ACTIVE = "is active"
    NOTHING = "nothing"
    NO_BAN = "no ban"
    COUNT = "count"
    BANNED = "is banned"
    NOT_BANNED = "is not banned"
    FRIEND = "is a friend"
    STRANGER = "is no friend"


@frozen
class Outcome:
    """A result that must follow a line: ``number`` bans or alarms, or a state at that time."""

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


_KINDS_OF_COUNT = "late|exempt|unconfirmed|forged|uncounted"
_BAN_TAIL = (
    rf"(?: of (?P<who>\S+)| in (?P<within>\S+)) by (?P<rule>[a-z]+) for (?P<length>{DURATION})"
    rf"(?P<sip>, UDP to the SIP ports)?(?:, after (?P<after>{NUMBER}) attempts?)?"
)
_ALARM = rf"(?:(?P<number>{NUMBER}) )?alarms? (?P<name>[a-z._]+)(?: for (?P<subject>\S.*?))?"
_OUTCOMES: tuple[tuple[re.Pattern[str], What], ...] = (
    (re.compile(r"nothing"), What.NOTHING),
    (re.compile(r"no ban"), What.NO_BAN),
    (re.compile(rf"(?:(?P<number>{NUMBER}) )?bans?{_BAN_TAIL}"), What.BAN),
    (re.compile(rf"{_ALARM} clears?"), What.CLEARS),
    (re.compile(rf"{_ALARM} (?:is|are) active"), What.ACTIVE),
    (re.compile(_ALARM), What.ALARM),
    (re.compile(rf"(?P<number>{NUMBER}) attempts? (?P<name>{_KINDS_OF_COUNT})"), What.COUNT),
    (re.compile(r"(?P<who>\S+) is banned"), What.BANNED),
    (re.compile(r"(?P<who>\S+) is not banned"), What.NOT_BANNED),
    (re.compile(r"(?P<who>\S+) is a friend"), What.FRIEND),
    (re.compile(r"(?P<who>\S+) is no friend"), What.STRANGER),
)


def outcome_from(text: str, line: int, names: Mapping[str, Network]) -> Outcome:
    """Parse the text behind ``=>``."""
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
                network=network_from(who, names) if who else None,
                is_within=bool(said.get("within")),
                number=number_from(said.get("number") or "1"),
                seconds=duration_from(said["length"]) if said.get("length") else 0.0,
                only_sip=bool(said.get("sip")),
                after=number_from(said["after"]) if said.get("after") else None,
                subject=" ".join(
                    format_network(names[word]) if word in names else word for word in subject.split(" ")
                ),
            )
    raise ValueError(f"nobody knows whether this has followed: {text!r}")
