"""Asterisk's own configuration files, read as Asterisk reads them (``main/config.c``), and never changed.

The parser knows sections with their options; templates, ``[name](!)`` and ``[name](template)``; additions to
sections, ``[name](+)``; ``#include`` and ``#tryinclude``, also with wildcards; comments to the end of a line,
and between ``;--`` and ``--;``. It ignores ``#exec``, because that runs a program.

The files contain the passwords of every phone. Only requested options are kept: others are dropped while
reading, so no message can contain them. A caller that needs passwords requests them separately, and gets them
masked.

The parser is tolerant: a line that is neither a section nor an option is skipped. The result lists the files
that could not be read, because these may have other options. The number and the size of files are limited.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field, frozen

from ringfence.host.owned_files import matching, names_in, opened_parent, read_file
from ringfence.model import Secret, printable

FOLDER = Path("/etc/asterisk")
MOST_FILES = 500
MOST_BYTES = 8 * 1024 * 1024
DEEPEST = 10
"""The depth to which files may include each other (``MAX_INCLUDE_LEVEL``)."""

_BEGIN, _END = ";--", "--;"
_MARK = re.compile(r"\\;|;--(?!-)|--;|;")

Wanted = Callable[[str, str], bool]
"""A function that returns whether to keep an option.

It takes the name of the section and the name of the option, both in lower case.
"""


@frozen
class Section:
    """A section: its name, and the values of the requested options, in order; secrets are separate."""

    name: str
    options: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, Secret], ...] = ()

    def values(self, option: str) -> list[str]:
        """Return every value of an option. The name of the option must be in lower case."""
        return [value for name, value in self.options if name.lower() == option]

    def last(self, option: str, default: str = "") -> str:
        """Return the last value of an option, which Asterisk uses for most options.

        Return ``default`` if the option has no value here. The name of the option must be in lower case.
        """
        return (self.values(option) or [default])[-1]

    def secret(self, option: str) -> Secret | None:
        """Return the last value of a secret option; None if there is no value, or an empty one."""
        found = [value for name, value in self.secrets if name.lower() == option]
        return found[-1] if found and found[-1].reveal() else None


@frozen
class Conf:
    """The sections of a file and of its includes. ``unread`` are the files that could not be read in full."""

    sections: tuple[Section, ...] = ()
    unread: tuple[Path, ...] = ()

    def section(self, name: str) -> Section:
        """Return all sections of this name as one section. ``name`` must be in lower case."""
        found = [section for section in self.sections if section.name.lower() == name]
        return Section(
            name,
            tuple(option for section in found for option in section.options),
            tuple(secret for section in found for secret in section.secrets),
        )


def read_conf(path: Path, wanted: Wanted, secret: Wanted = lambda _section, _name: False) -> Conf | None:
    """Read a file and its includes; return None if it does not exist.

    A relative path in an include is relative to the folder of ``path``. ``wanted`` selects the options to
    keep, and ``secret`` the options that are passwords.
    """
    try:
        with opened_parent(path) as (folder, name):
            folder.state(name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return Conf(unread=(path,))
    reader = _Reader(path.parent, wanted, secret)
    reader.read(path, 0)
    sections = tuple(
        Section(section.name, tuple(section.options), _masked(section.secrets))
        for section in reader.sections
        if not section.template
    )
    return Conf(sections, tuple(dict.fromkeys(reader.unread)))


def is_true(value: str) -> bool:
    """Whether Asterisk treats a value as true (``ast_true``)."""
    return value.strip().lower() in {"yes", "true", "y", "t", "1", "on"}


def _masked(secrets: list[tuple[str, str]]) -> tuple[tuple[str, Secret], ...]:
    return tuple((name, Secret(value)) for name, value in secrets)


@define
class _Section:
    name: str
    template: bool
    options: list[tuple[str, str]] = field(factory=list)
    secrets: list[tuple[str, str]] = field(factory=list, repr=False)

    def fits(self, condition: str) -> bool:
        """Whether this section matches the condition of an addition, ``[name](+type=endpoint&...)``.

        Only options that are kept and not secret can match.
        """
        wanted = [part.partition("=") for part in condition.split("&") if part]
        own = {name.lower(): value.lower() for name, value in self.options}
        return all(own.get(name.strip().lower()) == value.strip().lower() for name, _, value in wanted)


class _Reader:
    """Reads a file and its includes, and collects their sections."""

    def __init__(self, folder: Path, wanted: Wanted, secret: Wanted) -> None:
        self.sections: list[_Section] = []
        self.unread: list[Path] = []
        self._folder = folder
        self._wanted = wanted
        self._secret = secret
        self._files = 0
        self._here: _Section | None = None

    def read(self, path: Path, depth: int) -> None:
        """Read one file. Its lines count as if they replaced the ``#include`` that names the file."""
        self._files += 1
        if self._files > MOST_FILES or depth > DEEPEST:
            self.unread.append(path)
            return
        try:
            data, _ = read_file(path, MOST_BYTES + 1)
        except OSError:
            self.unread.append(path)
            return
        if len(data) > MOST_BYTES:
            self.unread.append(path)
        for _, line in uncommented(data[:MOST_BYTES].decode("utf-8", "replace")):
            if line.startswith("["):
                self._begin(line)
            elif line.startswith("#"):
                self._include(line, depth)
            else:
                self._option(line)

    def _begin(self, line: str) -> None:
        name, closed, rest = line[1:].partition("]")
        if not closed:
            return
        name = name.strip()
        marks = rest.strip()
        given = [mark.strip() for mark in marks[1:].partition(")")[0].split(",")] if marks[:1] == "(" else []
        conditions = [mark[1:] for mark in given if mark[:1] == "+"]
        same = (section for section in self.sections if conditions and section.name == name)
        known = next((section for section in same if section.fits(conditions[0])), None)
        if known is not None:
            self._here = known
        else:
            self._here = _Section(name, "!" in given)
            self.sections.append(self._here)
        for mark in given:
            self._inherit(mark)

    def _inherit(self, mark: str) -> None:
        """Copy the options of the template ``mark`` into the present section, before its own options."""
        source = next((section for section in self.sections if section.name == mark), None)
        if source is not None and self._here is not None and source is not self._here:
            self._here.options += source.options
            self._here.secrets += source.secrets

    def _include(self, line: str, depth: int) -> None:
        command, name = directive_of(line)
        if command not in {"include", "tryinclude"} or not name:
            return
        pattern = str(self._folder / name)
        found = matching(Path(pattern))
        here = self._here
        for path in found:
            self.read(path, depth + 1)
            self._here = here  # later lines belong to the section that contains the #include
        if not found and (command == "include" or not _is_open(Path(pattern).parent)):
            self.unread.append(Path(pattern))

    def _option(self, line: str) -> None:
        name, equals, value = line.partition("=")
        more = name.endswith("+")
        name = name.removesuffix("+").strip()
        here = self._here
        if not equals or here is None:
            return
        asked = here.name.lower(), name.lower()
        kept = here.secrets if self._secret(*asked) else here.options if self._wanted(*asked) else None
        if kept is None:
            return
        value = value.removeprefix(">").strip()
        places = [index for index, option in enumerate(kept) if option[0] == name] if more else []
        if places:
            kept[places[-1]] = (name, kept[places[-1]][1] + value)
        else:
            kept.append((name, value))


def directive_of(line: str) -> tuple[str, str]:
    """Return the command, in lower case, and the file of a line such as ``#include "manager.d/*.conf"``."""
    command, _, rest = line[1:].partition(" ")
    if "\t" in command:
        command, _, rest = line[1:].partition("\t")
    return command.lower(), rest.strip().strip('"').removeprefix("<").removesuffix(">").strip()


def _is_open(folder: Path) -> bool:
    """Whether this process can list a folder. True too if the folder does not exist: then it has no files."""
    try:
        names_in(folder)
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def uncommented(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number (from 1), without comments and surrounding blanks.

    Lines that are empty then are left out.
    """
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        kept, at = "", 0
        for mark in _MARK.finditer(line):
            if mark[0] == "\\;":
                kept += "" if depth else line[at : mark.start()] + ";"
            elif mark[0] == _BEGIN:
                kept += "" if depth else line[at : mark.start()]
                depth += 1
            elif not depth:  # a comment to the end of the line
                kept, at = kept + line[at : mark.end() - 1], len(line)
                break
            elif mark[0] == _END:
                depth -= 1
            at = mark.end()
        kept += "" if depth else line[at:]
        if kept := kept.strip():
            yield number, kept


# -- finds the errors for which Asterisk refuses a whole configuration file (``main/config.c``)
#
# :mod:`ringfence.host.asterisk_conf` ignores these errors, and reads the rest of the file. But a program
# that changes a file must know first whether Asterisk accepts it.


def faults_of(path: Path) -> list[str]:
    """Return each error of a file and its includes, as ``FILE:LINE: what is wrong``; [] if it is valid."""
    checker = _Checker(path.parent)
    checker.check(path, f"{path}", 0)
    return checker.faults


class _Checker:
    """Checks a file and its includes, and collects the errors.

    A template, and a section that is added to, must be defined earlier. So the names of all sections so far
    are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.faults: list[str] = []
        self._folder = folder
        self._sections: set[str] = set()
        self._begun = False
        self._files = 0

    def check(self, path: Path, named: str, depth: int) -> None:
        """Check one file. If it cannot be read, the message begins with ``named``.

        ``named`` is the line that includes the file (``FILE:LINE``), or the file itself.
        """
        self._files += 1
        if self._files > MOST_FILES or depth > DEEPEST:
            self.faults.append(f"{named}: the files include each other too deeply")
            return
        try:
            data, _ = read_file(path, MOST_BYTES)
        except OSError as error:
            self.faults.append(f"{named}: {path} cannot be read: {error.strerror}")
            return
        for number, line in uncommented(data.decode("utf-8", "replace")):
            fault = self._line(line, f"{path}:{number}", depth)
            if fault:
                self.faults.append(f"{path}:{number}: {fault}")

    def _line(self, line: str, where: str, depth: int) -> str:
        if line.startswith("["):
            return self._section(line)
        if line.startswith("#"):
            return self._include(line, where, depth)
        return "" if self._begun else "an option stands before the first section"

    def _section(self, line: str) -> str:
        name, closed, rest = line[1:].partition("]")
        if not closed:
            return "a section has no closing ]"
        marks, rest = "", rest.strip()
        if rest.startswith("("):
            marks, ended, _ = rest[1:].partition(")")
            if not ended:
                return "a ( has no closing )"
        name = name.strip()
        for mark in filter(None, (one.strip() for one in marks.split(","))):
            wanted = name if mark.startswith("+") else mark
            if mark != "!" and wanted not in self._sections:
                return f"there is no section {printable(wanted)} before this line"
        self._sections.add(name)
        self._begun = True
        return ""

    def _include(self, line: str, where: str, depth: int) -> str:
        command, name = directive_of(line)
        if command not in {"include", "tryinclude"} or not name:
            return ""
        pattern = str(self._folder / name)
        found = matching(Path(pattern))
        for path in found:
            self.check(path, where, depth + 1)
        if not found and command == "include":
            lost = "does not exist" if _is_searchable(Path(pattern)) else "cannot be searched"
            return f"{printable(name)} is included and {lost}"
        return ""


def _is_searchable(path: Path) -> bool:
    """Whether this process may search the folder of a file. True too if the folder does not exist."""
    try:
        with opened_parent(path) as (folder, name):
            folder.state(name)
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return True
