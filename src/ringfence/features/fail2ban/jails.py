"""fail2ban's enabled jails, as fail2ban's own client resolves them.

``fail2ban-client -d`` reads fail2ban's files, with their order, includes and references, and prints the
commands that would start its server. Each command is a Python list on a line of its own, such as
``['set', 'asterisk', 'maxretry', 5]``. The client starts nothing and changes nothing. It leaves out a jail
that is disabled or has an error, and names the error.
"""

import ast
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from ringfence.errors import ConfigError
from ringfence.host.processes import run_program
from ringfence.values.text import printable

FOLDER = Path("/etc/fail2ban")
DATABASE = "/var/lib/fail2ban/fail2ban.sqlite3"
CLIENT = "fail2ban-client"

_MAX_PROBLEMS = 20
_FOR_MANAGER = ("failed to authenticate as", "authenticate with nonexistent user")
"""Words of Asterisk's lines about failed logins to the manager interface (``main/manager.c``)."""
_FOR_SIP = ("SecurityEvent", "Registration from")
_FOR_ASTERISK = ("asterisk", *_FOR_SIP, *_FOR_MANAGER)
"""Words of Asterisk's lines. The pattern of a jail that guards Asterisk has one of them."""


DISABLING = "jail.d/zz-ringfence.local"
"""The file below fail2ban's folder that disables jails: by ``ringfence setup``, or by ``check``'s advice."""
_DISABLED = re.compile(r"(?m)^\[([^\]\n]+)\]\nenabled = false$")


def to_disable(present: str, jails: Sequence[str]) -> list[str]:
    """Return the names of the jails that a new version of the file ``DISABLING`` must disable.

    These are ``jails``, which are enabled, and those that the ``present`` text of the file disables.
    """
    return [*dict.fromkeys([*_DISABLED.findall(present), *jails])]


@frozen
class Jail:
    """A jail of fail2ban.

    ``options`` has its single values by name, such as ``maxretry``. ``ignored`` are addresses and networks
    that it never bans. ``paths`` are the existing logs that it reads. ``patterns`` are regular expressions
    for the lines that it counts. ``actions`` are the names of its actions, and ``port`` is what they block.
    """

    name: str
    options: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    port: str = ""

    @property
    def guards_asterisk(self) -> bool:
        """Whether the jail guards Asterisk, by its name or by a pattern for Asterisk's lines."""
        return self.name.lower().startswith("asterisk") or self._counts(_FOR_ASTERISK)

    @property
    def guards_manager(self) -> bool:
        """Whether the jail guards the manager interface only."""
        return self._counts(_FOR_MANAGER) and not self._counts(_FOR_SIP)

    def _counts(self, words: Sequence[str]) -> bool:
        return any(word in pattern for pattern in self.patterns for word in words)


@frozen
class Configuration:
    """fail2ban's configuration: its enabled jails in order, and the path of its database.

    ``where`` is its folder. ``problems`` has a line for each error that fail2ban found in it.
    """

    where: Path
    jails: tuple[Jail, ...]
    database: str
    problems: tuple[str, ...]

    def chosen(self, names: Sequence[str]) -> tuple[Jail, ...]:
        """Return the jails with these names; without names, all jails that guard Asterisk.

        Raise ConfigError if no enabled jail has a name, or if none guards Asterisk. The error lists the
        enabled jails.
        """
        by_name = {jail.name: jail for jail in self.jails}
        enabled = f"enabled jails: {', '.join(map(printable, by_name)) or 'none'}"
        if unknown := [name for name in names if name not in by_name]:
            problems = [f"no enabled jail is named {printable(name)}" for name in unknown]
            raise ConfigError(str(self.where), [*problems, enabled, *self.problems])
        if names:
            return tuple(by_name[name] for name in dict.fromkeys(names))
        if found := tuple(jail for jail in self.jails if jail.guards_asterisk):
            return found
        raise ConfigError(str(self.where), ["no enabled jail guards Asterisk", enabled, *self.problems])

    def left_out(self, chosen: Sequence[Jail]) -> tuple[Jail, ...]:
        """Return the jails that are not chosen, but read a log of Asterisk.

        Such a log is in a folder named ``asterisk``, or a chosen jail reads it.
        """
        known = {path for jail in chosen for path in jail.paths}
        return tuple(
            jail
            for jail in self.jails
            if jail not in chosen
            and any(path in known or Path(path).parent.name == "asterisk" for path in jail.paths)
        )


def read_configuration(folder: Path) -> Configuration:
    """Return the configuration in ``folder``, as the installed fail2ban understands it.

    Raise ConfigError if fail2ban is not installed, or if it cannot use the configuration at all.
    """
    if not folder.is_dir():
        raise ConfigError(str(folder), ["is no folder; fix: give fail2ban's folder, such as /etc/fail2ban"])
    try:
        english = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
        done = run_program(CLIENT, "-c", str(folder), "-d", env=english)
    except FileNotFoundError:
        fix = f"fix: run this where fail2ban is installed, because its program {CLIENT} reads its files"
        raise ConfigError(str(folder), [f"fail2ban is not installed; {fix}"]) from None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(str(folder), [f"{CLIENT}: {printable(str(error))}"]) from None
    errors = _errors(done.stderr)
    if done.returncode:
        raise ConfigError(str(folder), [*errors, f"{CLIENT} -d failed with code {done.returncode}"])
    dump = _Dump()
    for line in done.stdout.decode("utf-8", "backslashreplace").split("\n"):
        dump.add(line)
    jails = tuple(jail.complete() for jail in dump.jails.values())
    return Configuration(folder, jails, dump.database, (*errors, *dump.problems[:_MAX_PROBLEMS]))


def _errors(output: bytes) -> list[str]:
    """Return the errors in the log of fail2ban's client, a text for each; warnings do not count."""
    lines = output.decode("utf-8", "backslashreplace").split("\n")
    found = [printable(line.partition(" ERROR ")[2].strip()) for line in lines if " ERROR " in line]
    return [line for line in found if line][:_MAX_PROBLEMS]


@define
class _Draft:
    """A jail of fail2ban whose commands are still being read."""

    name: str
    options: dict[str, str] = field(factory=dict)
    lists: dict[str, list[str]] = field(factory=dict)
    port: str = ""

    def set(self, option: str, values: Sequence[Any]) -> None:
        """Apply a command of fail2ban to the jail: set an option to a value, or add values to a list."""
        match option, values:
            case "action", [_, [*settings]]:
                self.port = next((str(value) for key, value in settings if key == "port"), self.port)
            case "addlogpath", [path, *_]:
                self.lists.setdefault(option, []).append(str(path))
            case _, [[*several]]:
                self.lists.setdefault(option, []).extend(map(str, several))
            case _, [*several] if option.startswith("add") or option == "prefregex":
                self.lists.setdefault(option, []).extend(map(str, several))
            case _, [value] if value is not None:
                self.options[option] = str(value)

    def complete(self) -> Jail:
        """Return the jail as the commands so far describe it."""

        def values(*options: str) -> tuple[str, ...]:
            return tuple(value for option in options for value in self.lists.get(option, ()))

        return Jail(
            name=self.name,
            options=self.options,
            ignored=values("addignoreip"),
            paths=values("addlogpath"),
            patterns=values("prefregex", "addfailregex"),
            actions=values("addaction"),
            port=self.port,
        )


@define
class _Dump:
    """The jails, the path of the database and the problems in the commands that fail2ban's client printed."""

    jails: dict[str, _Draft] = field(factory=dict)
    database: str = DATABASE
    problems: list[str] = field(factory=list)

    def add(self, line: str) -> None:
        """Read one line that fail2ban's client printed. A line that is not a command becomes a problem."""
        if not line.strip():
            return
        try:
            command = ast.literal_eval(line)
            self._add(command)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            self.problems.append(f"{CLIENT} printed what ringfence does not know: {printable(line[:200])}")

    def _add(self, command: Any) -> None:  # noqa: ANN401 - any value that fail2ban prints
        match command:
            case ["config-error", text]:
                self.problems.append(printable(str(text)))
            case ["set", "dbfile", path]:
                self.database = str(path)
            case ["add", str(name), backend]:
                self.jails[name] = _Draft(name, {"backend": str(backend)})
            case ["set" | "multi-set", str(name), str(option), *values] if name in self.jails:
                self.jails[name].set(option, values)
