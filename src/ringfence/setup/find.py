"""Inspects this host: Asterisk with its configuration, fail2ban, the firewall, and networks to exempt."""

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

from attrs import frozen

from ringfence.audit.asterisk import Trunk, identifies_from, peers_from
from ringfence.errors import ConfigError, HostError, SetupError
from ringfence.fail2ban.jails import read_configuration
from ringfence.firewall import choose_backend
from ringfence.host.processes import processes
from ringfence.host.routes import read_local_networks
from ringfence.model import Network, printable
from ringfence.networks import contains
from ringfence.setup.asterisk import FoundAsterisk, find_asterisk
from ringfence.setup.changes import FileState
from ringfence.setup.manager import ManagerConf, checked_state, read_manager, text_of
from ringfence.setup.texts import LOGGER, MANAGER, HostPaths, Layout, layout_of

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
    """Return the networks of the first ``MOST`` trunks, each with the trunk's name as its reason.

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

    ``logger`` is the state of logger.conf; None if there is no such file. ``jails`` are the names of
    fail2ban's enabled jails that guard Asterisk. ``firewall`` is a text that describes the firewall.
    ``exempt`` has the networks that setup proposes for the allow list, with the reasons. ``notes`` are lines
    about what could not be found.
    """

    asterisk: FoundAsterisk
    layout: Layout
    manager: ManagerConf
    logger: FileState | None
    owner: Owner
    jails: tuple[str, ...]
    firewall: str
    exempt: Mapping[Network, str]
    notes: tuple[str, ...] = ()


def find(paths: HostPaths) -> Found:
    """Inspect this host; raise SetupError if setup cannot work here. Changes nothing."""
    owner = service_owner()
    asterisk = find_asterisk()
    manager = read_manager(asterisk.conf, asterisk.reader)
    logger = checked_state(asterisk.conf / LOGGER, asterisk.reader)
    texts = {MANAGER: manager.text, LOGGER: text_of(logger)}
    layout = layout_of(asterisk.conf, lambda path: texts[path.name])
    exempt, notes = networks_to_exempt(asterisk)
    return Found(
        asterisk,
        layout,
        manager,
        logger,
        owner,
        asterisk_jails(paths.fail2ban),
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


def asterisk_jails(folder: Path) -> tuple[str, ...]:
    """Return the names of fail2ban's enabled jails that guard Asterisk.

    ``folder`` has fail2ban's configuration. Return () if this folder does not exist, or if the configuration
    cannot be read.
    """
    if not folder.is_dir():
        return ()
    try:
        found = read_configuration(folder)
    except ConfigError:
        return ()
    return tuple(jail.name for jail in found.jails if jail.enabled and jail.guards_asterisk)


def found_lines(found: Found) -> Iterator[str]:
    """Yield the lines that describe what was found."""
    asterisk, manager = found.asterisk, found.manager
    drivers = ", ".join(asterisk.drivers) or "no channel driver that ringfence knows"
    yield f"Asterisk  {printable(asterisk.version)}, process {asterisk.server.pid}, {drivers}"
    where = " in a container" if asterisk.contained else ""
    yield f"layout    {found.layout.name}{where}, {asterisk.conf}"
    state = f"on {manager.bindaddr or 'every address'}, port {manager.port}" if manager.enabled else "off"
    yield f"AMI       {state}"
    yield f"firewall  {found.firewall}"
    yield f"fail2ban  {_jails(found.jails)}"
    for note in found.notes:
        yield f"note      {note}"


def _jails(jails: tuple[str, ...]) -> str:
    if not jails:
        return "no enabled jail guards Asterisk"
    return f"{', '.join(printable(jail) for jail in jails)} guards Asterisk, and is disabled after the proof"


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
