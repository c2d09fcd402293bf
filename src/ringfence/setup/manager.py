"""Asterisk's ``manager.conf``: how AMI is configured now, and where another user can be added."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from attrs import frozen

from ringfence.errors import SetupError
from ringfence.host.asterisk_conf import is_true, read_conf
from ringfence.host.asterisk_syntax import faults_of
from ringfence.model import Secret
from ringfence.setup.changes import FileState, file_state

USER = "ringfence"
PORT = 5038
MOST_FAULTS = 5
_GENERAL = frozenset({"enabled", "bindaddr", "port", "webenabled"})


class User(Protocol):
    """The user of a process, with all its groups."""

    @property
    def uid(self) -> int:
        """The user."""

    @property
    def gid(self) -> int:
        """The group."""

    @property
    def groups(self) -> tuple[int, ...]:
        """The other groups."""


@frozen
class ManagerConf:
    """The settings of AMI. ``state`` is that of the file, None if there is no file.

    ``bindaddr`` is None if AMI listens on every address. ``user`` is whether ringfence's user exists already,
    and ``secret`` its password.
    """

    path: Path
    state: FileState | None
    enabled: bool = False
    bindaddr: str | None = None
    port: int = PORT
    web: bool = False
    user: bool = False
    secret: Secret | None = None

    @property
    def text(self) -> str:
        """The text of the file itself, in which any byte survives."""
        return text_of(self.state)

    @property
    def host(self) -> str:
        """The address of AMI for a program in Asterisk's network."""
        return self.bindaddr or "127.0.0.1"


def text_of(state: FileState | None) -> str:
    """Return the content of a file as text, in which any byte survives; "" without a file."""
    return state.content.decode("utf-8", "surrogateescape") if state is not None else ""


def read_manager(folder: Path, user: User | None = None) -> ManagerConf:
    """Read ``manager.conf``; raise SetupError if ``user``, as which Asterisk runs, would refuse it."""
    path = folder / "manager.conf"
    state = checked_state(path, user)
    conf = read_conf(
        path,
        lambda section, name: (
            (section == "general" and name in _GENERAL) or (section == USER and name == "read")
        ),
        lambda section, name: section == USER and name == "secret",
    )
    if state is None or conf is None:
        return ManagerConf(path, None)
    general, own = conf.section("general"), conf.section(USER)
    port = general.last("port")
    return ManagerConf(
        path,
        state,
        is_true(general.last("enabled")),
        _specific(general.last("bindaddr")),
        int(port) if port.isdecimal() and len(port) <= len("65535") else PORT,
        is_true(general.last("webenabled")),
        any(section.name.lower() == USER for section in conf.sections),
        own.secret("secret"),
    )


def checked_state(path: Path, user: User | None = None) -> FileState | None:
    """Return the state of a file of Asterisk; raise SetupError if Asterisk would refuse it.

    The file is read with the rights of ``user``. A file that root alone can read would be lost at the next
    reload, and AMI with it, although it works until then.
    """
    if not path.exists():
        return None
    with _acting_as(user):
        faults = faults_of(path)
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise SetupError(
            f"Asterisk would refuse {path}: {'; '.join([*faults[:MOST_FAULTS], *more])}; fix this first"
        )
    return file_state(path)


@contextmanager
def _acting_as(user: User | None) -> Iterator[None]:
    """Use the rights of a user while the block runs, if this is root."""
    if user is None or os.geteuid() != 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _specific(text: str) -> str | None:
    """Return the address in ``bindaddr``, which may have a port; None for every address."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if address.is_unspecified else str(address)
