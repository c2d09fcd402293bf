"""What Asterisk is set to tell, by its own files: where it logs what, and what it keeps to itself.

Nothing of ringfence's work needs this: it is for the administrator who asks what cannot be seen. It is what
the files say now, and Asterisk may not have read them since.
"""

import platform
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from ringfence.host.asterisk_conf import FOLDER, Conf, Section, Wanted, is_true, read_conf

LEVELS = frozenset({"debug", "notice", "warning", "error", "verbose", "dtmf", "fax", "security"})
DUMPING = frozenset({"debug", "warning", "error", "verbose"})
"""Levels with which text that callers wrote comes into a log as it was, line ends and all."""

_LOGS = "/var/log/asterisk"
_FORMATTER = re.compile(r"\[[a-z]*\]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NO_FILES = ("console", "syslog")


@frozen
class Gate:
    """PJSIP's patience with callers it does not know, in force where it may know callers by auth_username.

    It tells of them from the ``count``-th request within ``period`` seconds of the first on, and after that
    time not at all until they are forgotten, every ``prune`` seconds where they are four periods old.
    """

    count: int = 5
    period: int = 5
    prune: int = 30

    @property
    def mute(self) -> int:
        """For how long nothing is told at worst (seconds)."""
        return 4 * self.period + self.prune


@frozen
class Asterisk:
    """What the files say.

    ``channels``: each log with its levels. ``security``: whether the module that logs security events is
    loaded. ``iax_silent``: whether failed IAX2 logins are not logged. ``gate``: see there, None where it is
    not in force. ``unread``: names of files that say more than could be read.
    """

    channels: Mapping[Path, frozenset[str]]
    security: bool
    iax_silent: bool
    gate: Gate | None
    unread: tuple[str, ...]


def read_asterisk(folder: Path = FOLDER) -> Asterisk | None:
    """Read the files in ``folder``; None where no Asterisk has files there."""
    asterisk = read_conf(folder / "asterisk.conf", _named("astlogdir"))
    if asterisk is None:
        return None
    read = {
        "asterisk.conf": asterisk,
        "logger.conf": read_conf(
            folder / "logger.conf", lambda section, name: section == "logfiles" or name == "appendhostname"
        ),
        "modules.conf": read_modules(folder),
        "iax.conf": read_conf(folder / "iax.conf", _named("authdebug")),
        "pjsip.conf": read_conf(
            folder / "pjsip.conf", _named("type", "endpoint_identifier_order", *_GATE.values())
        ),
    }
    modules = read["modules.conf"]
    iax, pjsip = (
        conf if conf is not None and is_loaded(modules, module) else None
        for conf, module in ((read["iax.conf"], "chan_iax2"), (read["pjsip.conf"], "res_pjsip"))
    )
    return Asterisk(
        channels=_channels(read["logger.conf"], asterisk.section("directories").last("astlogdir", _LOGS)),
        security=is_loaded(modules, "res_security_log"),
        iax_silent=iax is not None and not is_true(iax.section("general").last("authdebug")),
        gate=None if pjsip is None else _gate(pjsip),
        unread=tuple(name for name, conf in read.items() if conf is not None and conf.unread),
    )


def read_modules(folder: Path) -> Conf | None:
    """Read which modules are loaded."""
    return read_conf(folder / "modules.conf", _named("autoload", "noload", *_LOADING))


_LOADING = ("load", "require", "preload", "preload-require")
_GATE = {
    "count": "unidentified_request_count",
    "period": "unidentified_request_period",
    "prune": "unidentified_request_prune_interval",
}


def _named(*names: str) -> Wanted:
    """Want the options of these names, wherever they stand."""
    return lambda _, name: name in names


def is_loaded(modules: Conf | None, module: str) -> bool:
    """Say whether a module is to be loaded, by ``modules.conf``."""
    section = modules.section("modules") if modules is not None else Section("modules")

    def named(*options: str) -> bool:
        given = [value for option in options for value in section.values(option)]
        return module in [value.removesuffix(".so") for value in given]

    return not named("noload") and (is_true(section.last("autoload")) or named(*_LOADING))


def _channels(logger: Conf | None, logs: str) -> dict[Path, frozenset[str]]:
    """Give the files that are logged to, with the levels of each."""
    if logger is None:
        return {}
    named = is_true(logger.section("general").last("appendhostname"))
    channels = {}
    for name, levels in logger.section("logfiles").options:
        if not name.startswith(_NO_FILES):
            channels[Path(logs, f"{name}.{platform.node()}" if named else name)] = _levels(levels)
    return channels


def _levels(text: str) -> frozenset[str]:
    """Read levels as ``[json]notice,verbose(3)``; ``*`` is all."""
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
