"""The reader of Asterisk's configuration files, branch by branch as in ``main/config.c``.

Asterisk 16 and 22 load the same small files in the tests, and must agree with this module. Some of their
rules surprise:

- A byte order mark counts as nothing, at the very beginning of a main file, and of the first file of an
  ``#include``.
- A parenthesis belongs to a section only if it follows ``]`` at once: ``[phones] (!)`` is no template.
- An error ends the file that has it. Asterisk refuses all files only if the error is in the main file.
- After ``#include`` the including file goes on with its own section. But an included file begins with the
  section that was *created* last.
- ``--;`` without ``;--`` begins a comment that ends nowhere.

Everything is bytes here, as in Asterisk. Files of other users are bounded in number, in size, and in the work
and the time that they cause.
"""

import errno
import os
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from time import thread_time

from attrs import Factory, define, field, frozen

from ringfence.file_rights import FileUser
from ringfence.host.conf_lines import (
    BLANKS,
    FIRST_HIGH,
    MARK,
    Comments,
    RefusedLineError,
    directive_of,
    expanded,
    for_fnmatch,
    read_lines,
)
from ringfence.host.owned_files import (
    exists,
    folder_user,
    is_same_folder,
    leads_out,
    matching,
    opened_folder,
    read_file,
)
from ringfence.values.text import printable

MOST_FILES = 500
MOST_BYTES = 8 * 1024 * 1024
"""The maximum size of a configuration file of Asterisk, in bytes."""
MOST_READ = 4 * MOST_BYTES
"""The maximum size of a configuration file of Asterisk with its includes, in bytes.

All options stay in memory until the end. A file counts each time that it is included.
"""
MOST_WORK = 3_000_000
"""The maximum work, in units, for a configuration file of Asterisk with its includes.

A line and an inherited option are a unit each. An option needs two more, and a section eight more, because
both take memory. The look-up of an included file takes some hundreds. Twenty thousand phones with a template
need about two million units.
"""
_OPTION, _SECTION = 2, 8
_UNIT_SECONDS = 20e-6
"""The maximum CPU time for a unit of the maximum work, in seconds: a minute for ``MOST_WORK``.

A line or a look-up of a hostile file takes much longer than its units: a line with thousands of semicolons
in a comment, a condition with a long text, or a path of very many names. Only the time of this thread counts,
so no other program can make a file too large.
"""
DEEPEST = 10
"""The depth to which Asterisk's files may include each other (``MAX_INCLUDE_LEVEL``)."""

_LONGEST_NAME = 79
_PASSWORDS = (b"secret", b"passwd", b"password", b"md5_cred", b"password_digest")
"""The ends of the names of options that are passwords."""
_LONGEST_PATH = 255
_FOLDER = "/etc/asterisk"
_LONGEST_RELATIVE = _LONGEST_PATH - len(f"{_FOLDER}/")


@frozen
class Unread:
    """A part of Asterisk's files that is not known, and the reason.

    ``file`` is the name of the main file, such as ``pjsip.conf``. ``where`` is the path of the file, with the
    line if a line is the reason. ``closed``: this process may not read it.
    """

    file: str
    where: str
    why: str
    closed: bool = False

    @property
    def text(self) -> str:
        """Which part is not known, and why, as a text for people."""
        return f"{printable(self.where)}: {self.why}"


@define
class LoadedSection:
    """A section of Asterisk's files while they are read. ``template``: only other sections use it."""

    name: bytes
    template: bool = False
    options: list[tuple[bytes, bytes]] = field(factory=list, repr=False)


class _UnknownConditionError(Exception):
    """A condition in brackets after a section's name that Asterisk may know, and ringfence does not."""


class _TooMuchError(Exception):
    """Asterisk's files are too many or too large, or cause too much work."""


# -- the conditions of additions, ``[name](+type=endpoint&...)``

_PLAIN = re.compile(rb"(\^?)([A-Za-z0-9_/ ,:@.-]*)(\$?)")
"""The regular expressions in a section's condition that ringfence knows: text, ``.``, and anchors."""


@frozen
class _Condition:
    """One part of a section's condition: regular expressions for an option's name and for its value.

    Neither has a repetition, so no text takes long.
    """

    name: re.Pattern[bytes]
    value: re.Pattern[bytes]

    def fits(self, section: LoadedSection, spend: Callable[[int], None]) -> bool:
        """Whether some option of ``section`` matches both the name and the value.

        ``spend`` is called with the work for each option; it raises an error if that is too much.
        """
        for name, value in section.options:
            spend(1)
            if self.name.search(name) and self.value.search(value):
                return True
        return False


def _expression(text: bytes) -> re.Pattern[bytes]:
    known = _PLAIN.fullmatch(text)
    if known is None:
        raise _UnknownConditionError
    begins, wanted, ends = known.groups()
    plain = re.escape(wanted).replace(rb"\.", b".")
    return re.compile((rb"\A" if begins else b"") + plain + (rb"\Z" if ends else b""), re.DOTALL)


@frozen
class _Filter:
    """A condition in a line ``[name](+condition)`` that chooses a section: all ``parts`` must fit.

    ``templates``: templates may fit too. ``only``: only templates may fit. ``never``: nothing fits.
    """

    parts: tuple[_Condition, ...] = ()
    templates: bool = False
    only: bool = False
    never: bool = False

    def fits(self, section: LoadedSection, spend: Callable[[int], None]) -> bool:
        """Whether the condition fits ``section``; ``spend`` is as in :class:`_Condition`."""
        if self.never or (section.template and not self.templates) or (self.only and not section.template):
            return False
        return all(part.fits(section, spend) for part in self.parts)


_ANY = _Filter(templates=True)


def _filter(text: bytes) -> _Filter:
    """Parse a section's condition; raise _UnknownConditionError if ringfence does not know its form.

    An empty value is unknown too: Asterisk 16 refuses it, Asterisk 22 finds it in every value.
    """
    parts = []
    templates = only = never = False
    if b'"' in text or b"'" in text or b"\\" in text:
        raise _UnknownConditionError
    for one in text.split(b"&") if text else ():
        words = [word.strip(BLANKS) for word in one.split(b"=")]
        if len(words) == 1:
            never = True
        elif words[0] == b"TEMPLATES":
            templates, only = True, only or words[1].lower() == b"restrict"
            never = never or words[1].lower() not in {b"include", b"restrict"}
        else:
            if not words[1]:
                raise _UnknownConditionError
            parts.append(_Condition(_expression(words[0]), _expression(words[1])))
    return _Filter(tuple(parts), templates, only, never)


def _shown(text: bytes) -> str:
    return printable(text.decode("utf-8", "replace"))


def _is_password(line: bytes) -> bool:
    """Whether a line sets an option whose name is that of a password."""
    name, equals, _ = line.partition(b"=")
    return bool(equals) and name.rstrip(BLANKS).lower().endswith(_PASSWORDS)


# -- files with their includes


@define
class ConfReader:
    """Reads the file ``main`` of Asterisk's configuration with its includes, and collects the sections.

    For ``folder``, ``planned`` and ``named`` see :class:`~ringfence.host.asterisk_conf.AsteriskFiles`.
    ``as_asterisk``: this process has the rights of Asterisk. So a file that it cannot read, Asterisk cannot
    read. ``most_work`` is the maximum work, in units.

    After :meth:`read`, ``refused`` is the error for which Asterisk refuses all of these files, as
    ``FILE:LINE: why``; "" if it accepts them. ``with_passwords`` has the paths of the files with an option
    whose name is that of a password.
    """

    folder: Path
    main: Path
    planned: Mapping[Path, bytes] = Factory(dict)
    as_asterisk: bool = False
    named: Path | None = None
    most_work: int = MOST_WORK
    sections: list[LoadedSection] = field(factory=list)
    unread: list[Unread] = field(factory=list)
    with_passwords: list[Path] = field(factory=list)
    refused: str = ""
    _by_name: dict[bytes, list[LoadedSection]] = field(factory=dict)
    _current: LoadedSection | None = None
    _depth: int = 0
    _files: int = 0
    _bytes: int = 0
    _work: int = 0
    _began: float = 0.0  # CPU time of this thread, in seconds
    _runs_programs: bool | None = None
    _place: tuple[Path, bool] | None = None
    _settings: list[LoadedSection] | None = None  # of asterisk.conf
    _owner: FileUser | None = None  # of the folder, for root

    def read(self) -> None:
        """Read the main file with its includes into :attr:`sections`, :attr:`unread` and :attr:`refused`."""
        self._began = thread_time()
        self._owner = folder_user(self.folder)
        try:
            if not self._load([self.main], main=True):
                self.refused = self.unread[-1].text if self.unread else f"{self.main}: it does not exist"
        except _TooMuchError:
            self.refused = f"{self.main}: this file with its includes is too large for ringfence"
            self._lose(self.main, "this file with its includes is too large for ringfence")

    def _lose(self, where: Path | str, why: str, *, closed: bool = False) -> None:
        lost = Unread(self.main.name, str(where), why, closed)
        if lost not in self.unread:
            self.unread.append(lost)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > self.most_work or thread_time() - self._began > self.most_work * _UNIT_SECONDS:
            raise _TooMuchError

    def _load(self, paths: list[Path], *, main: bool = False) -> bool:
        """Load the files of one ``#include``; return whether Asterisk could load one of them.

        An error ends the loading. Only an error in the main file itself makes Asterisk refuse all files.
        """
        if self._depth > DEEPEST:
            return False
        self._depth += 1
        here, comments, count, number = self._current, Comments(), 0, 0
        for path in paths:
            data = self._content(path)
            if data is None:
                continue
            count += 1
            try:
                for at, text in read_lines(data.removeprefix(MARK) if count == 1 else data):
                    number = at
                    self._spend(1)
                    if line := comments.strip_from(text):
                        here = self._line(line, here)
                        if self.with_passwords[-1:] != [path] and _is_password(line):
                            self.with_passwords.append(path)
            except RefusedLineError as error:
                self._end(f"{path}:{number}", str(error), main=main)
                return True  # Asterisk does not count down its depth either
        self._depth -= 1
        return bool(count)

    def _end(self, where: str, why: str, *, main: bool) -> None:
        """Record an error at which Asterisk stops to read a file; ``main``: it is in the main file."""
        if main:
            self.refused = f"{where}: {why}"
            self._lose(where, f"{why}, so Asterisk refuses the file")
        else:
            self._lose(where, f"{why}, so Asterisk ignores the rest of this file")

    def _content(self, path: Path) -> bytes | None:
        """Return the content of a file; None if Asterisk ignores it, b"" if only this process cannot read it.

        Record the file as unread if its content is not known. Raise _TooMuchError if there are too many
        files, or if this one or all of them are too long.
        """
        self._files += 1
        if self._files > MOST_FILES:
            raise _TooMuchError
        self._spend(1)
        if path in self.planned:
            return self.planned[path]
        if self.leads_elsewhere(path):
            self._lose(path, f"it is a link, and {_ELSEWHERE}")
            return None if path == self.main else b""
        try:
            data, _ = read_file(path, MOST_BYTES + 1, self._user_of(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if path == self.main:
                self._lose(path, "it is not a file that can be read")
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None  # a FIFO or a device, which Asterisk ignores
            closed = isinstance(error, PermissionError)
            self._lose(path, f"it cannot be read: {error.strerror}", closed=closed)
            return None if self.as_asterisk else b""
        self._bytes += len(data)
        if len(data) > MOST_BYTES or self._bytes > MOST_READ:
            raise _TooMuchError
        return data

    def _line(self, line: bytes, here: LoadedSection | None) -> LoadedSection | None:
        """Process a line of the section ``here``; return the section to which the next line belongs.

        Raise RefusedLineError for a line at which Asterisk stops.
        """
        if line.startswith(b"["):
            return self._section(line)
        if line.startswith(b"#"):
            self._directive(line)
            return here
        if here is None:
            raise RefusedLineError("an option stands before the first section")
        self._option(line, here)
        return here

    def _section(self, line: bytes) -> LoadedSection:
        name, closed, rest = line[1:].partition(b"]")
        if not closed:
            raise RefusedLineError("a section has no closing ]")
        here = LoadedSection(name[:_LONGEST_NAME])
        new: LoadedSection | None = here
        marks: list[bytes] = []
        if rest.startswith(b"("):
            given, ended, _ = rest[1:].partition(b")")
            if not ended:
                raise RefusedLineError("a ( has no closing )")
            marks = given.split(b",")
        for mark in marks:
            if mark == b"!":
                here.template = True
            elif mark.startswith(b"+"):
                here = self._added_to(name, mark[1:])
                if new is not None:
                    here.template |= new.template
                    here.options += new.options
                    self._current, new = here, None
            else:
                base = self._found(mark, _ANY, mark)
                if base is here:
                    raise RefusedLineError("a section inherits from itself, which Asterisk does without end")
                self._spend(1 + len(base.options))
                here.options += base.options
        if new is not None:
            self._spend(_SECTION)
            self.sections.append(new)
            self._by_name.setdefault(new.name.lower(), []).append(new)
            self._current = new
        return here

    def _added_to(self, name: bytes, condition: bytes) -> LoadedSection:
        """Return the section to which ``[name](+condition)`` adds.

        If ringfence does not know the condition, record the section as unread, and return a new one. Raise
        RefusedLineError if no section fits.
        """
        try:
            return self._found(name, _filter(condition), name)
        except _UnknownConditionError:
            unknown = f"[{_shown(name)}](+{_shown(condition)})"
            self._lose(self.main, f"ringfence does not know the condition {unknown}")
        new = LoadedSection(name[:_LONGEST_NAME])
        self.sections.append(new)
        return new

    def _found(self, name: bytes, wanted: _Filter, shown: bytes) -> LoadedSection:
        """Return the first section named ``name`` ("" for any) that fits the condition ``wanted``.

        Raise RefusedLineError if there is none; its text names the section as ``shown``.
        """
        for section in self._by_name.get(name.lower(), ()) if name else self.sections:
            self._spend(1)
            if wanted.fits(section, self._spend):
                return section
        raise RefusedLineError(f"there is no section {_shown(shown) or '(without a name)'} before this line")

    def _option(self, line: bytes, here: LoadedSection) -> None:
        escaped = line.startswith(b"\\")
        if escaped:
            line = line[1:]
            if not line or not ord(" ") < line[0] < FIRST_HIGH:
                raise RefusedLineError("a backslash stands before a character that it cannot escape")
        at = line.find(b"=", escaped)
        if at < 0:
            return  # Asterisk ignores the line, too
        more = at > escaped and line[at - 1 : at] == b"+"
        name, value = line[: at - more].strip(BLANKS), line[at + 1 :]
        if more and self._appended(here, name, value):
            return
        if not more:
            value = value.removeprefix(b">")
        if name:
            self._spend(_OPTION)
            here.options.append((name, value.strip(BLANKS)))

    def _appended(self, here: LoadedSection, name: bytes, value: bytes) -> bool:
        """Append ``value`` to the option's last value; return False if the section does not have the option.

        Asterisk then replaces the *first* option of this name with the same value, or with any value if the
        value was empty (``ast_variable_update``). Asterisk compares both without case.
        """
        self._spend(1 + len(here.options))
        old = next((one for one in reversed(here.options) if one[0] == name), None)
        if old is None:
            return False
        whole = (old[1] + value).strip(BLANKS)
        self._spend(len(whole) // 100)
        for place, (known, present) in enumerate(here.options):
            if known.lower() == name.lower() and (not old[1] or present.lower() == old[1].lower()):
                here.options[place] = (name, whole)
                break
        return True

    def _directive(self, line: bytes) -> None:
        command, name = directive_of(line)
        if command == b"exec" and name and self._is_executing():
            self._lose(self.main, "it includes what a program prints (#exec), which ringfence does not run")
        if command not in {b"include", b"tryinclude"} or not line[1 + len(command) :].strip(BLANKS):
            return  # Asterisk ignores an unknown directive, and one without an argument
        found, closed, elsewhere = self._matching(name)
        if self._load(found) or command == b"tryinclude" or elsewhere or (closed and not self.as_asterisk):
            return
        why = ", and cannot be read" if found or closed else ", and does not exist"
        why = " too deeply" if self._depth > DEEPEST else why
        raise RefusedLineError(f"{_shown(name)} is included{why}")

    def _is_executing(self) -> bool:
        """Whether Asterisk runs the programs of ``#exec``: an option of asterisk.conf permits it."""
        if self._runs_programs is None:
            self._runs_programs = self._setting(b"options", b"execincludes").lower() in _TRUE
        return self._runs_programs

    def _setting(self, section: bytes, option: bytes, *, template: bool = False) -> bytes:
        """Return the last value of an option of asterisk.conf in the same folder; b"" if it is not set.

        ``template``: the section is a template, which Asterisk ignores.
        """
        if self._settings is None:
            reader = ConfReader(
                self.folder,
                self.folder / "asterisk.conf",
                self.planned,
                named=self.named,
                most_work=self.most_work,
            )
            if reader.main != self.main:
                reader.read()
            self._settings = reader.sections
        found = (one for one in self._settings if one.name.lower() == section and one.template is template)
        options = next((one.options for one in found), [])
        given = [value for name, value in options if name.lower() == option]
        return given[-1] if given else b""

    def _matching(self, name: bytes) -> tuple[list[Path], bool, bool]:
        """Return the files that an ``#include`` names, and why there may be more.

        The first reason is that their folder is closed to this process. The second is that they are not on
        this host. The argument is relative to the configuration folder.
        """
        most = _LONGEST_PATH if name.startswith(b"/") else _LONGEST_RELATIVE
        text = name[:most].decode("utf-8", "surrogateescape")
        found: list[Path] = []
        closed = elsewhere = False
        if text.endswith("/.") or (text.endswith("/") and any(mark in text for mark in "*?[{")):
            return [], False, False  # only a folder fits
        for one in expanded(text):
            pattern = self._located(Path(for_fnmatch(one)))
            if pattern is None:
                elsewhere = True
                self._lose(one, f"it is included, and {_ELSEWHERE}")
                continue
            here = {path for path in self.planned if fnmatchcase(str(path), str(pattern))}
            user = self._user_of(pattern)
            here |= {*matching(pattern, self._spend, partial(self._may_exist, user=user), user)}
            found += sorted(here)
            if not here and not _is_open(pattern.parent, user):
                closed = True
                self._lose(pattern, "its folder cannot be listed", closed=True)
        return found, closed, elsewhere

    def _located(self, pattern: Path) -> Path | None:
        """Return the path on this host of the pattern of an ``#include``; None if it is not on this host.

        An Asterisk in a container may name the configuration folder by another path, and its paths outside of
        this folder mean files of the container.
        """
        own, whole = self.folder, pattern.is_absolute()
        if not whole and ".." not in pattern.parts:
            return own / pattern  # wherever Asterisk has that folder
        if whole and pattern.is_relative_to(own) and self.named is None:
            return pattern
        folder, elsewhere = self._asterisks
        if not elsewhere:
            within = whole and pattern.is_relative_to(folder)
            return own / (pattern.relative_to(folder) if within else pattern)
        named = Path(os.path.normpath(folder / pattern))
        return own / named.relative_to(folder) if named.is_relative_to(folder) else None

    @property
    def _asterisks(self) -> tuple[Path, bool]:
        """The path by which Asterisk names its configuration folder, and whether it has another root folder.

        If it is not known, asterisk.conf has the path (``astetcdir``). Asterisk then has another root folder,
        unless the path is that of the folder on this host. In the sample that Asterisk installs, the compiled
        path stands in a template.
        """
        if self.named is not None:
            return self.named, True
        if self._place is None:
            own = self.folder
            given = (self._setting(b"directories", b"astetcdir", template=one) for one in (False, True))
            named = next(filter(None, given), _FOLDER.encode()).decode("utf-8", "surrogateescape")
            folder = Path(named) if exists(own / "asterisk.conf") else own
            self._place = folder, folder != own.absolute() and not is_same_folder(folder, own)
        return self._place

    def leads_elsewhere(self, path: Path) -> bool:
        """Whether ``path`` is a link to a file that is not on this host, but in Asterisk's container."""
        if self._place is not None and not self._place[1]:
            return False
        return leads_out(path, self.folder) and self._asterisks[1]

    def _may_exist(self, path: Path, user: FileUser | None) -> bool:
        return exists(path, user) or self.leads_elsewhere(path)

    def _user_of(self, path: Path) -> FileUser | None:
        """Return the user who wrote a path: of a path out of the configuration folder, the folder's user.

        Otherwise Asterisk's user could include any file that root can read.
        """
        return None if path.is_relative_to(self.folder) else self._owner


_ELSEWHERE = "names a file of Asterisk's own host or container, which is not read here"
_TRUE = frozenset({b"yes", b"true", b"y", b"t", b"1", b"on"})


def _is_open(folder: Path, user: FileUser | None) -> bool:
    """Whether this process can list a folder. True too if the folder does not exist: then it has no files.

    ``user`` is the user who wrote the path, None if it is to be trusted.
    """
    try:
        with opened_folder(folder, user):
            return True
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
