"""Decides which changes setup makes, from what it found on the host.

The order of the changes is such that setup can stop after any of them without harm. The files that Asterisk
reads come last. A file that Asterisk includes comes before the line that includes it.
"""

import pwd
import re
import secrets
import shlex
import socket
import tomllib
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path

from attrs import define, evolve, field, frozen

from ringfence.errors import HostError, SetupError
from ringfence.features.setup.find import Found, reload_command, without_parts
from ringfence.features.setup.manager import (
    PORT,
    ManagerConf,
    excess_of,
    require_effect,
    require_here,
    text_of,
)
from ringfence.features.setup.texts import (
    LOGGER,
    HostPaths,
    Target,
    added_text,
    appended,
    is_untouched,
    log_channel,
    logrotate,
    manager_user,
    settings_text,
    sorted_networks,
    with_general,
    with_host,
    with_include,
)
from ringfence.host.asterisk_conf import Conf
from ringfence.host.asterisk_logging import name_suffix, read_logger
from ringfence.host.file_changes import (
    Change,
    FileChange,
    FileState,
    FolderChange,
    FolderState,
    file_state,
    folder_state,
)
from ringfence.host.hosts_file import full_name, hosts_line, knows_host
from ringfence.host.mounts import host_path, why_fixed
from ringfence.host.owned_files import exists
from ringfence.host.processes import PROC
from ringfence.host.routes import read_addresses
from ringfence.values.network import Network, contains, parse_network
from ringfence.values.secret import Secret

LOG = "ringfence"
_ROOT = 0
_LOOPBACK = "127.0.0.1"
_PATH = re.compile(r"[\w./+@:-]+")
_PASSWORD = re.compile(r"[!-:<-~]{1,256}")


@frozen
class LogPath:
    """The log that Asterisk writes for ringfence.

    ``file`` is its path on this host, ``inside`` its path in Asterisk's logger.conf. ``default``: the daemon
    finds this log without a setting.
    """

    file: Path
    inside: Path
    default: bool


@frozen
class Plan:
    """The changes that setup will make.

    ``changes`` are in the order in which setup makes them. ``notes`` are lines for the administrator. ``log``
    is the log that Asterisk will write for ringfence; None if this host cannot read it, or does not know its
    name.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    log: LogPath | None


def plan(found: Found, paths: HostPaths, written: Mapping[Path, FileState] | None = None) -> Plan:
    """Return the changes that setup will make; raise SetupError if this host's state does not allow them.

    ``written`` has the state of each file as an earlier run of setup wrote it. If ringfence's configuration
    is still in that state, the administrator has not changed it, and setup may replace it.
    """
    planner = _Planner(found, paths, written or {}, log_path(found, paths))
    planner.own_files()
    planner.host_name()
    planner.manager()
    planner.logger()
    asterisk, log = found.asterisk, planner.log
    require_effect(
        evolve(asterisk.files, planned=planner.planned()),
        log.inside if log else None,
        asterisk.logs_inside,
        asterisk.reader,
        planner.bound,
    )
    return Plan(tuple(planner.changes), tuple(planner.notes), planner.log)


def log_path(found: Found, paths: HostPaths) -> LogPath | None:
    """Return the path of the log for ringfence; None if this host cannot read it, or does not know its name.

    If Asterisk has the same ``/var/log`` as this host, the log is in ringfence's own folder there. Otherwise
    (in a container) it is in Asterisk's log folder, if that folder is a volume. With ``appendhostname`` in
    logger.conf, the file's name ends with the name of Asterisk's host. That of a container is not known here.
    """
    asterisk = found.asterisk
    suffix = name_suffix(read_logger(asterisk.files))
    if suffix and not asterisk.server.same_root:
        return None
    root = PROC / str(asterisk.server.pid)
    if asterisk.server.same_root or host_path(root, paths.logs.parent) == paths.logs.parent:
        return LogPath(paths.logs / f"{LOG}{suffix}", paths.logs / LOG, default=not suffix)
    if asterisk.logs is None:
        return None
    return LogPath(asterisk.logs / LOG / LOG, asterisk.logs_inside / LOG / LOG, default=False)


def ami_host(found: Found) -> str:
    """Return the address at which this host reaches AMI; raise SetupError if it cannot be known."""
    asterisk = found.asterisk
    if asterisk.server.same_network:
        return found.manager.host if found.manager.enabled else _LOOPBACK
    if asterisk.address is None:
        raise SetupError(
            "Asterisk runs in a container without exactly one IPv4 address; fix: run ringfence beside it, in "
            "its network namespace (contrib/container/compose.sidecar.yaml)"
        )
    return asterisk.address


@define(slots=False)  # for the cached property
class _Planner:
    """Collects the changes and notes of a plan. Each public method plans some of the files.

    For ``found``, ``paths`` and ``written`` see :func:`plan`.
    """

    found: Found
    paths: HostPaths
    written: Mapping[Path, FileState]
    log: LogPath | None
    changes: list[Change] = field(factory=list)
    notes: list[str] = field(factory=list)
    bound: str | None = None
    """The address at which setup lets AMI listen; None if it did not change that."""

    def own_files(self) -> None:
        """Plan the changes of ringfence's own files: secret, configuration, log folder and its rotation."""
        group = self.found.owner.gid
        self._folder(self.paths.config.parent, FolderState(0o750, _ROOT, group), "ringfence's configuration")
        secret = self._secret
        if file_state(self.paths.secret) is None:
            self._file(
                self.paths.secret,
                None,
                secret.reveal().encode(),
                FolderState(0o640, _ROOT, group),
                "the password of the manager user; only root and the service can read it",
                secret=True,
            )
        self._configuration()
        if self.log is None:
            why = "the log folder of Asterisk's container is no volume of this host"
            if name_suffix(read_logger(self.found.asterisk.files)):
                why = "appendhostname in logger.conf adds the unknown name of Asterisk's container to it"
            self.notes.append(
                f"no log is read: {why}; attempts that are hidden from AMI are seen on the wire only"
            )
            return
        server = self.found.asterisk.server
        self._folder(
            self.log.file.parent,
            FolderState(0o2750, server.uid, group),
            "the folder of the log: Asterisk writes, ringfence reads, and sees nothing else of Asterisk's",
            enforce=True,
        )
        self._rotation(self.log)

    def host_name(self) -> None:
        """Plan a line for the name of this host in its hosts file, if only a name server knows the name.

        If the file cannot be changed, a note has the line: everything else works without it.
        """
        name, path = socket.gethostname(), self.paths.hosts
        if (
            not self.found.asterisk.server.same_root
            or not exists(path)
            or knows_host(name, path, path.with_name("nsswitch.conf"))
        ):
            return
        try:
            now, fixed = file_state(path), why_fixed(path)
        except SetupError as error:
            now, fixed = None, str(error)
        if now is None or fixed:
            line = hosts_line(name, full_name(name))
            self.notes.append(f'{path} cannot be changed ({fixed}); fix: add the line "{line}" to it')
            return
        own: frozenset[Network] = frozenset()
        with suppress(HostError):
            own = read_addresses()
        self._file(
            path,
            now,
            _encoded(with_host(text_of(now), name, own, full_name)),
            FolderState(now.mode, now.uid, now.gid),
            "the name of this host: Asterisk looks it up for some datagrams, and answers nobody meanwhile",
        )

    def manager(self) -> None:
        """Plan the changes that make the manager user and enable AMI."""
        manager = self.found.manager
        main = self._manager_conf(manager)
        host = ami_host(self.found)
        permit = () if _is_loopback(host) else (own_address(host),)
        if manager.user:
            self._require_no_more(manager, permit)
        else:
            text = manager_user(self._secret, permit, web=manager.web)
            main = self._add(
                self.found.layout.manager,
                text,
                main,
                0o640,
                "the manager user as which ringfence logs in: from this host only, to read security events "
                "and registrations",
            )
        self._main(manager.path, manager.state, main, "AMI is on, and reads the manager user")

    def _require_no_more(self, manager: ManagerConf, permit: tuple[Network, ...]) -> None:
        """Raise SetupError if the existing manager user may do more than the one that setup would make."""
        excess = [*excess_of(manager, permit)]
        if excess:
            raise SetupError(
                f"{manager.path} has a manager user [ringfence] already, with more rights than it needs: "
                f"{'; '.join(excess)}; fix: remove that user, and setup makes it, or give it only the "
                "options of contrib/asterisk/ringfence.manager.conf"
            )

    def logger(self) -> None:
        """Plan the change that makes Asterisk's log channel for ringfence, if it is missing."""
        files = self.found.asterisk.files
        conf = read_logger(files) or Conf()
        logs = self.found.asterisk.logs_inside
        known = [logs / name for name, _ in conf.section("logfiles").options]
        if self.log is None or self.log.inside in known:
            return
        main = self._add(
            self.found.layout.logger,
            log_channel(
                self.log.inside,
                [name for name in ("general", "logfiles") if conf.has(name)],
                alone=self.found.logger is None,
            ),
            text_of(self.found.logger),
            0o644,
            "a log for ringfence: notices and security events, without the text of callers' packets. "
            "dateformat applies to all of Asterisk's logs",
        )
        self._main(files.folder / LOGGER, self.found.logger, main, "Asterisk reads the log channel")

    def planned(self) -> dict[Path, bytes]:
        """Return the content that each changed file will have, by path."""
        return {
            change.path: change.after.content for change in self.changes if isinstance(change, FileChange)
        }

    @cached_property
    def _secret(self) -> Secret:
        """The password of the manager user: from the secret file, from an existing user, or a new one.

        Raise SetupError if the file's password cannot be used, or is not that of the existing user.
        """
        here = file_state(self.paths.secret)
        kept = Secret(here.content.decode("utf-8", "replace").strip("\r\n")) if here is not None else None
        manager = self.found.manager
        if kept is not None and not _PASSWORD.fullmatch(kept.reveal()):
            raise SetupError(
                f"the password in {self.paths.secret} is empty, or has a character that Asterisk's files "
                "cannot have (a blank, a semicolon); fix: remove the file, and setup generates a password"
            )
        if not manager.user:
            return kept or Secret(secrets.token_hex(24))
        if manager.secret is None or (kept is not None and kept != manager.secret):
            raise SetupError(
                f"{manager.path} has a manager user [ringfence] already, and its secret is not that of "
                f"{self.paths.secret}; fix: remove that user, or write its secret into this file"
            )
        return manager.secret

    def _manager_conf(self, manager: ManagerConf) -> str:
        """Return the text of manager.conf, changed so that this host can reach AMI if it cannot already.

        Raise SetupError if the text must be changed, but a program of the PBX product writes the file.
        """
        if manager.enabled and (
            self.found.asterisk.server.same_network or not _is_loopback(manager.bindaddr)
        ):
            return manager.text
        if self.found.layout.generated:
            raise SetupError(
                f"AMI is off, or not reachable from here, and {self.found.layout.name} writes {manager.path} "
                "itself; fix: switch the manager interface on there, then run setup again"
            )
        # In a container: its own address on the bridge. With 0.0.0.0, AMI would listen on every other network
        # to which somebody connects the container later.
        address = _LOOPBACK if self.found.asterisk.server.same_network else ami_host(self.found)
        self.bound = address
        text = with_general(manager.text, "bindaddr", address, included=manager.general)
        return with_general(text, "enabled", "yes", included=manager.general)

    def _add(self, target: Target, text: str, main: str, mode: int, reason: str) -> str:
        """Plan that ``text`` is added to the file of ``target``.

        ``main`` is the text of the main file (manager.conf or logger.conf), which must include that file.
        Return ``main``, with an additional line if it does not include the file yet. A new file gets the
        ``mode``, and ``reason`` is shown to the administrator.
        """
        files = self.found.asterisk.files
        path = files.folder / target.file
        self._folder(path.parent, self._top, "a folder for additions to Asterisk's configuration")
        require_here(files, target.file)
        now = file_state(path)
        old = None if target.own else now
        whole = appended(text_of(old), f"\n{text}") if old is not None and old.content else text
        self._file(path, now, _encoded(whole), self._readable(mode), reason)
        return with_include(main, target.include) if target.include else main

    def _main(self, path: Path, state: FileState | None, text: str, reason: str) -> None:
        if text != text_of(state):
            self._file(path, state, _encoded(text), self._readable(0o640), reason)

    @property
    def _top(self) -> FolderState:
        """The state of Asterisk's configuration folder, as setup would make it if it does not exist."""
        server = self.found.asterisk.server
        found = folder_state(self.found.asterisk.files.folder)
        return found or FolderState(0o750, server.uid, server.gid)

    def _readable(self, mode: int) -> FolderState:
        """Return mode and owners of a new file in Asterisk's folder, which Asterisk reads by its group.

        The owner of the folder owns the file. Otherwise Asterisk's user could write into a folder of root.
        """
        return FolderState(mode, self._top.uid, self.found.asterisk.server.gid)

    def _configuration(self) -> None:
        """Plan ringfence.toml. If the administrator has changed it, add notes on what it lacks instead."""
        found, path = self.found, self.paths.config
        host, port = ami_host(found), found.manager.port
        ami: list[tuple[str, str | int]] = [("host", host)] if host != _LOOPBACK else []
        ami += [("port", port)] if port != PORT else []
        logs = [] if self.log is None else None if self.log.default else [self.log.file]
        now = file_state(path)
        exempt, added = found.exempt, ""
        is_own = now is not None and now == self.written.get(path)
        if now is not None and is_own:  # what an earlier run found may be away now
            exempt = without_parts({**dict.fromkeys(_allowed(now), "an earlier run found it"), **exempt})
            added = added_text(text_of(now))
        text = settings_text(self.paths.secret, exempt, ami, logs) + added
        if now is None or is_own or is_untouched(text_of(now)):
            self._file(
                path,
                now,
                _encoded(text),
                FolderState(0o640, _ROOT, found.owner.gid),
                "ringfence's configuration: this Asterisk, and networks that are never banned",
            )
            return
        lacking = sorted_networks({net: why for net, why in found.exempt.items() if not _allows(now, net)})
        self.notes.append(f"{path} has your own settings and stays as it is")
        self.notes += [f"not in its [allow] networks: {network} ({why})" for network, why in lacking]

    def _rotation(self, log: LogPath) -> None:
        server = self.found.asterisk.server
        if not _PATH.fullmatch(str(log.file)):
            self.notes.append("the path of the log has characters of logrotate's syntax: it is not rotated")
            return
        if not self.paths.logrotate.parent.is_dir():
            self.notes.append(f"logrotate is not installed: {log.file} is not rotated")
            return
        try:
            user = pwd.getpwuid(server.uid).pw_name
        except KeyError:
            self.notes.append(
                f"Asterisk's user {server.uid} has no name on this host: {log.file} is not rotated"
            )
            return
        now = file_state(self.paths.logrotate)
        lines = [line.strip() for line in text_of(now).split("\n")]
        command = reload_command(server, user) if server.same_root else ()
        if f"{log.file} {{" in lines and f"su {user} ringfence" in lines:
            # What precedes the program differs: the file of the package names users, setup's has numbers.
            wanted = shlex.join(command[command.index(server.program) :]) if command else ""
            if wanted in text_of(now):
                return
            if now != self.written.get(self.paths.logrotate):
                self.notes.append(
                    f"{self.paths.logrotate} does not run {wanted}: Asterisk may write to the rotated log "
                    "for ever; fix: correct its postrotate, or remove the file, and run setup again"
                )
                return
        if not server.same_root:
            self.notes.append("after a rotation of the log, run `logger reload` in Asterisk's container")
        self._file(
            self.paths.logrotate,
            now,
            logrotate(log.file, user, command).encode(),
            FolderState(0o644, _ROOT, _ROOT),
            "the rotation of that log",
        )

    def _folder(self, path: Path, state: FolderState, reason: str, *, enforce: bool = False) -> None:
        """Plan to make a folder with ``state`` (mode and owners), if it does not exist; ``reason`` is shown.

        With ``enforce``, plan to give this state to an existing folder too.
        """
        now = folder_state(path)
        if now is None or (enforce and now != state):
            self.changes.append(FolderChange(path, now, state, reason))

    def _file(
        self,
        path: Path,
        now: FileState | None,
        content: bytes,
        rights: FolderState,
        reason: str,
        *,
        secret: bool = False,
    ) -> None:
        """Plan to write ``content`` to a file, unless the file has this content already.

        ``now`` is the state from which ``content`` was made: if the file has another one when it is written,
        somebody else has changed it. A new file gets the mode and owners of ``rights``. An existing file
        keeps its own. ``reason`` is shown to the administrator. ``secret``: the content is not.
        """
        if now is not None and now.content == content:
            return
        kept = rights if now is None else FolderState(now.mode, now.uid, now.gid)
        after = FileState(content, kept.mode, kept.uid, kept.gid)
        self.changes.append(FileChange(path, now, after, reason, secret))


def own_address(host: str) -> Network:
    """Return this host's own address for connections to ``host``; raise SetupError if there is no route."""
    family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((host, PORT))  # over UDP: looks up the route, and sends nothing
        except OSError as error:
            raise SetupError(f"no route to Asterisk at {host}: {error.strerror}") from None
        return ip_network(probe.getsockname()[0])


def _is_loopback(address: str | None) -> bool:
    return address is not None and ip_address(address).is_loopback


def _allows(state: FileState, network: Network) -> bool:
    """Whether ``[allow]`` in ringfence.toml contains ``network``; False if the file is invalid.

    ``state`` is the state of that file.
    """
    return any(contains(one, network) for one in _allowed(state))


def _allowed(state: FileState) -> list[Network]:
    """Return the networks in ``[allow]`` of ringfence.toml, whose state is ``state``; [] if it is invalid."""
    with suppress(tomllib.TOMLDecodeError, AttributeError, TypeError, ValueError):
        listed = tomllib.loads(text_of(state)).get("allow", {}).get("networks", [])
        return [parse_network(one) for one in listed]
    return []


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
