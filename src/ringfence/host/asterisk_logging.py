"""Asterisk's logging according to its own files: its log files, and settings that hide attempts from them.

The result only informs the administrator about gaps; ringfence works without it. The files may have changed
since Asterisk read them.
"""

import os
import re
import socket
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from attrs import frozen

from ringfence.host.asterisk_conf import AsteriskFiles, Conf, Section, Wanted, is_true
from ringfence.host.conf_reader import Unread

LEVELS = frozenset({"debug", "notice", "warning", "error", "verbose", "dtmf", "fax", "security"})
DUMPING = frozenset({"debug", "warning", "error", "verbose"})
"""Levels that log packets of callers unchanged, with their line ends. So callers can forge log lines."""

_LOGS = "/var/log/asterisk"
_FORMATTER = re.compile(r"\[[a-z]*\]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_FILES = ("console", "syslog")
_TOO_LONG = 63
"""The length from which a host's name is too long for Asterisk: the C library fails (``main/logger.c``)."""


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

        Asterisk reports nothing about the caller in this time, except in the first ``period`` seconds.
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


def read_asterisk(files: AsteriskFiles) -> Asterisk | None:
    """Return the settings about logging in Asterisk's files; None if there is no asterisk.conf."""
    asterisk = files.read("asterisk.conf", _options("astlogdir"))
    if asterisk is None:
        return None
    read = {
        "asterisk.conf": asterisk,
        "logger.conf": read_logger(files),
        "modules.conf": read_modules(files),
        "iax.conf": files.read("iax.conf", _options("authdebug")),
        "sip.conf": files.read("sip.conf", _options("tlsenable")),
        "pjsip.conf": files.read(
            "pjsip.conf", _options("type", "endpoint_identifier_order", *_GATE.values())
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
    """Return the parts of Asterisk's files ``read`` that are not known, such as an unreadable include."""
    return tuple(one for conf in read if conf is not None for one in conf.unread)


def read_modules(files: AsteriskFiles) -> Conf | None:
    """Read the options of modules.conf that decide which modules are loaded.

    Return None if there is no such file.
    """
    return files.read("modules.conf", _options("autoload", "noload", *_LOADING))


def read_logger(files: AsteriskFiles) -> Conf | None:
    """Read the log channels of logger.conf, and the option that decides the names of their files.

    Return None if there is no such file.
    """
    return files.read("logger.conf", _is_of_channels)


def name_suffix(logger: Conf | None) -> str:
    """Return what Asterisk appends to the name of each log file: a dot and the name of its host, or "".

    ``logger`` is logger.conf, None if the file does not exist. The name is that of this host: an Asterisk in
    a container has another one. As in Asterisk, it is the kernel's name alone, to which no domain is added,
    and a name that is too long for Asterisk is ``unknown``.
    """
    if logger is None or not is_true(logger.section("general").first("appendhostname")):
        return ""
    name = socket.gethostname()
    return f".{name if len(os.fsencode(name)) < _TOO_LONG else 'unknown'}"


_LOADING = ("load", "require", "preload", "preload-require")
_GATE = {
    "count": "unidentified_request_count",
    "period": "unidentified_request_period",
    "prune": "unidentified_request_prune_interval",
}


def _options(*names: str) -> Wanted:
    """Return a filter for options with these names, in any section."""
    return partial(_is_named, names)


def _is_named(names: tuple[str, ...], _section: str, name: str) -> bool:
    return name in names


def _is_of_channels(section: str, name: str) -> bool:
    """Whether an option of logger.conf is a channel, or decides the names of the channels' files."""
    return section == "logfiles" or name == "appendhostname"


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
    suffix = name_suffix(logger)
    channels = {}
    for name, levels in logger.section("logfiles").options:
        if not name.startswith(_NO_FILES):
            channels[Path(logs, f"{name}{suffix}")] = _levels(levels)
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
