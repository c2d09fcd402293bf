"""Asterisk's own configuration files, read as Asterisk reads them, and never changed.

:mod:`ringfence.host.conf_reader` reads the files. ``#exec`` runs a program, and is ignored.

The files contain the passwords of every phone. Only requested options are kept: others are dropped after
reading, so no message can contain them. A caller that needs passwords requests them separately, and gets them
masked.

The result lists what could not be read or understood, because it may have other options. A caller must never
conclude from such a file that something is not configured.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import field, frozen

from ringfence.host.conf_reader import MOST_WORK, ConfReader, LoadedSection, Unread
from ringfence.host.owned_files import opened_parent
from ringfence.values.secret import Secret

FOLDER = Path("/etc/asterisk")
Wanted = Callable[[str, str], bool]
"""A function that returns whether to keep an option of Asterisk's configuration.

Its arguments are the name of the section and the name of the option, both in lower case.
"""


@frozen
class Section:
    """A section of a file of Asterisk: the name, and the requested options in order; secrets are separate."""

    name: str
    options: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, Secret], ...] = ()

    def values(self, option: str) -> list[str]:
        """Return every value of ``option`` (in lower case) in this section, in order."""
        return [value for name, value in self.options if name.lower() == option]

    def last(self, option: str, default: str = "") -> str:
        """Return the last value of an option, which Asterisk uses for most options.

        Return ``default`` if the section does not have ``option``, which must be in lower case.
        """
        return (self.values(option) or [default])[-1]

    def first(self, option: str, default: str = "") -> str:
        """Return the first value of an option, which Asterisk uses for some options.

        Return ``default`` if the section does not have ``option``, which must be in lower case.
        """
        return (self.values(option) or [default])[0]

    def secret(self, option: str) -> Secret | None:
        """Return the last value of a secret option; None if there is no value, or an empty one."""
        found = [value for name, value in self.secrets if name.lower() == option]
        return found[-1] if found and found[-1].reveal() else None


@frozen
class Conf:
    """The sections of a configuration file of Asterisk with its includes; ``unread``: the unknown parts.

    ``refused``: Asterisk refuses the file, so nothing in it is in force after Asterisk's next start.
    """

    sections: tuple[Section, ...] = ()
    unread: tuple[Unread, ...] = ()
    refused: bool = False

    def section(self, name: str) -> Section:
        """Return the first section named ``name``, which most of Asterisk's modules use, or an empty one.

        ``name`` must be in lower case.
        """
        found = (section for section in self.sections if section.name.lower() == name)
        return next(found, Section(name))

    def all_of(self, name: str) -> Section:
        """Return all sections named ``name`` (in lower case) as one section.

        A module of Asterisk that reads each section in turn joins them so.
        """
        return joined(name, (section for section in self.sections if section.name.lower() == name))

    def has(self, name: str) -> bool:
        """Whether the file has a section ``name`` (in lower case). The case in the file is ignored."""
        return any(section.name.lower() == name for section in self.sections)


def joined(name: str, sections: Iterable[Section]) -> Section:
    """Return one section with everything that ``sections`` have."""
    found = tuple(sections)
    return Section(
        name,
        tuple(option for section in found for option in section.options),
        tuple(secret for section in found for secret in section.secrets),
    )


def no_option(_section: str, _name: str) -> bool:
    """Return False: keep no option."""
    return False


def every_option(_section: str, _name: str) -> bool:
    """Return True: keep each option."""
    return True


@frozen
class AsteriskFiles:
    """The configuration files of one Asterisk, which are in ``folder`` on this host.

    ``named`` is the path by which Asterisk names this folder, if Asterisk is known to have another root
    folder than this host (in a container). Other paths in the files then mean files of the container, which
    are never read. With None, asterisk.conf has that path. ``planned`` are contents that files will have,
    whatever they have now. ``most_work`` is the maximum work for a file with its includes, in units as of
    ``MOST_WORK``. Each method reads the files as they are at that moment.
    """

    folder: Path
    named: Path | None = None
    planned: Mapping[Path, bytes] = field(factory=dict)
    most_work: int = MOST_WORK

    def read(self, name: str, wanted: Wanted, secret: Wanted = no_option) -> Conf | None:
        """Read the file ``name`` and its includes; return None if the file does not exist.

        A relative path in an include is relative to the folder. ``wanted`` selects the options to keep, and
        ``secret`` the options that are passwords.
        """
        path, reader = self.folder / name, self._reader(name)
        if path not in self.planned and not reader.leads_elsewhere(path):
            try:
                with opened_parent(path) as (folder, last):
                    folder.state(last)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                closed = isinstance(error, PermissionError)
                why = f"it cannot be read: {error.strerror}"
                return Conf(unread=(Unread(path.name, str(path), why, closed=closed),))
        reader.read()
        names: dict[bytes, tuple[str, str]] = {}
        texts: dict[bytes, str] = {}
        sections = tuple(
            _kept(section, wanted, secret, names, texts)
            for section in reader.sections
            if not section.template
        )
        return Conf(sections, tuple(reader.unread), bool(reader.refused))

    def fault_of(self, name: str) -> str:
        """Return why Asterisk refuses the file ``name``, as ``FILE:LINE: reason``; "" if it is valid.

        A program that changes a file must know first whether Asterisk accepts it. This process must have the
        rights with which Asterisk reads its files.
        """
        reader = self._reader(name, as_asterisk=True)
        reader.read()
        return reader.refused

    def paths_of(self, name: str) -> list[Path]:
        """Return the path of the file ``name``, and those of included files in the folder with passwords."""
        reader = self._reader(name)
        reader.read()
        inside = (path for path in reader.with_passwords if path.is_relative_to(self.folder))
        return [*dict.fromkeys([self.folder / name, *(path for path in inside if ".." not in path.parts)])]

    def leads_elsewhere(self, name: str) -> bool:
        """Whether the file ``name`` is a link to a file of Asterisk's container."""
        return self._reader(name).leads_elsewhere(self.folder / name)

    def _reader(self, name: str, *, as_asterisk: bool = False) -> ConfReader:
        path = self.folder / name
        return ConfReader(self.folder, path, self.planned, as_asterisk, self.named, self.most_work)


def _kept(
    section: LoadedSection,
    wanted: Wanted,
    secret: Wanted,
    names: dict[bytes, tuple[str, str]],
    texts: dict[bytes, str],
) -> Section:
    """Return ``section`` with the requested options only.

    ``names`` has the name of each option as text, and in lower case: most sections have the same options.
    ``texts`` has each value as text: thousands of sections may inherit a long one, which is kept once.
    """
    own = section.name.decode("utf-8", "replace")
    lower = own.lower()
    options, secrets = [], []
    for key, value in section.options:
        known = names.get(key)
        if known is None:
            option = key.decode("utf-8", "replace")
            known = names[key] = option, option.lower()
        is_secret = secret(lower, known[1])
        if not is_secret and not wanted(lower, known[1]):
            continue
        text = texts.get(value)
        if text is None:
            text = texts[value] = value.decode("utf-8", "replace")
        if is_secret:
            secrets.append((known[0], Secret(text)))
        else:
            options.append((known[0], text))
    return Section(own, tuple(options), tuple(secrets))


def is_true(value: str) -> bool:
    """Whether Asterisk treats a value as true (``ast_true``)."""
    return value.strip().lower() in {"yes", "true", "y", "t", "1", "on"}
