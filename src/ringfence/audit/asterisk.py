"""Asterisk's logging according to its own files: its log files, and settings that hide attempts from them.

The result only informs the administrator about gaps; ringfence works without it. The files may have changed
since Asterisk read them.
"""

import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from ringfence.host.asterisk_conf import FOLDER, Conf, Section, Wanted, is_true, read_conf
from ringfence.host.conf_reader import Unread
from ringfence.model import Network
from ringfence.sources.state import CHAN_SIP_TLS

if TYPE_CHECKING:
    from ringfence.host.console import Console


# -- findings of ``check``: one line each


@frozen
class Finding:
    """One line of ``check``: the subject, its state, and a detail or fix.

    ``right`` is True if the state is right, False if it is wrong, None if it is unknown or may be intended.
    """

    right: bool | None
    what: str
    detail: str = ""

    @property
    def line(self) -> str:
        """The finding as a line for people."""
        mark = {True: "ok", False: "NO", None: "--"}[self.right]
        return ": ".join(filter(None, [f"{mark:3} {self.what}", self.detail]))

    @property
    def as_json(self) -> dict[str, bool | str | None]:
        """The finding as an object for scripts."""
        return {"right": self.right, "what": self.what, "detail": self.detail}


# -- parsers for the output of Asterisk's console: trunks, settings, and contexts of the dialplan
#
# These tables are made for people, and differ slightly between releases. Unexpected rows are skipped: the
# results are hints for an administrator, and a wrong hint is worse than none.


MAX_ROWS = 100_000

_IDENTIFY = re.compile(r" Identify:  ([^/\s]{1,80})/(\S{1,80})")
_MATCH = re.compile(r"      Match: ([0-9a-fA-F.:]{2,39}/[0-9]{1,3})")
_HOST = re.compile(r"[0-9a-fA-F.:]{2,39}")
_SETTING = re.compile(r"  ([^:]{1,40}):[ \t]+(\S.*)")
_STEP = re.compile(r" {1,25}(?:\[[^\]]{1,80}\] {1,25})?([0-9]{1,9})\. (.*)")
_TARGET = re.compile(r"  (Include|Alt\. Switch) => +'([^']{1,160})'.*")
_EXTENSION = re.compile(r"  '([^']{1,160})' (?:\(CID match '[^']*'\) )?=> (.*)")
_GLOBAL = re.compile(r" {1,4}([^= ]{1,80})=(.*)")


@frozen
class Trunk:
    """A remote party that Asterisk identifies by address alone: Asterisk's name for it, and its network."""

    name: str
    network: Network


@frozen
class Step:
    """A step of the dialplan: its extension or pattern, its priority, the application with its arguments."""

    extension: str
    priority: int
    application: str


@frozen
class Context:
    """A context of the dialplan: its own steps, and the names of included contexts and of switches."""

    steps: tuple[Step, ...] = ()
    includes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


def identifies_from(text: str) -> list[Trunk]:
    """Parse ``pjsip show identifies``: return each network by which Asterisk identifies an endpoint.

    An endpoint that is identified by a header (``X-Token: ...``) is skipped: the header contains no address,
    and its value is secret.
    """
    found, endpoint = [], ""
    for line in _rows(text):
        if header := _IDENTIFY.fullmatch(line.rstrip()):
            endpoint = header[2]
        elif endpoint and (match := _MATCH.fullmatch(line.rstrip())):
            network = _network(match[1])
            found += [Trunk(endpoint, network)] if network else []
    return found


def peers_from(text: str) -> list[Trunk]:
    """Parse ``sip show peers``: return the peers with a fixed address, which do not register.

    The columns are found by their headings. Asterisk cuts a name after 25 characters.
    """
    found: list[Trunk] = []
    columns: tuple[int, int, int] | None = None
    for line in _rows(text):
        if columns is None:
            places = line.find("Host "), line.find(" Dyn "), line.find(" Forcerport")
            columns = places if line.startswith("Name/username ") and min(places) > 0 else None
            continue
        host, dynamic, end = columns
        name, address = line[:host].split("/")[0].strip(), line[host:dynamic].strip()
        if line[dynamic:end].strip() or not name or not _HOST.fullmatch(address):
            continue  # a phone that registers, an "(Unspecified)" address, or the line with the totals
        network = _network(address)
        found += [Trunk(name, network)] if network else []
    return found


def settings_from(text: str) -> dict[str, str]:
    """Parse a table of settings, such as ``sip show settings``: return the values by name.

    Names are in lower case. If a name occurs twice, its first value counts.
    """
    found: dict[str, str] = {}
    for line in _rows(text):
        if match := _SETTING.fullmatch(line.rstrip()):
            found.setdefault(match[1].strip().lower(), match[2].strip())
    return found


def context_from(text: str) -> Context | None:
    """Parse ``dialplan show CONTEXT``: return the context; None if the output contains none."""
    steps: list[Step] = []
    includes: list[str] = []
    switches: list[str] = []
    extension, begun = "", False
    for line in _rows(text):
        if line.startswith("[ Context '"):
            begun = True
        elif target := _TARGET.fullmatch(line):
            (includes if target[1] == "Include" else switches).append(target[2])
        elif begun:
            first = _EXTENSION.fullmatch(line)
            if first:
                extension = first[1]
            step = _STEP.fullmatch(" " + first[2] if first else line)
            if step and extension:
                steps.append(Step(extension, int(step[1]), step[2].rpartition(" [")[0].strip()))
    return Context(tuple(steps), tuple(includes), tuple(switches)) if begun else None


def globals_from(text: str) -> dict[str, str]:
    """Parse ``dialplan show globals``: return the values of global variables by name."""
    return {match[1]: match[2].strip() for line in _rows(text) if (match := _GLOBAL.fullmatch(line))}


def _rows(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n")):
        if number == MAX_ROWS:
            return
        yield line


def _network(text: str) -> Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    address = ip_address(network.network_address)
    return None if address.is_loopback or (address.is_unspecified and network.prefixlen) else network


LEVELS = frozenset({"debug", "notice", "warning", "error", "verbose", "dtmf", "fax", "security"})
DUMPING = frozenset({"debug", "warning", "error", "verbose"})
"""Levels that log packets of callers unchanged, with their line ends. So callers can forge log lines."""

_LOGS = "/var/log/asterisk"
_FORMATTER = re.compile(r"\[[a-z]*\]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_FILES = ("console", "syslog")


@frozen
class Gate:
    """PJSIP's limit for reports about unknown callers.

    It is in force if ``endpoint_identifier_order`` contains auth_username. Asterisk then counts the requests
    of each unknown caller. It reports them from number ``count`` on, but only in the first ``period`` seconds
    after the caller's first request. Later requests are not reported until Asterisk forgets the caller. Every
    ``prune`` seconds it forgets the callers whose first request was more than four periods ago.
    """

    count: int = 5
    period: int = 5
    prune: int = 30

    @property
    def mute(self) -> int:
        """The longest time (seconds) from a caller's first request until Asterisk forgets the caller.

        Asterisk reports nothing about it in this time, except in its first ``period`` seconds.
        """
        return 4 * self.period + self.prune


@frozen
class Asterisk:
    """Settings about logging, as Asterisk's files configure them.

    ``channels``: each log file with its levels. ``security``: the module that logs security events is loaded.
    ``iax_silent``: failed IAX2 logins are not logged. ``gate``: PJSIP's limit for reports about unknown
    callers, None if it is not in force. ``chan_sip_tls``: chan_sip is configured to serve TLS. ``unread``:
    parts of the files that are not known.
    """

    channels: Mapping[Path, frozenset[str]]
    security: bool
    iax_silent: bool
    gate: Gate | None
    chan_sip_tls: bool
    unread: tuple[Unread, ...]


def read_asterisk(folder: Path = FOLDER) -> Asterisk | None:
    """Return the settings about logging in the files of ``folder``; None if it contains no asterisk.conf."""
    asterisk = read_conf(folder / "asterisk.conf", _options("astlogdir"))
    if asterisk is None:
        return None
    read = {
        "asterisk.conf": asterisk,
        "logger.conf": read_conf(
            folder / "logger.conf", lambda section, name: section == "logfiles" or name == "appendhostname"
        ),
        "modules.conf": read_modules(folder),
        "iax.conf": read_conf(folder / "iax.conf", _options("authdebug")),
        "sip.conf": read_conf(folder / "sip.conf", _options("tlsenable")),
        "pjsip.conf": read_conf(
            folder / "pjsip.conf", _options("type", "endpoint_identifier_order", *_GATE.values())
        ),
    }
    modules = read["modules.conf"]
    drivers = (("iax.conf", "chan_iax2"), ("sip.conf", "chan_sip"), ("pjsip.conf", "res_pjsip"))
    iax, sip, pjsip = (read[name] if is_loaded(modules, module) else None for name, module in drivers)
    return Asterisk(
        channels=_channels(read["logger.conf"], asterisk.section("directories").last("astlogdir", _LOGS)),
        security=is_loaded(modules, "res_security_log"),
        iax_silent=iax is not None and not is_true(iax.section("general").last("authdebug")),
        gate=None if pjsip is None else _gate(pjsip),
        chan_sip_tls=sip is not None and is_true(sip.section("general").last("tlsenable")),
        unread=unread_of(read.values()),
    )


def unread_of(read: Iterable[Conf | None]) -> tuple[Unread, ...]:
    """Return the parts of these files that are not known."""
    return tuple(one for conf in read if conf is not None for one in conf.unread)


def read_modules(folder: Path) -> Conf | None:
    """Read the options of modules.conf that decide which modules are loaded.

    Return None if there is no such file.
    """
    return read_conf(folder / "modules.conf", _options("autoload", "noload", *_LOADING))


_LOADING = ("load", "require", "preload", "preload-require")
_GATE = {
    "count": "unidentified_request_count",
    "period": "unidentified_request_period",
    "prune": "unidentified_request_prune_interval",
}


def _options(*names: str) -> Wanted:
    """Return a filter for options with these names, in any section."""
    return lambda _, name: name in names


def is_loaded(modules: Conf | None, module: str) -> bool:
    """Whether Asterisk loads ``module``; ``modules`` is modules.conf, None if the file does not exist."""
    section = modules.section("modules") if modules is not None else Section("modules")

    def named(*options: str) -> bool:
        given = [value for option in options for value in section.values(option)]
        return module in [value.removesuffix(".so") for value in given]

    return not named("noload") and (is_true(section.first("autoload")) or named(*_LOADING))


def _channels(logger: Conf | None, logs: str) -> dict[Path, frozenset[str]]:
    """Return the log files, with the levels of each. Relative names are relative to the folder ``logs``."""
    if logger is None:
        return {}
    named = is_true(logger.section("general").first("appendhostname"))
    channels = {}
    for name, levels in logger.section("logfiles").options:
        if not name.startswith(_NO_FILES):
            channels[Path(logs, f"{name}.{platform.node()}" if named else name)] = _levels(levels)
    return channels


def _levels(text: str) -> frozenset[str]:
    """Return the level names in a text such as ``[json]notice,verbose(3)``; ``*`` means all levels.

    The format in brackets and the number in parentheses are left out.
    """
    names = {name.partition("(")[0].strip() for name in _FORMATTER.sub("", text.lower()).split(",")}
    return LEVELS if "*" in names else frozenset(names - {""})


def _gate(pjsip: Conf) -> Gate | None:
    settings = [section for section in pjsip.sections if section.last("type").lower() == "global"]
    if not settings:
        return None
    order = settings[-1].last("endpoint_identifier_order").split(",")
    if "auth_username" not in [name.strip() for name in order]:
        return None
    numbers = {
        name: int(text)
        for name, option in _GATE.items()
        if _NUMBER.fullmatch(text := settings[-1].last(option))
    }
    return Gate(**numbers)


# -- findings of ``check`` about settings of Asterisk that hide attempts from all its logs


ELSEWHERE = (
    'asterisk -rx "logger show channels", asterisk -rx "pjsip show settings", and authdebug in iax.conf'
)
"""Where an administrator finds the settings that ``check`` could not read: commands and a file."""


def asterisk_findings(asterisk: "Asterisk | None", console: "Console") -> Iterator[Finding]:
    """Yield a finding for each setting that hides attempts; if there is none, a finding that says so.

    ``asterisk`` is None if Asterisk's files cannot be read here. In this case, and if only a part of the
    files can be read, yield a finding with the commands that show such settings to the administrator.
    """
    what = "asterisk's settings"
    if asterisk is None:
        yield Finding(None, what, f"cannot be read from here; on its host, see: {ELSEWHERE}")
        return
    closed = [one.text for one in asterisk.unread if one.closed]
    if closed:
        names = ", ".join(closed)
        yield Finding(
            None, what, f"not all files can be read ({names}); fix: run this as root, or see: {ELSEWHERE}"
        )
    yield from unknown_findings(what, asterisk.unread)
    if asterisk.iax_silent:
        yield Finding(
            None,
            f"{what}: IAX2",
            "failed logins are logged nowhere; fix: authdebug = yes in iax.conf [general]",
        )
    gate = asterisk.gate
    if gate is not None:
        yield Finding(
            None,
            f"{what}: PJSIP",
            f"unknown callers are reported only from request {gate.count} within {gate.period} s on, "
            f"and then not at all for up to {gate.mute} s (unidentified_request_count, _period, "
            "_prune_interval); fix: remove auth_username from endpoint_identifier_order, unless needed",
        )
    chan_sip_tls = _chan_sip_tls(asterisk, console)
    if chan_sip_tls:
        yield Finding(None, f"{what}: chan_sip", CHAN_SIP_TLS)
    if not asterisk.unread and not asterisk.iax_silent and gate is None and not chan_sip_tls:
        yield Finding(True, what, "no setting hides attempts from its logs")


def unknown_findings(what: str, unread: Iterable[Unread]) -> Iterator[Finding]:
    """Yield a finding for each part of Asterisk's files that is not understood, though it may be read.

    Asterisk refuses most of these parts too. But it may still have other settings from before, and it refuses
    the file at its next start.
    """
    for one in dict.fromkeys(unread):
        if not one.closed:
            yield Finding(False, f"{what}: {one.file}", f"{one.text}; fix: correct this, then check again")


def _chan_sip_tls(asterisk: "Asterisk", console: "Console") -> bool:
    """Whether chan_sip serves TLS: the console's answer, or else what sip.conf configures.

    The file decides only if the console cannot be used. A new Asterisk has no chan_sip, but often still a
    sip.conf. Its console does not know the command; then the result is False.
    """
    shown = settings_from(console.show("sip show settings") or "").get("tls sip bindaddress")
    return shown != "Disabled" if shown else bool(console.problem) and asterisk.chan_sip_tls
