"""The texts that setup writes into Asterisk's and the host's configuration.

They set the same options as the files in ``contrib/asterisk``, where long comments explain them. A test
compares both.
"""

import shlex
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from operator import attrgetter
from pathlib import Path
from typing import Any

from attrs import frozen

from ringfence.config.converters import toml_of
from ringfence.errors import SetupError
from ringfence.host.conf_lines import conf_lines, directive_of
from ringfence.host.hosts_file import hosts_line
from ringfence.values.network import Network
from ringfence.values.secret import Secret

# -- the files and folders of the host that setup reads and writes, except those of Asterisk


@frozen
class HostPaths:
    """The paths of ringfence's own files, and of files and folders of other programs that setup uses.

    ``state`` has setup's journal, and the originals of all changed files. It belongs to root alone. It is not
    in ``data``, the folder of the service's user: that user could write a false journal there, and
    ``setup --undo``, which runs as root, would then overwrite any file. ``etc`` has the configurations of
    other programs.
    """

    config: Path = Path("/etc/ringfence/ringfence.toml")
    secret: Path = Path("/etc/ringfence/asterisk.secret")
    logs: Path = Path("/var/log/ringfence")
    logrotate: Path = Path("/etc/logrotate.d/ringfence")
    state: Path = Path("/var/lib/ringfence-setup")
    data: Path = Path("/var/lib/ringfence")
    etc: Path = Path("/etc")
    systemd: Path = Path("/run/systemd/system")
    hosts: Path = Path("/etc/hosts")


# -- changes to the text of Asterisk's configuration files and of the hosts file. The rest stays as it is


_IPV4 = 4
MARK = "; Added by `ringfence setup`; `ringfence setup --undo` removes it."


def includes(text: str) -> list[str]:
    """Return the files that an Asterisk configuration ``text`` includes, in order. Names may have ``*``."""
    lines = conf_lines(text.encode("utf-8", "surrogateescape"))
    found = (directive_of(line) for _, line in lines if line.startswith(b"#"))
    names = [name for command, name in found if command in {b"include", b"tryinclude"} and name]
    return [name.decode("utf-8", "surrogateescape") for name in names]


def appended(text: str, addition: str) -> str:
    """Return ``text`` with the lines ``addition`` added at its end."""
    end = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{end}{addition}"


def with_host(text: str, name: str, own: Collection[Network], full: Callable[[str], str]) -> str:
    """Return the ``text`` of a hosts file with ``name``, the name of this host. ``own`` are its addresses.

    If the first name of a line with an own or loopback address is ``name`` with a domain, ``name`` is added
    to this line. Otherwise a line is added, with the name that ``full`` returns for ``name``: the one with
    the domain. So the host's full name (``hostname --fqdn``) keeps the domain.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        entry = line.partition("#")[0].rstrip()
        words = entry.split()
        if len(words) > 1 and words[1].lower().startswith(f"{name.lower()}.") and _is_own(words[0], own):
            lines[number] = f"{entry} {name}{line[len(entry) :]}"
            return "\n".join(lines)
    return appended(text, f"{hosts_line(name, full(name))}\n")


def _is_own(address: str, own: Collection[Network]) -> bool:
    """Whether a look-up by IPv4 finds the names beside ``address``, and the address is this host's.

    For such a look-up, the C library ignores the lines of IPv6 addresses except ::1.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return found.is_loopback or (found.version == _IPV4 and ip_network(found) in own)


def with_include(text: str, name: str) -> str:
    """Return an Asterisk configuration ``text`` with an additional last line that includes ``name``.

    Asterisk ignores this line (``#tryinclude``) if the file does not exist. A text that includes it already
    is returned as it is.
    """
    if name in includes(text):
        return text
    return appended(text, f'\n{MARK}\n#tryinclude "{name}"\n')


def with_general(text: str, option: str, value: str, *, included: bool = False) -> str:
    """Return an Asterisk configuration ``text`` with an option of section ``[general]`` set to ``value``.

    The last line that sets the option gets the new value, and keeps its comments. If no line sets it, a line
    is added after the section's head. If the section does not exist, it is added at the end. ``included``: an
    included file has the section, so the end of the text adds to it.
    """
    lines = text.split("\n")
    own = _general(text)
    settings = [one for one in own if one[1].partition(b"=")[0].strip().lower() == option.encode()]
    if settings:
        number, old = settings[-1][0] - 1, settings[-1][1].decode("utf-8", "surrogateescape")
        new = f"{option} = {value}"
        lines[number] = lines[number].replace(old, new) if old in lines[number] else new
        return "\n".join(lines)
    if not own:
        return appended(text, f"\n[general]{'(+)' if included else ''}\n{option} = {value}\n")
    head = own[0][0]
    return "\n".join([*lines[:head], f"{option} = {value}", *lines[head:]])


def _general(text: str) -> list[tuple[int, bytes]]:
    """Return the lines of ``[general]``, with their numbers: the first such section, and additions to it.

    Asterisk ignores the options of a second section of this name, and those of a template.
    """
    found: list[tuple[int, bytes]] = []
    inside = False
    for number, line in conf_lines(text.encode("utf-8", "surrogateescape")):
        if line.startswith(b"["):
            name, _, rest = line[1:].partition(b"]")
            marks = rest[1:].partition(b")")[0].split(b",") if rest.startswith(b"(") else []
            adds = any(mark.startswith(b"+") for mark in marks)
            inside = name.lower() == b"general" and b"!" not in marks and (adds or not found)
        if inside:
            found.append((number, line))
    return found


# -- the text of ``ringfence.toml`` that setup writes


_HEAD = """\
# ringfence: written by `ringfence setup`. docs/configuration.md and examples/full.toml have every key with
# its default. After a change: ringfence reload

[[asterisk]]

[asterisk.ami]
"""
_ALLOW = """\

# Networks that are never banned. Add your office, your trunk providers, and a SIP proxy or SBC in front of
# this PBX.
[allow]
"""


def settings_text(
    secret: Path,
    networks: Mapping[Network, str],
    ami: Sequence[tuple[str, str | int]],
    logs: Sequence[Path] | None,
) -> str:
    """Return the text of ringfence.toml.

    ``secret`` is the file with the password. ``networks`` are allowed, each with a reason that becomes a
    comment. ``ami`` has the keys of ``[asterisk.ami]`` that differ from the defaults. ``logs`` are the logs
    to read; [] for none, and None if the daemon finds the log without a setting.
    """
    keys = [*ami, ("secret_file", str(secret))]
    parts = [_HEAD, *(f"{key} = {toml_of(value)}\n" for key, value in keys)]
    if logs is not None:
        parts += ["\n[asterisk.logs]\n", f"paths = {toml_of([str(path) for path in logs])}\n"]
    parts.append(_ALLOW)
    if networks:
        rows = [f"    {toml_of(str(network))},  # {why}\n" for network, why in sorted_networks(networks)]
        parts += ["networks = [\n", *rows, "]\n"]
    else:
        parts.append("networks = []\n")
    return "".join(parts)


def added_text(text: str) -> str:
    """Return the text that features have added to ``text``, a configuration of :func:`settings_text`.

    This is everything after the table ``[allow]``; "" if there is nothing.
    """
    _, blank, added = text.partition("\n[allow]\n")[2].partition("\n\n")
    return f"\n{added}" if blank else ""


def sorted_networks(networks: Mapping[Network, str]) -> list[tuple[Network, str]]:
    """Return networks in a fixed order, so that a second run writes the same text."""
    ordered = sorted(networks, key=attrgetter("version", "network_address", "prefixlen"))
    return [(network, networks[network]) for network in ordered]


def is_untouched(text: str) -> bool:
    """Whether the administrator has not changed the configuration that the package installs.

    Such a configuration has at most one Asterisk, of which only ``secret_file`` in ``[asterisk.ami]`` is set,
    and only empty lists in ``[allow]``. Return False if the text is not valid TOML.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    pbx = tables.pop("asterisk", [{}])
    allow = tables.pop("allow", {})
    if tables or len(pbx) != 1 or any(allow.values()):
        return False
    ami = pbx[0].pop("ami", {})
    return not pbx[0] and not ami.keys() - {"secret_file"}


# contrib/asterisk/ringfence.manager.conf has the same filter, and explains it.
_FILTER = (
    "eventfilter = !^Event: [A-Za-z]+..Privilege: security,all..((Timestamp|SequenceNumber|File|Line|Func|"
    "SystemName): [^[:cntrl:]]*..)*EventTV: [-+:.0-9T]+..Severity: Error..Service: AMI"
)
_LOOPBACK = (ip_network("127.0.0.1"), ip_network("::1"))


def manager_user(secret: Secret, permit: Sequence[Network] = (), *, web: bool = False) -> str:
    """Return the section of manager.conf for ringfence's manager user.

    The user may log in from loopback and from the networks ``permit``. ``web``: AMI is also served over HTTP.
    """
    permits = [f"permit = {_with_mask(network)}" for network in (*_LOOPBACK, *permit)]
    lines = [
        MARK,
        "[ringfence]",
        f"secret = {secret.reveal()}",
        "deny = 0.0.0.0/0.0.0.0",
        "deny = ::/0",
        *permits,
        "; security: the security events. system: which phones come and go, and when Asterisk has started.",
        "read = security,system",
        "; To ask which phones and trunks are registered. This class can read the passwords of trunks.",
        "write = reporting",
        *(["; AMI over HTTP is on: its clients could write forged events into a user name.", _FILTER] * web),
        "; Milliseconds. The default of 100 is too short for a host that is busy for a moment.",
        "writetimeout = 10000",
    ]
    return "\n".join(lines) + "\n"


def log_channel(
    file: Path, present: Collection[str] = ("general", "logfiles"), *, alone: bool = False
) -> str:
    """Return the log channel that writes to ``file``, a path in Asterisk's own root folder.

    ``present`` are the sections that logger.conf has already: the text adds to these, because Asterisk uses
    only the first section of a name. ``alone``: there is no logger.conf. Asterisk then shows warnings on its
    console, and continues to do so.
    """
    general, logfiles = (f"[{name}]{'(+)' if name in present else ''}" for name in ("general", "logfiles"))
    lines = [
        MARK,
        general,
        "; The year and milliseconds, in all of Asterisk's logs.",
        "dateformat = %F %T.%3q",
        "",
        logfiles,
        *(["console => notice,warning,error"] * alone),
        "; Neither warning nor error: with these levels callers can write whole lines of this log.",
        f"{file} => notice,security",
    ]
    return "\n".join(lines) + "\n"


def logrotate(file: Path, user: str, command: Sequence[str]) -> str:
    """Return logrotate's configuration for the log ``file``, which Asterisk's user ``user`` writes.

    ``command`` makes Asterisk open the log again; without it, nothing does. It may contain any characters.
    """
    lines = [
        "# Made by `ringfence setup`. contrib/asterisk/ringfence.logrotate has the reasons.",
        f"{file} {{",
        f"    su {user} ringfence",
        "    daily",
        "    maxsize 100M",
        "    rotate 7",
        "    missingok",
        "    notifempty",
        "    nocreate",
        "    compress",
        "    delaycompress",
    ]
    if command:
        script = f"        {shlex.join(command)} > /dev/null 2>&1 || true"
        lines += ["    postrotate", script, "    endscript"]
    lines.append("}")
    return "\n".join(lines) + "\n"


def _with_mask(network: Network) -> str:
    """Return a network as Asterisk's samples write it: IPv4 with a mask, IPv6 with a length."""
    return network.with_netmask if network.version == 4 else str(network)  # noqa: PLR2004 - the IP version


# -- the files into which setup writes its manager user and its log channel
#
# They depend on the layout of Asterisk's configuration folder. The layout is recognized by the files that
# ``manager.conf`` and ``logger.conf`` (the main files) include, because Asterisk reads exactly these. The
# name of a product would not be enough: its files may have been changed, or be those of an older release.
# Files that a product generates are never changed.


MANAGER, LOGGER = "manager.conf", "logger.conf"


@frozen
class Target:
    """A file to which setup adds a text; ``file`` is its path in Asterisk's configuration folder.

    ``own``: the file has only this text. ``include`` is the name that the main file must include so that
    Asterisk reads the file; "" if the main file includes it already.
    """

    file: str
    own: bool = True
    include: str = ""


@frozen
class Layout:
    """A layout of the configuration folder: its name, and the files for the manager user and the log channel.

    ``generated``: another program writes the main files, so setup must not change them.
    """

    name: str
    manager: Target
    logger: Target
    generated: bool = False


@frozen
class _Kind:
    """A PBX product (such as FreePBX) and its layout.

    A configuration folder belongs to the product if its manager.conf includes the file that ``manager``
    names, and its logger.conf the file that ``logger`` names. ``generated``: see :class:`Layout`.
    """

    name: str
    manager: Target
    logger: Target
    generated: bool


PLAIN = Layout(
    "plain Asterisk",
    Target("manager.d/ringfence.conf", include="manager.d/ringfence.conf"),
    Target("ringfence.logger.conf", include="ringfence.logger.conf"),
)
# In Debian's package /etc/asterisk is Asterisk's and manager.d in it is root's. Setup uses what is below a
# folder of Asterisk's user with the rights of this user alone, so it cannot write there.
_BESIDE = Target("ringfence.manager.conf", include="ringfence.manager.conf")
_KINDS = (
    _Kind(
        "VitalPBX",
        Target("vitalpbx/manager__60-ringfence.conf"),
        Target("vitalpbx/logger__60-ringfence.conf"),
        generated=True,
    ),
    _Kind(
        "FreePBX or Issabel",
        Target("manager_custom.conf", own=False),
        Target("logger_logfiles_custom.conf", own=False),
        generated=True,
    ),
    _Kind(
        "Wazo",
        Target("manager.d/ringfence.conf"),
        Target("logger.d/ringfence.conf"),
        generated=False,
    ),
)


def layout_of(folder: Path, read: Callable[[Path], str], may_change: Callable[[Path], bool]) -> Layout:
    """Return the layout of a configuration folder.

    ``read`` returns the text of a file, "" without a file. ``may_change`` is whether setup may write in a
    folder.

    A product is recognized if both main files include its file. One of them is not enough: the
    ``manager.conf`` of Debian includes ``manager.d``, as Wazo's does. A folder of no known product is that of
    a plain Asterisk. If only one of its main files includes Wazo's file, setup uses this file as the target,
    if it may write there.

    Raise SetupError if only one main file includes the file of a product that writes the main files itself.
    Setup would have to change the other main file, and the product would overwrite this change.
    """
    manager, logger = (includes(read(folder / name)) for name in (MANAGER, LOGGER))

    def is_open(target: Target) -> bool:
        return may_change((folder / target.file).parent)

    for kind in _KINDS:
        users = _is_included(folder, kind.manager, manager)
        channels = _is_included(folder, kind.logger, logger)
        if users and channels and (kind.generated or (is_open(kind.manager) and is_open(kind.logger))):
            return Layout(kind.name, kind.manager, kind.logger, kind.generated)
        if kind.generated and (users or channels):
            file, main = (kind.logger, LOGGER) if users else (kind.manager, MANAGER)
            raise SetupError(
                f"{folder} looks like {kind.name}, but its {main} does not include {file.file}; fix: update "
                "the product, or change the files by hand, see docs/install.md"
            )
    wazo = _KINDS[-1]
    target = wazo.manager if _is_included(folder, wazo.manager, manager) else PLAIN.manager
    channel = wazo.logger if _is_included(folder, wazo.logger, logger) else PLAIN.logger
    return Layout(
        PLAIN.name,
        target if is_open(target) else _BESIDE,
        channel if is_open(channel) else PLAIN.logger,
    )


def _is_included(folder: Path, target: Target, names: Sequence[str]) -> bool:
    path = str(folder / target.file)
    return any(fnmatchcase(path, str(folder / name)) for name in names)
