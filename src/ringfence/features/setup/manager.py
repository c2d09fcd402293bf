"""Reads Asterisk's ``manager.conf``: the settings of AMI, and whether ringfence's user exists.

Also checks whether Asterisk would accept its files.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from attrs import field, frozen

from ringfence.errors import SetupError
from ringfence.features.setup.texts import LOGGER, MANAGER
from ringfence.file_rights import as_user
from ringfence.host.asterisk_conf import AsteriskFiles, Conf, Section, every_option, is_true
from ringfence.host.console import Server
from ringfence.host.file_changes import FileState, file_state
from ringfence.values.network import Network, contains
from ringfence.values.secret import Secret
from ringfence.values.text import printable

USER = "ringfence"
PORT = 5038
READ, WRITE = frozenset({"security", "system"}), frozenset({"reporting"})
"""The classes of AMI that ringfence's user needs."""
_RIGHTS = frozenset({"read", "write", "permit", "deny"})
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
_GENERAL = frozenset({"enabled", "bindaddr", "port", "webenabled"})


@frozen
class ManagerConf:
    """The settings of AMI in the file ``path``. ``state`` is the state of the file; None if there is no file.

    ``bindaddr`` is the address on which AMI listens; None if it listens on every address, or if the file has
    no valid address. ``web``: AMI is also served over HTTP. ``user``: ringfence's user exists already.
    ``secret`` is that user's password, None if it has none. ``rights`` are its options about what it may do,
    and from where. ``general``: there is a section ``[general]``, in the file itself or in an included one.
    """

    path: Path
    state: FileState | None
    enabled: bool = False
    bindaddr: str | None = None
    port: int = PORT
    web: bool = False
    user: bool = False
    secret: Secret | None = None
    rights: Section = field(factory=lambda: Section(USER))
    general: bool = False

    @property
    def text(self) -> str:
        """The text of the file; "" without a file. See :func:`text_of` for bytes that are not UTF-8."""
        return text_of(self.state)

    @property
    def host(self) -> str:
        """The address at which a program in Asterisk's network namespace reaches AMI."""
        return self.bindaddr or "127.0.0.1"


def text_of(state: FileState | None) -> str:
    """Return the content of a file as text; "" without a file.

    Bytes that are not UTF-8 become surrogates, so that they can be written back unchanged.
    """
    return state.content.decode("utf-8", "surrogateescape") if state is not None else ""


def read_manager(files: AsteriskFiles, reader: Server | None = None) -> ManagerConf:
    """Read ``manager.conf``.

    Raise SetupError if Asterisk would refuse the file (see :func:`checked_state`). ``reader`` is
    the process of Asterisk; with None, the file is checked with the rights of this process.
    """
    path = files.folder / MANAGER
    state = checked_state(files, MANAGER, reader)
    conf = files.read(
        MANAGER,
        lambda section, name: (
            (section == "general" and name in _GENERAL) or (section == USER and name in _RIGHTS)
        ),
        lambda section, name: section == USER and name == "secret",
    )
    if state is None or conf is None:
        return ManagerConf(path, None)
    general, own = conf.section("general"), conf.all_of(USER)
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
        own,
        conf.has("general"),
    )


def require_effect(
    files: AsteriskFiles,
    log: Path | None,
    logs: Path,
    reader: Server | None = None,
    address: str | None = None,
) -> None:
    """Raise SetupError unless Asterisk accepts the planned files, and reads from them what setup adds.

    An error in an included file, for example, hides all that is added after it. ``files`` have the contents
    after setup's changes. ``log`` is ringfence's log, None without one, and ``logs`` the folder of Asterisk's
    logs; both as Asterisk names them. For ``reader`` see :func:`read_manager`. ``address`` is the one at
    which setup lets AMI listen; None if it did not change that.
    """
    with _acting_as(reader):
        users = files.read(MANAGER, every_option, lambda _, name: name == "secret")
        channels = files.read(LOGGER, every_option)
        faults = [files.fault_of(MANAGER), files.fault_of(LOGGER) if log is not None else ""]
    users, channels = users or Conf(), channels or Conf()
    manager, logger = files.folder / MANAGER, files.folder / LOGGER
    for path, fault in zip((manager, logger), faults, strict=True):
        if fault:
            raise SetupError(f"Asterisk would refuse {path} after setup's changes: {fault}; fix this first")
    lost = {
        "the manager user": (manager, users, users.all_of(USER).secret("secret") is not None),
        f"that AMI listens at {address} alone": (
            manager,
            users,
            address is None or _specific(users.section("general").last("bindaddr")) == address,
        ),
        "that AMI is enabled": (manager, users, is_true(users.section("general").last("enabled"))),
        "the log channel": (
            logger,
            channels,
            log is None or log in [logs / name for name, _ in channels.section("logfiles").options],
        ),
    }
    for what, (path, conf, works) in lost.items():
        if not works:
            why = (
                "; ".join(one.text for one in conf.unread)
                or "an included file or a later section prevents it"
            )
            raise SetupError(f"Asterisk would not read {what} from {path}: {why}; fix this first")


def excess_of(manager: ManagerConf, permit: Sequence[Network]) -> Iterator[str]:
    """Yield a text for each right of ringfence's existing manager user that ringfence does not need.

    ``permit`` are the networks besides loopback from which ringfence logs in.
    """
    for option, needed in (("read", READ), ("write", WRITE)):
        classes = {one.strip().lower() for one in manager.rights.last(option).split(",")} - {""}
        if classes - needed:
            yield f"{option} = {printable(manager.rights.last(option))}"
    denied = [_network(value) for value in manager.rights.values("deny")]
    if any(every not in denied for every in _EVERYWHERE):
        yield "it may log in from everywhere (deny = 0.0.0.0/0.0.0.0 and deny = ::/0 are missing)"
    for value in manager.rights.values("permit"):
        network = _network(value)
        if network is None or not any(contains(one, network) for one in (*LOOPBACK, *permit)):
            yield f"permit = {printable(value)}"


def _network(text: str) -> Network | None:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def checked_state(files: AsteriskFiles, name: str, reader: Server | None = None) -> FileState | None:
    """Return the state of the file ``name`` of Asterisk's configuration; None if it does not exist.

    Raise SetupError if Asterisk would refuse the file. It is checked with the rights of ``reader``,
    the process of Asterisk, because Asterisk reads it with these rights at the next reload. If Asterisk
    cannot read the file then, it loses the settings of this file (for manager.conf, AMI).
    """
    require_here(files, name)
    state = file_state(files.folder / name)
    if state is None:
        return None
    with _acting_as(reader):
        fault = files.fault_of(name)
    if fault:
        raise SetupError(f"Asterisk would refuse {files.folder / name}: {fault}; fix this first")
    return state


def require_here(files: AsteriskFiles, name: str) -> None:
    """Raise SetupError if the file ``name`` is a link to a file that is only in Asterisk's container."""
    if files.leads_elsewhere(name):
        raise SetupError(
            f"{files.folder / name} is a link to a file of Asterisk's container, which is not on this "
            "host; fix: replace the link by its target, or run ringfence beside Asterisk, in its container"
        )


@contextmanager
def _acting_as(reader: Server | None) -> Iterator[None]:
    """Run the block with the rights of ``reader``.

    The rights stay unchanged if ``reader`` is None, or if this process does not run as root.
    """
    if reader is None or os.geteuid() != 0:
        yield
        return
    with as_user(reader.uid, reader.gid, reader.groups):
        yield


def _specific(text: str) -> str | None:
    """Return the address in the text of ``bindaddr``, without its port.

    Return None if the text means every address (``0.0.0.0``, ``::``), or is not a valid address.
    """
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
