"""fail2ban's jails, read from its files.

Files are read in fail2ban's order: ``jail.conf``, ``jail.d/*.conf``, ``jail.local``, ``jail.d/*.local``. The
files in the ``[INCLUDES]`` of a file are read before and after it. The ``.local`` of an included file is read
after that file. Later options override earlier ones, and a jail's own option overrides ``[DEFAULT]``.
References are ``%(option)s``, ``%(section/option)s``, ``%(known/option)s`` (the value before it was
overridden) and ``%(__name__)s``.

If an option occurs twice in a file, the last one counts, as in fail2ban with Python 2. With Python 3 fail2ban
refuses such a file. An unreadable or partly readable file is reported and does not stop the import.
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
"""Maximum depth of references and includes, as in configparser."""
MAX_NAMED = 20
"""The maximum number of disabled jails that an error message names; Debian has 90."""

_DEFAULT = "DEFAULT"
_INCLUDES = "INCLUDES"
_REFERENCE = re.compile(r"%(?:%|\(([^()]+)\)s)")


@frozen
class Jail:
    """A jail with its options. References in their values are resolved.

    ``faults`` has an error for each option whose references could not be resolved.
    """

    name: str
    options: Mapping[str, str]
    faults: Mapping[str, str]

    @property
    def enabled(self) -> bool:
        """Whether fail2ban runs this jail."""
        return self.options.get("enabled", "").lower() in {"1", "on", "true", "yes"}

    @property
    def guards_asterisk(self) -> bool:
        """Whether the jail guards Asterisk.

        It does if its name is ``asterisk``, or if the name of its filter begins with that word (such as
        ``asterisk-security``).
        """
        kind = self.options.get("filter", "").partition("[")[0].strip()
        return self.name.lower() == "asterisk" or kind.lower().startswith("asterisk")


@frozen
class Configuration:
    """fail2ban's configuration: its jails in order, and the path of its database.

    ``where`` is the folder or file that was read. ``problems`` has a line for each error in it.
    """

    where: Path
    jails: tuple[Jail, ...]
    database: str
    problems: tuple[str, ...]

    def chosen(self, names: Sequence[str]) -> tuple[Jail, ...]:
        """Return the jails with these names; without names, all enabled jails that guard Asterisk.

        Raise ConfigError if a name is unknown, or if no enabled jail guards Asterisk. The error lists the
        existing jails.
        """
        by_name = {jail.name: jail for jail in self.jails}
        if unknown := [name for name in names if name not in by_name]:
            problems = [f"there is no jail {printable(name)}" for name in unknown]
            raise ConfigError(str(self.where), [*problems, self._others(), *self.problems])
        if names:
            return tuple(by_name[name] for name in dict.fromkeys(names))
        guards = [jail for jail in self.jails if jail.guards_asterisk]
        if found := tuple(jail for jail in guards if jail.enabled):
            return found
        problems = ["no enabled jail guards Asterisk (by its name, or a filter asterisk…)"]
        problems += [
            f"jail {printable(jail.name)} would, but is disabled; to import it anyway: "
            f"--jail {printable(jail.name)}"
            for jail in guards
        ]
        raise ConfigError(str(self.where), [*problems, self._others(), *self.problems])

    def _others(self) -> str:
        enabled = [printable(jail.name) for jail in self.jails if jail.enabled]
        disabled = [printable(jail.name) for jail in self.jails if not jail.enabled]
        rest = ", ".join(disabled) if len(disabled) <= MAX_NAMED else f"{len(disabled)} others"
        return f"enabled jails: {', '.join(enabled) or 'none'}; disabled: {rest or 'none'}"


def read_configuration(where: Path) -> Configuration:
    """Read fail2ban's folder, or one file with jails.

    Raise ConfigError if ``where`` does not exist or may not be accessed, or if everything was read and no
    jail was found. An error in a single file is returned in ``problems``.
    """
    try:
        whole = stat.S_ISDIR(where.stat().st_mode)
    except OSError as error:
        raise ConfigError(
            str(where), [f"cannot be read: {error.strerror}; fix: give fail2ban's folder"]
        ) from None
    folder = where if whole else where.parent
    reader = _Reader()
    jails = reader.read(reader.layers(folder, "jail") if whole else [where])
    jails.defaults |= {"fail2ban_confpath": str(folder), "fail2ban_version": ""}  # fail2ban adds both too
    if not jails.sections and not reader.problems:
        raise ConfigError(
            str(where), ["contains no jail: neither jail.conf nor jail.local, nor one in jail.d"]
        )
    main = reader.read(reader.layers(folder, "fail2ban"))
    return Configuration(
        where=where,
        jails=tuple(jails.jail(name) for name in jails.sections if name not in {_INCLUDES, "Definition"}),
        database=main.jail("Definition").options.get("dbfile", DATABASE),
        problems=tuple(reader.problems),
    )


@define
class _Merged:
    """The merged content of files. References are not resolved yet.

    ``known`` has, by section, the values that a later file has overridden. References ``%(known/option)s``
    use them.
    """

    defaults: dict[str, str] = field(factory=dict)
    sections: dict[str, dict[str, str]] = field(factory=dict)
    known: dict[str, dict[str, str]] = field(factory=dict)

    def add(self, parser: RawConfigParser) -> None:
        """Add a file. Its options override those of the files before it."""
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
        """Return a section as a jail, with the options of ``[DEFAULT]`` and with resolved references."""
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
            raise ValueError("its references form a loop")
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
        group, slash, name = reference.partition("/")
        if not slash:
            tables = [self.sections.get(section, {})]
        elif group.lower() == "known":
            tables = [self.known.get(section, {})]
        else:
            tables = [{}] if group.lower() == "default" else [self.sections.get(group, {})]
        option = (name or group).lower()
        for table in (*tables, self.defaults):
            if option in table:
                return table[option]
        raise ValueError(f"refers to %({printable(reference)})s, which does not exist")


class _Reader:
    """Reads fail2ban's configuration files with the files that they include.

    ``problems`` has a text for each file or folder that cannot be read, or only in part.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def layers(self, folder: Path, name: str) -> list[Path]:
        """Return the existing files for ``name`` (``jail`` or ``fail2ban``), in the order of fail2ban."""
        more = self._names(folder / f"{name}.d")
        found = []
        for suffix in (".conf", ".local"):
            found += [folder / f"{name}{suffix}", *(path for path in more if path.suffix == suffix)]
        return [path for path in found if _exists(path)]

    def read(self, paths: Iterable[Path]) -> _Merged:
        """Read and merge files and their includes."""
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
            return []  # fail2ban too ignores a loop of includes
        if len(above) > MAX_DEPTH:
            self.problems.append(f"{path}: is included too deeply; left out")
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
        """Return an included file and its ``.local``, if they exist; both are optional."""
        local = Path(os.path.splitext(path)[0] + ".local")  # noqa: PTH122 - ".." has no suffix to replace
        return [each for each in dict.fromkeys([path, local]) if _exists(each)]

    def _parsed(self, path: Path) -> RawConfigParser | None:
        # Treat [DEFAULT] as an ordinary section: it must be merged over all files before it applies to the
        # other sections.
        parser = RawConfigParser(strict=False, inline_comment_prefixes=(";",), default_section="")
        try:
            parser.read_string(_text(path), path.name)
        except OSError as error:
            self.problems.append(f"{path}: cannot be read: {error.strerror or error}")
            return None
        except Error as error:
            first = printable(str(error).replace("\n", " "))[:300]
            self.problems.append(f"{path}: has an error, and only its valid parts count: {first}")
        return parser


def _exists(path: Path) -> bool:
    """Whether a path exists.

    Return True if that cannot be checked. Then reading the file reports the error.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _text(path: Path) -> str:
    """Return the text of a file. Invalid UTF-8, which is usually in a comment, is escaped.

    Raise OSError if the file cannot be read, is not a regular file, or is longer than ``MAX_FILE``.
    """
    if not path.is_file():
        raise OSError("it is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(f"it is longer than {MAX_FILE} bytes")
    return data.decode("utf-8-sig", "backslashreplace")
