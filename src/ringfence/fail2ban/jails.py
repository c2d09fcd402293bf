"""fail2ban's jails, as its own files tell them.

Read as fail2ban reads: ``jail.conf``, ``jail.d/*.conf``, ``jail.local``, ``jail.d/*.local``, each with the
files that its ``[INCLUDES]`` names before and after it, and with an included file's ``.local`` after that.
What comes later wins, option by option; a jail's own option wins over ``[DEFAULT]``. References are
``%(option)s``, ``%(section/option)s``, ``%(known/option)s`` (what the option was before it was overridden)
and ``%(__name__)s``.

Of an option twice in one file the last one counts, as it did with Python 2; with Python 3 fail2ban does not
start on such a file. A file that cannot be read, or not whole, is told and stops nobody.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from configparser import Error, RawConfigParser
from pathlib import Path

from attrs import define, field, frozen

from ringfence.errors import ConfigError
from ringfence.model import printable

DATABASE = "/var/lib/fail2ban/fail2ban.sqlite3"
MAX_FILE = 1024 * 1024
MAX_VALUE = 64 * 1024
MAX_DEPTH = 10
"""How deep references and includes may lead, as in configparser."""
MOST_NAMED = 20
"""So many disabled jails are named; Debian has 90."""

_DEFAULT = "DEFAULT"
_INCLUDES = "INCLUDES"
_REFERENCE = re.compile(r"%(?:%|\(([^()]+)\)s)")


@frozen
class Jail:
    """A jail and its options with every reference resolved.

    ``faults`` has what is wrong with the options that could not be.
    """

    name: str
    options: Mapping[str, str]
    faults: Mapping[str, str]

    @property
    def enabled(self) -> bool:
        """Whether fail2ban runs it."""
        return self.options.get("enabled", "").lower() in {"1", "on", "true", "yes"}

    @property
    def guards_asterisk(self) -> bool:
        """Whether it reads Asterisk's log: by its name, or by its filter's (``asterisk-security``, say)."""
        kind = self.options.get("filter", "").partition("[")[0].strip()
        return self.name.lower() == "asterisk" or kind.lower().startswith("asterisk")


@frozen
class Configuration:
    """What was read: the jails in their order, where fail2ban keeps its database, and what went wrong."""

    where: Path
    jails: tuple[Jail, ...]
    database: str
    problems: tuple[str, ...]

    def chosen(self, names: Sequence[str]) -> tuple[Jail, ...]:
        """Give the jails of these names, or those that guard Asterisk and are enabled.

        Raises ConfigError where there are none, with those that there are.
        """
        there = {jail.name: jail for jail in self.jails}
        if unknown := [name for name in names if name not in there]:
            problems = [f"there is no jail {printable(name)}" for name in unknown]
            raise ConfigError(str(self.where), [*problems, self._others(), *self.problems])
        if names:
            return tuple(there[name] for name in dict.fromkeys(names))
        guards = [jail for jail in self.jails if jail.guards_asterisk]
        if found := tuple(jail for jail in guards if jail.enabled):
            return found
        problems = ["no jail that is enabled guards Asterisk (none has its name or a filter asterisk…)"]
        problems += [
            f"jail {printable(jail.name)} would, and is disabled; to import it all the same: "
            f"--jail {printable(jail.name)}"
            for jail in guards
        ]
        raise ConfigError(str(self.where), [*problems, self._others(), *self.problems])

    def _others(self) -> str:
        enabled = [printable(jail.name) for jail in self.jails if jail.enabled]
        disabled = [printable(jail.name) for jail in self.jails if not jail.enabled]
        rest = ", ".join(disabled) if len(disabled) <= MOST_NAMED else f"{len(disabled)} others"
        return f"enabled jails: {', '.join(enabled) or 'none'}; disabled: {rest or 'none'}"


def read_configuration(where: Path) -> Configuration:
    """Read fail2ban's folder, or a single file with jails. Raises ConfigError where there is none."""
    try:
        whole = stat.S_ISDIR(where.stat().st_mode)
    except OSError as error:
        raise ConfigError(str(where), [f"cannot be read: {error.strerror}; name fail2ban's folder"]) from None
    folder = where if whole else where.parent
    reader = _Reader()
    jails = reader.read(reader.layers(folder, "jail") if whole else [where])
    jails.defaults |= {"fail2ban_confpath": str(folder), "fail2ban_version": ""}  # as fail2ban adds them
    if not jails.sections and not reader.problems:
        raise ConfigError(str(where), ["holds no jail: neither jail.conf nor jail.local, nor one in jail.d"])
    main = reader.read(reader.layers(folder, "fail2ban"))
    return Configuration(
        where=where,
        jails=tuple(jails.jail(name) for name in jails.sections if name not in {_INCLUDES, "Definition"}),
        database=main.jail("Definition").options.get("dbfile", DATABASE),
        problems=tuple(reader.problems),
    )


@define
class _Merged:
    """Files on top of each other, references still in them."""

    defaults: dict[str, str] = field(factory=dict)
    sections: dict[str, dict[str, str]] = field(factory=dict)
    known: dict[str, dict[str, str]] = field(factory=dict)

    def add(self, parser: RawConfigParser) -> None:
        """Put a file on top."""
        for name in parser.sections():
            own = dict(parser.items(name))
            if name == _DEFAULT:
                self.defaults.update(own)
                continue
            before = self.sections.setdefault(name, {})
            overridden = {option: value for option, value in before.items() if option in own}
            self.known.setdefault(name, {}).update(overridden)
            before.update(own)

    def jail(self, name: str) -> Jail:
        """Resolve what a section says, and what it leaves to the defaults."""
        options: dict[str, str] = {}
        faults: dict[str, str] = {}
        own = self.sections.get(name, {})
        for option in {**self.defaults, **own}:
            raw = own.get(option, self.defaults.get(option, ""))
            try:
                options[option] = self._resolved(raw, name, 0)
            except ValueError as error:
                faults[option] = str(error)
        return Jail(name, options, faults)

    def _resolved(self, raw: str, section: str, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise ValueError("its references go round in a circle")
        parts, end = [], 0
        for match in _REFERENCE.finditer(raw):
            found = (
                "%" if match[1] is None else self._resolved(self._raw(match[1], section), section, depth + 1)
            )
            parts += [raw[end : match.start()], found]
            end = match.end()
        value = "".join([*parts, raw[end:]])
        if len(value) > MAX_VALUE:
            raise ValueError(f"is longer than {MAX_VALUE} characters")
        return value

    def _raw(self, reference: str, section: str) -> str:
        if reference == "__name__":
            return section.replace("%", "%%")
        place, slash, name = reference.partition("/")
        if not slash:
            tables = [self.sections.get(section, {})]
        elif place.lower() == "known":
            tables = [self.known.get(section, {})]
        else:
            tables = [{}] if place.lower() == "default" else [self.sections.get(place, {})]
        option = (name or place).lower()
        for table in (*tables, self.defaults):
            if option in table:
                return table[option]
        raise ValueError(f"refers to %({printable(reference)})s, which is nowhere")


class _Reader:
    """Reads files, and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def layers(self, folder: Path, name: str) -> list[Path]:
        """Name the files there are of a kind (``jail``, ``fail2ban``), in fail2ban's order."""
        more = self._names(folder / f"{name}.d")
        found = []
        for suffix in (".conf", ".local"):
            found += [folder / f"{name}{suffix}", *(path for path in more if path.suffix == suffix)]
        return [path for path in found if _is_there(path)]

    def read(self, paths: Iterable[Path]) -> _Merged:
        """Read files with what they include, one on top of the other."""
        merged = _Merged()
        for path in paths:
            for parser in self._with_includes(path, ()):
                merged.add(parser)
        return merged

    def _names(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208 - Path.iterdir is lazy
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(f"{folder}: cannot be read: {error.strerror}")
            return []

    def _with_includes(self, path: Path, above: tuple[Path, ...]) -> list[RawConfigParser]:
        if path in above:
            return []  # as fail2ban does with a circle
        if len(above) > MAX_DEPTH:
            self.problems.append(f"{path}: is included too deep; left out")
            return []
        parser = self._parsed(path)
        if parser is None:
            return []
        before, after = (
            [
                found
                for line in parser.get(_INCLUDES, option, fallback="").split("\n")
                if line.strip()
                for included in self._with_local(path.parent / line.strip())
                for found in self._with_includes(included, (*above, path))
            ]
            for option in ("before", "after")
        )
        return [*before, parser, *after]

    @staticmethod
    def _with_local(path: Path) -> list[Path]:
        """Give an included file and its ``.local``, as far as they are there: neither has to be."""
        local = Path(os.path.splitext(path)[0] + ".local")  # noqa: PTH122 - ".." has no suffix to replace
        return [each for each in dict.fromkeys([path, local]) if _is_there(each)]

    def _parsed(self, path: Path) -> RawConfigParser | None:
        # [DEFAULT] as a section like any other: it is merged before it counts for the others.
        parser = RawConfigParser(strict=False, inline_comment_prefixes=(";",), default_section="")
        try:
            parser.read_string(_text(path), path.name)
        except OSError as error:
            self.problems.append(f"{path}: cannot be read: {error.strerror or error}")
            return None
        except Error as error:
            first = printable(str(error).replace("\n", " "))[:300]
            self.problems.append(f"{path}: has a fault, and only what is right of it counts: {first}")
        return parser


def _is_there(path: Path) -> bool:
    """Say whether there is something to read; what may not even be looked at is told when it is read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _text(path: Path) -> str:
    """Read a file that may hold other bytes than UTF-8, in a comment mostly."""
    if not path.is_file():
        raise OSError("it is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(f"it is longer than {MAX_FILE} bytes")
    return data.decode("utf-8-sig", "backslashreplace")
