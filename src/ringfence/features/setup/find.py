"""Inspects this host: Asterisk with its configuration, other guards, the firewall, and networks to exempt."""

import getopt
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from attrs import frozen

from ringfence import street
from ringfence.errors import HostError, SetupError
from ringfence.features.setup.manager import ManagerConf, checked_state, read_manager, text_of
from ringfence.features.setup.other_guards import other_guards
from ringfence.features.setup.texts import LOGGER, MANAGER, HostPaths, Layout, layout_of
from ringfence.firewall import choose_backend
from ringfence.host.asterisk_conf import FOLDER, AsteriskFiles
from ringfence.host.console import (
    OPTIONS,
    Console,
    Server,
    SocketConsole,
    likely_servers,
    names_of,
    owner_of,
    servers,
)
from ringfence.host.console_tables import Trunk, identifies_from, peers_from, settings_from
from ringfence.host.file_changes import FileState
from ringfence.host.mounts import files_of, host_path, is_asterisks
from ringfence.host.owned_files import may_change
from ringfence.host.processes import PROC, processes
from ringfence.host.routes import read_local_networks
from ringfence.values.network import Network, contains
from ringfence.values.text import printable

# -- the Asterisk that runs on this host: its process, its console, and the paths of its folders on this host
#
# Asterisk itself reports its folders (``core show settings``), because they are not the same on all hosts:
# an Asterisk built from source has other folders than Debian's, and its option ``-C`` may name another main
# file. Asterisk may have another root folder than this host (in a container or a chroot). Then the mounts
# of both show where its folders are on this host.


_MODULE = re.compile(r"(chan_pjsip|chan_sip|chan_iax2)\.so +.* (?:Running|Not Running) +[a-z]+ *")


@frozen
class FoundAsterisk:
    """The running Asterisk, and its folders.

    ``files`` are its configuration. ``logs`` is the folder of its logs as a path on this host, None if it
    has none, and ``logs_inside`` the path by which Asterisk names it. ``drivers`` are the running channel
    drivers that ringfence knows. ``address`` is the IPv4 address of an Asterisk in another network
    namespace. It is None for an Asterisk in this one, and also if the other namespace does not have exactly
    one address.
    """

    server: Server
    version: str
    files: AsteriskFiles
    logs: Path | None
    logs_inside: Path
    drivers: tuple[str, ...]
    address: str | None
    console: Console

    @property
    def contained(self) -> bool:
        """Whether Asterisk runs in a container.

        It does if its configuration folder has another path on this host than inside Asterisk's root folder,
        or if Asterisk is in another network namespace.
        """
        return self.files.named not in {None, self.files.folder} or not self.server.same_network

    @property
    def reader(self) -> Server | None:
        """The process with whose rights setup checks that Asterisk can read a file.

        None for a container: then setup checks with its own rights. With Asterisk's rights the check would
        wrongly fail, because on this host only root can enter the folders above the container's volume.
        """
        return None if self.contained else self.server


def find_asterisk(proc: Path = PROC) -> FoundAsterisk:
    """Return the Asterisk that runs on this host; raise SetupError if there is none, or more than one.

    :func:`~ringfence.host.console.likely_servers` decides which Asterisk counts.
    """
    found = likely_servers(FOLDER, proc)
    if not found:
        others = names_of(servers(proc))
        only = f", only {others} of a user that is neither asterisk nor the owner of an Asterisk folder"
        raise SetupError(
            f"no running Asterisk is visible here{only if others else ''}; fix: start it (systemctl start "
            "asterisk), or run this as root on its host"
        )
    if len(found) > 1:
        raise SetupError(
            f"several Asterisks run here: {names_of(found)}; setup connects exactly one; fix: write one "
            "[[asterisk]] for each, see docs/configuration.md"
        )
    return inspect(found[0], proc)


def inspect(server: Server, proc: Path = PROC) -> FoundAsterisk:
    """Return what an Asterisk reports about itself at its console, with the paths of its folders.

    Raise SetupError if it does not report its folders, or if its configuration folder has no path on this
    host.
    """
    console = SocketConsole(server, proc)
    shown = settings_from(console.show("core show settings") or "")
    folder, logs = shown.get("configuration directory"), shown.get("log directory")
    if folder is None or logs is None:
        why = console.problem or "its console does not know `core show settings`"
        raise SetupError(f"Asterisk (process {server.pid}) cannot be asked for its folders: {why}")
    files = files_of(server, Path(folder), proc)
    if files is None:
        raise SetupError(
            f"the configuration folder of Asterisk (process {server.pid}), {printable(folder)}, is only in "
            "its container, and changes there are lost with it; fix: make that folder a volume"
        )
    if not is_asterisks(files.folder, server):
        raise SetupError(
            f"Asterisk (process {server.pid}) reports {printable(str(files.folder))} as its configuration "
            "folder, which is neither its user's nor a folder with modules.conf and asterisk.conf; fix: "
            "check its asterisk.conf"
        )
    log_folder = host_path(proc / str(server.pid), Path(logs))
    return FoundAsterisk(
        server,
        shown.get("version", "of an unknown version"),
        files,
        log_folder if log_folder is not None and owner_of(log_folder) == [server.uid] else None,
        Path(logs),
        drivers_from(console.show("module show like chan_") or ""),
        None if server.same_network else _address(server, proc),
        console,
    )


def reload_command(server: Server, user: str) -> tuple[str, ...]:
    """Return the command by which root makes Asterisk open its logs again, with the rights of ``user`` only.

    Asterisk's program reads the files of Asterisk's user, so root must not run it with its own rights.
    """
    try:
        options = dict(getopt.getopt(server.command[1:], OPTIONS)[0])
    except getopt.GetoptError:
        options = {}
    file = options.get("-C")
    if file and not file.isprintable():
        return ()  # a newline could end the script of logrotate that contains this command
    return (
        *("setpriv", f"--reuid={user}", f"--regid={server.gid}", "--clear-groups", "--no-new-privs"),
        *(server.program, *(("-C", file) if file else ()), "-rx", "logger reload"),
    )


def drivers_from(text: str) -> tuple[str, ...]:
    """Return the running channel drivers that ringfence knows.

    ``text`` is the output of ``module show like chan_``.
    """
    rows = [match for line in text.split("\n") if (match := _MODULE.fullmatch(line))]
    names = {"chan_pjsip": "PJSIP", "chan_sip": "chan_sip", "chan_iax2": "IAX2"}
    return tuple(names[row[1]] for row in rows if "Not Running" not in row[0])


def _address(server: Server, proc: Path) -> str | None:
    """Return the IPv4 address of the network namespace in which a server runs. Loopback does not count.

    Return None if there is no address or more than one, or if the addresses cannot be read.
    """
    try:
        text = (proc / str(server.pid) / "net" / "fib_trie").read_text("ascii", "replace")
    except OSError:
        return None
    found: list[str] = []
    last = ""
    for line in text.split("\n"):
        if "|-- " in line:
            last = line.partition("|-- ")[2].strip()
        elif "/32 host LOCAL" in line and last not in found and not ip_address(last).is_loopback:
            found.append(last)
    return found[0] if len(found) == 1 else None


# -- networks that setup proposes for the allow list: local ones, trunks, the administrator's own address
#
# Some addresses need no entry, because the daemon never bans them: loopback, this host's own addresses, its
# gateways and resolvers, and the addresses of remote logins on this host (``host/protected.py``).


MOST = 200
"""The maximum number of trunks that setup proposes. Further trunks are left out."""
_WIDEST = {4: 8, 6: 32}
"""The shortest prefix length of a trunk's network, by IP version.

Wider networks are left out, because they would exempt a large part of the Internet.
"""


def networks_to_exempt(
    asterisk: FoundAsterisk, environ: Mapping[str, str] = os.environ
) -> tuple[dict[Network, str], list[str]]:
    """Return the networks that setup proposes, each with its reason, and a line for each problem."""
    problems = []
    found: dict[Network, str] = {}
    try:
        local = read_local_networks()
    except HostError as error:
        local = {}
        problems.append(str(error))
    for network, link in local.items():
        found[network] = f"the network of {link}" if link else "a local network"
    trunks = [
        *identifies_from(asterisk.console.show("pjsip show identifies") or ""),
        *peers_from(asterisk.console.show("sip show peers") or ""),
    ]
    found.update(trunks_in(trunks))
    client = ssh_client(environ)
    if client is not None:
        found.setdefault(client, "your SSH session comes from there")
    return without_parts(found), problems


def trunks_in(trunks: Iterable[Trunk]) -> dict[Network, str]:
    """Return the networks of the first 200 (``MOST``) trunks, each with the trunk's name as its reason.

    Networks that are too wide are left out.
    """
    kept = [trunk for trunk in trunks if trunk.network.prefixlen >= _WIDEST[trunk.network.version]][:MOST]
    return {trunk.network: f"trunk {printable(trunk.name)}" for trunk in kept}


def ssh_client(environ: Mapping[str, str]) -> Network | None:
    """Return the address of the SSH client that uses this shell.

    Return None if the shell is not used by SSH, or if the client's address is invalid or a loopback address.
    """
    host = environ.get("SSH_CONNECTION", "").partition(" ")[0].partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    return None if address.is_loopback else ip_network(address)


def without_parts(networks: Mapping[Network, str]) -> dict[Network, str]:
    """Return the networks, each with its reason. A network that lies in another of them is left out."""
    return {
        network: why
        for network, why in networks.items()
        if not any(contains(other, network) for other in networks if other != network)
    }


SERVICE_USER = "ringfence"
_UFW = Path("/etc/ufw/ufw.conf")


@frozen
class Owner:
    """The user and the group of the daemon."""

    uid: int
    gid: int


@frozen
class Found:
    """All that setup needs to know about this host.

    ``logger`` is the state of logger.conf; None if there is no such file. ``others`` are programs that may
    guard Asterisk. ``firewall`` is a text that describes the firewall. ``exempt`` has the networks that setup
    proposes for the allow list, with the reasons. ``notes`` are lines about what could not be found.
    """

    asterisk: FoundAsterisk
    layout: Layout
    manager: ManagerConf
    logger: FileState | None
    owner: Owner
    others: tuple[Any, ...]
    firewall: str
    exempt: Mapping[Network, str]
    notes: tuple[str, ...] = ()


def find(paths: HostPaths) -> Found:
    """Inspect this host; raise SetupError if setup cannot work here. Changes nothing."""
    owner = service_owner()
    asterisk = find_asterisk()
    manager = read_manager(asterisk.files, asterisk.reader)
    logger = checked_state(asterisk.files, LOGGER, asterisk.reader)
    texts = {MANAGER: manager.text, LOGGER: text_of(logger)}
    layout = layout_of(asterisk.files.folder, lambda path: texts[path.name], may_change)
    exempt, notes = networks_to_exempt(asterisk)
    for notes_of in street.functions("setup", "notes"):
        notes += notes_of(asterisk.files, asterisk.console)
    return Found(
        asterisk,
        layout,
        manager,
        logger,
        owner,
        other_guards(paths.etc),
        "; ".join([_backend(), *_firewalls()]),
        exempt,
        tuple(notes),
    )


def service_owner() -> Owner:
    """Return the user and the group of the service; raise SetupError if there is no such user."""
    try:
        found = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        raise SetupError(
            f"there is no user {SERVICE_USER}, as which the service runs; fix: install the package, or run "
            "systemd-sysusers, see docs/install.md"
        ) from None
    return Owner(found.pw_uid, found.pw_gid)


def found_lines(found: Found) -> Iterator[str]:
    """Yield lines that describe what setup found on this host."""
    asterisk, manager = found.asterisk, found.manager
    drivers = ", ".join(asterisk.drivers) or "no channel driver that ringfence knows"
    yield f"Asterisk  {printable(asterisk.version)}, process {asterisk.server.pid}, {drivers}"
    where = " in a container" if asterisk.contained else ""
    yield f"layout    {found.layout.name}{where}, {asterisk.files.folder}"
    state = f"on {manager.bindaddr or 'every address'}, port {manager.port}" if manager.enabled else "off"
    yield f"AMI       {state}"
    yield f"firewall  {found.firewall}"
    yield from (other.found for other in found.others)
    for note in found.notes:
        yield f"note      {note}"


def _backend() -> str:
    """Return a text: the firewall backend that the daemon will choose, and why.

    Raise FirewallError if none works on this host.
    """
    backend, why = choose_backend()
    backend.close()
    return f"{backend.name} ({why})"


def _firewalls() -> Iterator[str]:
    """Yield a text for each other program that manages this host's firewall.

    ringfence does not conflict with them, so they keep running.
    """
    for name in ("firewalld", "voipfirewalld"):
        if any(True for _ in processes(name)):
            yield f"{name} runs, and stays"
    try:
        lines = _UFW.read_text("utf-8", "replace").split("\n")
    except OSError:
        return
    if "ENABLED=yes" in lines:
        yield "ufw is on, and stays"
