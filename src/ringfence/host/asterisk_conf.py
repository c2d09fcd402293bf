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

from attrs import frozen

from ringfence.host.conf_reader import ConfReader, LoadedSection, Unread
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


def read_conf(
    path: Path,
    wanted: Wanted,
    secret: Wanted = no_option,
    planned: Mapping[Path, bytes] | None = None,
    inside: Path | None = None,
) -> Conf | None:
    """Read a configuration file of Asterisk and its includes; return None if the file does not exist.

    A relative path in an include is relative to the folder of ``path``. ``wanted`` selects the options to
    keep, and ``secret`` the options that are passwords. ``planned`` are contents that files will have,
    whatever they have now. ``inside`` is the path by which Asterisk names the folder of ``path``, if it is
    known to have another root folder than this host.
    """
    reader = ConfReader(path, planned or {}, inside=inside)
    if (planned is None or path not in planned) and not reader.leads_elsewhere(path):
        try:
            with opened_parent(path) as (folder, name):
                folder.state(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            closed = isinstance(error, PermissionError)
            return Conf(
                unread=(Unread(path.name, str(path), f"it cannot be read: {error.strerror}", closed=closed),)
            )
    reader.read()
    names: dict[bytes, tuple[str, str]] = {}
    sections = tuple(
        _kept(section, wanted, secret, names) for section in reader.sections if not section.template
    )
    return Conf(sections, tuple(reader.unread), bool(reader.refused))


def _kept(
    section: LoadedSection, wanted: Wanted, secret: Wanted, names: dict[bytes, tuple[str, str]]
) -> Section:
    """Return ``section`` with the requested options only.

    ``names`` has the name of each option as text, and in lower case: most sections have the same options.
    """
    own = section.name.decode("utf-8", "replace")
    lower = own.lower()
    options, secrets = [], []
    for key, value in section.options:
        known = names.get(key)
        if known is None:
            option = key.decode("utf-8", "replace")
            known = names[key] = option, option.lower()
        if secret(lower, known[1]):
            secrets.append((known[0], Secret(value.decode("utf-8", "replace"))))
        elif wanted(lower, known[1]):
            options.append((known[0], value.decode("utf-8", "replace")))
    return Section(own, tuple(options), tuple(secrets))


def is_true(value: str) -> bool:
    """Whether Asterisk treats a value as true (``ast_true``)."""
    return value.strip().lower() in {"yes", "true", "y", "t", "1", "on"}


def leads_elsewhere(path: Path, inside: Path | None = None) -> bool:
    """Whether a file of Asterisk's configuration is a link to a file of Asterisk's container.

    For ``inside`` see :func:`read_conf`.
    """
    return ConfReader(path, inside=inside).leads_elsewhere(path)


def fault_of(path: Path, planned: Mapping[Path, bytes] | None = None, inside: Path | None = None) -> str:
    """Return why Asterisk refuses a file of its configuration, as ``FILE:LINE: reason``; "" if it is valid.

    A program that changes a file must know first whether Asterisk accepts it. This process must have the
    rights with which Asterisk reads its files. For ``planned`` and ``inside`` see :func:`read_conf`.
    """
    reader = ConfReader(path, planned or {}, as_asterisk=True, inside=inside)
    reader.read()
    return reader.refused
