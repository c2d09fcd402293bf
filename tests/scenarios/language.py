"""The language of the scenarios: it parses a transcript. README.md explains how to write one.

It is strict: a line that is not wholly understood is an error, with its number. This module does not know the
detector.
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

from ringfence.values.network import Address, Network

SOURCES = ("AMI", "log", "wire")
"""The sources of a PBX."""


class TranscriptError(ValueError):
    """A transcript with a line that cannot be carried out."""


@define
class Step:
    """A time (seconds since the midnight before the first day), its action, and the required results."""

    line: int
    time: float
    deed: Deed | None = None
    outcomes: list[Outcome] = Factory(list)


@define
class Scenario:
    """A parsed transcript. ``lines`` are its text."""

    name: str
    lines: tuple[str, ...]
    steps: list[Step] = Factory(list)
    names: dict[str, Network] = Factory(dict)
    accounts: set[str] = Factory(set)
    sources: tuple[str, ...] = SOURCES
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
    (re.compile(r"sources: (.+)"), "_set_sources"),
    (re.compile(r"trunk: (\S+)"), "_set_trunk"),
    (re.compile(r"exempt: (\S+) \((.+)\)"), "_set_protected"),
    (re.compile(r"([a-z][a-z-]*) is (\S+)"), "_set_name"),
)


def read(name: str, text: str) -> Scenario:
    """Parse a transcript; raise TranscriptError that names the line which is not understood."""
    return _Reader(Scenario(name, tuple(text.split("\n")))).read()


def read_file(path: Path) -> Scenario:
    """Parse the transcript in a file."""
    return read(path.stem, path.read_text("utf-8"))


class _Reader:
    """A parser that works line by line. Settings of the PBX come before the first time."""

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

    def _set_sources(self, text: str) -> None:
        sources = tuple(text.split(", "))
        if not set(sources) <= set(SOURCES):
            raise ValueError(f"the sources of a PBX are {', '.join(SOURCES)}")
        self._scenario.sources = sources

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
