"""The language of the scenarios: a transcript as text, and what it says. README.md tells how to write one.

Strict: a line that is not wholly understood is a fault, with its number. Nothing here knows a detector.
"""

import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from itertools import islice
from pathlib import Path

from attrs import Factory, define
from tests.scenarios.deeds import Deed, DeedReader
from tests.scenarios.outcomes import Outcome, outcome_from
from tests.scenarios.words import accounts_from, network_from

from ringfence.model import Address, Network

HEARD = ("AMI", "log", "wire")
"""The witnesses of a PBX."""


class TranscriptError(ValueError):
    """A transcript that says something nobody can act upon."""


@define
class Step:
    """A time (seconds since the midnight before the first day), what is done then, and what must follow."""

    line: int
    time: float
    deed: Deed | None = None
    outcomes: list[Outcome] = Factory(list)


@define
class Scenario:
    """A transcript, read. ``lines`` are its text."""

    name: str
    lines: tuple[str, ...]
    steps: list[Step] = Factory(list)
    names: dict[str, Network] = Factory(dict)
    accounts: set[str] = Factory(set)
    heard: tuple[str, ...] = HEARD
    protected: dict[Network, str] = Factory(dict)
    trunks: list[Address] = Factory(list)
    configuration: Mapping[str, object] = Factory(dict)

    def __str__(self) -> str:
        return self.name


_TIMED = re.compile(r"(?:day ([1-9]\d?) )?([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?  +(\S.*)")
_FOLLOWS = re.compile(r" +=> +(\S.*)")
_OUTCOME = re.compile(r"=> +(\S.*)")
_SET: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"accounts: (.+)"), "_set_accounts"),
    (re.compile(r"heard: (.+)"), "_set_heard"),
    (re.compile(r"trunk: (\S+)"), "_set_trunk"),
    (re.compile(r"never banned: (\S+) \((.+)\)"), "_set_protected"),
    (re.compile(r"([a-z][a-z-]*) is (\S+)"), "_set_name"),
)


def read(name: str, text: str) -> Scenario:
    """Read a transcript; TranscriptError names the line that is not understood."""
    return _Reader(Scenario(name, tuple(text.split("\n")))).read()


def read_file(path: Path) -> Scenario:
    """Read the transcript in a file."""
    return read(path.stem, path.read_text("utf-8"))


class _Reader:
    """Reads line by line. What belongs to the PBX stands before the first time."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._deeds = DeedReader(scenario.names, scenario.accounts)
        self._line = self._configured_to = 0

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
        self._configured_to = self._line + len(table)
        if self._scenario.configuration:
            raise ValueError("there is a configuration already")
        if self._scenario.steps:
            raise ValueError("what belongs to the PBX stands before the first time")
        self._scenario.configuration = tomllib.loads("\n".join(table))
        if not self._scenario.configuration:
            raise ValueError("a configuration stands below, indented by four spaces, as in ringfence.toml")

    def _read_indented(self, text: str) -> None:
        if self._line <= self._configured_to:  # was read with its head
            return
        if not self._scenario.steps:
            raise ValueError("nothing that this could follow")
        found = _FOLLOWS.fullmatch(text)
        if found is None:
            raise ValueError("what follows stands behind =>")
        self._scenario.steps[-1].outcomes.append(outcome_from(found[1], self._line, self._scenario.names))

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
            step.outcomes.append(outcome_from(outcome[1], self._line, self._scenario.names))
        else:
            step.deed = self._deeds.read(rest)
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
        self._scenario.accounts.update(accounts_from(text))

    def _set_heard(self, text: str) -> None:
        heard = tuple(text.split(", "))
        if not set(heard) <= set(HEARD):
            raise ValueError(f"a PBX is heard by {', '.join(HEARD)}")
        self._scenario.heard = heard

    def _set_trunk(self, text: str) -> None:
        self._scenario.trunks.append(self._network(text).network_address)

    def _set_protected(self, text: str, why: str) -> None:
        self._scenario.protected[self._network(text)] = why

    def _set_name(self, name: str, text: str) -> None:
        if name in self._scenario.names:
            raise ValueError(f"{name} has an address already")
        self._scenario.names[name] = ip_network(text)

    def _network(self, text: str) -> Network:
        return network_from(text, self._scenario.names)
