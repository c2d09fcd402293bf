"""Conversion of fail2ban's asterisk jails to settings of ringfence, and notes on what cannot be converted.

Nothing is read here. ringfence has one allow list and one rule for guesses. If several jails guard Asterisk,
the addresses that any of them ignores are allowed, and the logs that any of them reads are read. But only the
first jail's numbers (``maxretry``, ``findtime``, ``bantime``) are used.
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from math import ceil

from attrs import Factory, define, field, frozen

from ringfence.clock import TEN_YEARS
from ringfence.config.converters import MAX_ATTEMPTS
from ringfence.detect.rules import RULES
from ringfence.features.fail2ban.jails import Jail
from ringfence.values.network import Network, parse_network
from ringfence.values.text import printable

# -- the length of a jail's bans
#
# fail2ban's bans grow by formulas that the jail contains. They are not evaluated: ringfence's own lengths
# follow the first.


Note = Callable[[str], None]
OWN = next(rule for rule in RULES if rule.name == "guess").ban


def ladder_of(jail: Jail, note: Note) -> tuple[float, ...]:
    """Return the lengths of a jail's first and repeated bans in seconds.

    Return () if ringfence's default lengths apply. ``note`` is called with a text for each difference from
    fail2ban, and for each value that cannot be converted.
    """
    text = jail.options.get("bantime", "").strip()
    if not text:
        note("bantime: no jail sets it; ringfence's default lengths apply")
        return ()
    try:
        first = seconds_from(text)
    except ValueError as error:
        note(f"bantime {printable(text)[:100]}: {error}; ringfence's default lengths apply")
        return ()
    if first < 0:
        note("bantime below 0 is permanent: every ban of ringfence has an end, and this is the longest")
        return (TEN_YEARS,)
    if not 0 < first <= TEN_YEARS:
        note(f"bantime {printable(text)[:100]}: must be above 0 and at most ten years")
    first = float(min(max(1, ceil(min(first, TEN_YEARS))), TEN_YEARS))
    if jail.options.get("bantime.increment", "").lower() in {"1", "on", "true", "yes"}:
        note("bantime.increment: ringfence's default lengths follow the first")
        return (first, *(step for step in OWN if step > first))
    note(
        "every ban is as long as the first, as in fail2ban; ringfence's default lengths grow with "
        f"each repeat ban: {', '.join(map(length_of, OWN))}"
    )
    return (first,)


# -- durations in fail2ban's notation: ``600``, ``10m``, ``1d12h``, ``1 week``, ``-1``
#
# A month is a twelfth of a year of 365.25 days, as in fail2ban. (fail2ban evaluates a duration with Python,
# so it also accepts formulas.)


_YEAR = 365.25 * 86_400
_NAMES = {
    1.0: "s ss se sec second seconds",
    60.0: "m mm mi min minute minutes",
    3_600.0: "h hh ho hou hour hours",
    86_400.0: "d dd da day days",
    604_800.0: "w ww we wee week weeks",
    _YEAR / 12: "mo mon month months",
    _YEAR: "y yy ye yea year years",
}
_UNITS = {name: size for size, names in _NAMES.items() for name in names.split()}
_PART = re.compile(r"([0-9]{1,15}+(?:\.[0-9]{0,9}+)?)[ \t]*+([A-Za-z]{1,7}+)?[ \t]*+\+?[ \t]*+")
_MAX_LENGTH = 200  # characters; longer than any real duration


def seconds_from(text: str) -> float:
    """Return the seconds of a duration; -1 if it is permanent. Raise ValueError if it is invalid."""
    left, total = text.partition("#")[0].strip(), 0.0  # the rest is a comment for Python
    permanent = left.startswith("-")
    left = left.removeprefix("-").lstrip()
    if not left or len(left) > _MAX_LENGTH or left.endswith("+"):
        raise ValueError("not a time")
    while left:
        match = _PART.match(left)
        if match is None or (match[2] or "s").lower() not in _UNITS:
            raise ValueError("not a time")
        total += float(match[1]) * _UNITS[(match[2] or "s").lower()]
        left = left[match.end() :]
    return -1.0 if permanent else total


def length_of(seconds: float) -> str:
    """Format whole seconds for ringfence's configuration: ``90s``, ``10m``, ``7d``."""
    whole = round(seconds)
    size, letter = next(
        unit for unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")) if not whole % unit[0]
    )
    return f"{whole // size}{letter}"


FEW_ATTEMPTS = 2
"""The number of attempts up to which a rule can ban a user who mistypes a password."""

LOGS, ALLOW, GUESS, MANAGER = "asterisk.logs", "allow", "rules.guess", "rules.manager"

_NOT_CONVERTED = {
    "ignorecommand": (ALLOW, "no command is run: list the networks that it ignores"),
    "bantime.rndtime": (GUESS, "bans have exactly the configured length"),
}
_NO_CHOICE = frozenset({"", "0:65535", "ssh"})
"""Values of a jail's ``port`` that choose no port: every port, or ``ssh``, fail2ban's own default."""
_EVERY_PORT = "0:65535"
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst", ".lz4", ".lzma", ".Z")
_ROTATED = re.compile(r"[._-](?:[0-9][0-9T:._-]{0,30}|old|bak)")
_DATED = re.compile(r"(.{1,4096}?)[._-](?:19|20)[0-9]{2}-?[01][0-9]-?[0-3][0-9](?:[T._-]?[0-9:]{1,8})?")
_FIREWALL = (
    "iptables",
    "nftables",
    "ipset",
    "firewallcmd",
    "ufw",
    "shorewall",
    "route",
    "pf",
    "ipfw",
    "bsd-ipfw",
)
_OFFSET = re.compile(r"(?:UTC|GMT|Z)?([+-])(0?[0-9]|1[0-4])(?::?00)?")
_MAX_SHOWN = 200  # characters of an option's value


@define
class Notes:
    """Notes for the administrator. Each belongs to a table of ringfence's configuration."""

    by_table: dict[str, list[str]] = field(factory=dict)

    def add(self, table: str, text: str) -> None:
        """Add a note about a table of the configuration, unless the table has this note already."""
        notes = self.by_table.setdefault(table, [])
        if text not in notes:
            notes.append(text)

    def on(self, table: str) -> Sequence[str]:
        """Return the notes about a table of the configuration."""
        return self.by_table.get(table, ())


@frozen
class Numbers:
    """The numbers of a rule: attempts within a window (seconds), and the lengths of its bans (seconds)."""

    attempts: int | None = None
    window: float | None = None
    ban: tuple[float, ...] = ()


@frozen(kw_only=True)
class ConvertedSettings:
    """The settings for ringfence; a setting is None or empty if fail2ban has no usable value for it.

    ``jails`` are the names of the jails. ``networks`` are for the allow list. ``paths``, ``journal`` and
    ``timezone`` are for the logs. ``guess`` and ``manager`` are for the rules of these names.
    """

    jails: tuple[str, ...]
    networks: tuple[Network, ...] = ()
    paths: tuple[str, ...] = ()
    journal: bool = False
    timezone: str | None = None
    guess: Numbers = Numbers()
    manager: Numbers = Numbers()
    notes: Notes = Factory(Notes)


def convert(jails: Sequence[Jail], own_log: str = "") -> ConvertedSettings:
    """Convert fail2ban's ``jails`` (one or more) to settings of ringfence.

    ``own_log`` is the path of ringfence's own log channel in Asterisk; "" if it does not exist. ringfence
    finds this channel automatically. If it exists, the settings ``paths`` and ``journal`` are left out,
    because they would replace the channel or repeat its lines.
    """
    notes = Notes()
    managers = [jail for jail in jails if jail.guards_manager]
    guess = _numbers_of([jail for jail in jails if jail not in managers], GUESS, notes)
    manager = _numbers_of(managers, MANAGER, notes)
    for jail in jails:
        _note_not_converted(jail, notes)
    paths = tuple(dict.fromkeys(path for jail in jails for path in _paths(jail, notes)))
    journal = any(_reads_journal(jail) for jail in jails)
    if own_log:
        _keep_own_log(own_log, [*paths, *(["the journal"] if journal else [])], notes)
        paths, journal = (), False
    return ConvertedSettings(
        jails=tuple(jail.name for jail in jails),
        networks=tuple(dict.fromkeys(network for jail in jails for network in _networks(jail, notes))),
        paths=paths,
        journal=journal,
        timezone=next(filter(None, [_timezone(jail, notes) for jail in jails]), None),
        guess=guess,
        manager=manager,
        notes=notes,
    )


def _numbers_of(jails: Sequence[Jail], table: str, notes: Notes) -> Numbers:
    """Return the first jail's numbers for the rule of ``table``; note those of other jails that differ."""
    if not jails:
        return Numbers()
    first, *others = jails
    numbers = Numbers(
        _attempts(first, table, notes),
        _window(first, table, notes),
        ladder_of(first, lambda text: notes.add(table, text)),
    )
    for jail in others:
        _differences(first, jail, table, notes)
    return numbers


def _keep_own_log(own_log: str, read_by_fail2ban: Sequence[str], notes: Notes) -> None:
    """Replace the notes on logs by one: ringfence reads its own log channel instead of fail2ban's logs."""
    notes.by_table.pop(LOGS, None)  # about fail2ban's logs, which ringfence will not read
    shown = ", ".join(map(_shown, read_by_fail2ban)) or "nothing"
    notes.add(
        LOGS,
        f"{_shown(own_log)} is ringfence's own log channel. ringfence finds it by itself and reads it. "
        f"What fail2ban read ({shown}) has the same attempts, and is not needed",
    )


def bantime_of(jail: Jail) -> float | None:
    """Return the length of a jail's bans (``bantime``) in seconds; None if it is unset or invalid.

    A number below 0 means that bans are permanent.
    """
    try:
        return seconds_from(jail.options["bantime"])
    except (KeyError, ValueError):
        return None


def _networks(jail: Jail, notes: Notes) -> Iterator[Network]:
    for word in jail.ignored:
        try:
            # fail2ban also accepts a netmask, and any address of a network before its length (192.0.2.7/24).
            network = parse_network(str(ip_network(word, strict=False)))
        except ValueError:
            why = "neither an address nor a network; list its addresses, or put the name into hosts"
            notes.add(ALLOW, f"ignoreip {_shown(word)}: {why}")
            continue
        if not network.prefixlen:
            why = "the whole internet cannot be allowed; list your networks"
            notes.add(ALLOW, f"ignoreip {_shown(word)}: {why}")
            continue
        yield network


def _paths(jail: Jail, notes: Notes) -> Iterator[str]:
    if _reads_journal(jail):
        return
    if not jail.paths:
        notes.add(LOGS, f"no log of jail {_shown(jail.name)} exists now; ringfence finds its own channel")
    for path in jail.paths:
        if path.isprintable() and not _is_rotated(path, jail.paths):
            dated = _DATED.fullmatch(path)
            yield dated[1] if dated else path
        elif not path.isprintable():
            notes.add(LOGS, f"{_shown(path)}: a path with such characters cannot be configured")


def _is_rotated(path: str, found: Sequence[str]) -> bool:
    """Whether ``path`` is a rotated or compressed part of one of the logs ``found``.

    Such files are left out, because ringfence itself follows a log when it is rotated.
    """
    if path.endswith(_COMPRESSED):
        return True
    return any(
        path.startswith(log) and _ROTATED.fullmatch(path, len(log)) is not None
        for log in found
        if log != path
    )


def _timezone(jail: Jail, notes: Notes) -> str | None:
    zone = jail.options.get("logtimezone", "").strip()
    if not zone:
        return None
    if zone.upper() in {"UTC", "GMT", "Z"}:
        return "UTC"
    if match := _OFFSET.fullmatch(zone):
        hours = int(match[2])
        return f"Etc/GMT{'-' if match[1] == '+' else '+'}{hours}" if hours else "UTC"  # Etc/GMT inverts signs
    notes.add(LOGS, f'logtimezone {_shown(zone)}: name the zone, such as timezone = "Europe/Berlin"')
    return None


def _attempts(jail: Jail, table: str, notes: Notes) -> int | None:
    text = jail.options.get("maxretry", "")
    try:
        lines = int(text)
    except ValueError:
        notes.add(
            table,
            f"maxretry {_shown(text)}: not a number; ringfence's default applies"
            if text
            else _UNSET["maxretry"],
        )
        return None
    attempts = min(max(1, lines), MAX_ATTEMPTS)
    if attempts != lines:
        notes.add(table, f"maxretry {_shown(text)}: must be from 1 to {MAX_ATTEMPTS}")
    notes.add(table, _LINES)
    if attempts <= FEW_ATTEMPTS:
        notes.add(
            table, f"attempts = {attempts} leaves no room for mistyped passwords; ringfence's default is 5"
        )
    return attempts


def _window(jail: Jail, table: str, notes: Notes) -> float | None:
    text = jail.options.get("findtime", "")
    if not text:
        notes.add(table, _UNSET["findtime"])
        return None
    try:
        seconds = float(ceil(seconds_from(text)))
    except ValueError as error:
        notes.add(table, f"findtime {_shown(text)}: {error}; ringfence's default applies")
        return None
    if not 0 < seconds <= TEN_YEARS:
        notes.add(table, f"findtime {_shown(text)}: must be above 0 and at most ten years")
    return min(max(1.0, seconds), TEN_YEARS)


def _differences(first: Jail, other: Jail, table: str, notes: Notes) -> None:
    """Add a note: the numbers of jail ``other`` that differ from those of jail ``first`` are not used."""
    lost = [
        f"{option} = {_shown(other.options[option])}"
        for option in ("maxretry", "findtime", "bantime")
        if option in other.options and other.options[option] != first.options.get(option)
    ]
    if lost:
        why = f"jail {_shown(first.name)} comes first, and there is one rule of guesses"
        notes.add(table, f"of jail {_shown(other.name)} not carried over: {', '.join(lost)}; {why}")


def _note_not_converted(jail: Jail, notes: Notes) -> None:
    for option, (table, why) in _NOT_CONVERTED.items():
        text = jail.options.get(option, "").strip()
        if text and text != _EVERY_PORT:
            notes.add(table, f"{option} = {_shown(text)}: {why}")
    if jail.options.get("ignoreself", "true").lower() not in {"1", "on", "true", "yes"}:
        notes.add(ALLOW, "ignoreself = false: this host's own addresses are never banned")
    if jail.port not in _NO_CHOICE:
        text = 'a ban covers only the ports of Asterisk, unless the rule has scope = "all"'
        notes.add(GUESS, f"port = {_shown(jail.port)}: {text}")
    for action in jail.actions:
        if not action.startswith(_FIREWALL):
            notes.add(
                GUESS, f"action {_shown(action)}: is not executed; each ban is a line in ringfence's log"
            )


def _reads_journal(jail: Jail) -> bool:
    return jail.options.get("backend", "").strip().lower().startswith("systemd")


def _shown(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}…"


_LINES = (
    "fail2ban counts log lines, and one wrong password may cause several; ringfence counts wrong "
    "passwords. So the same number permits more wrong passwords here"
)
_UNSET = {
    "maxretry": "maxretry: no jail sets it; ringfence's default applies",
    "findtime": "findtime: no jail sets it; ringfence's default applies",
}


# -- configuration of ringfence as TOML, from converted settings of fail2ban, with notes for the administrator
#
# Text from fail2ban's files is written only into strings and one-line comments.


WIDTH = 110
_HEAD = (
    "ringfence's configuration, made from fail2ban: {jails}. Lines that begin with NOTE describe what is "
    "different here, and what was not carried over."
)
_LOGS = (
    "the user ringfence must be able to read these, and callers can write into them. Better is a channel of "
    'its own, see "The log" in docs/sources.md; then leave paths out'
)
_JOURNAL = 'the user ringfence must be able to read the journal: see "The journal" in docs/sources.md'


def document_of(settings: ConvertedSettings) -> str:
    """Return the text of a ringfence.toml with these settings and with the notes as comments."""
    jails = ", ".join(f"jail {printable(name)}" for name in settings.jails)
    lines = [
        *_comment(_HEAD.format(jails=jails)),
        "",
        "[[asterisk]]",
        "",
        "[asterisk.ami]",
        'secret_file = "/etc/ringfence/asterisk.secret"',
        *_table(LOGS, [*_always(settings), *settings.notes.on(LOGS)], _logs(settings)),
        *_table(
            ALLOW, settings.notes.on(ALLOW), [_list("networks", [str(net) for net in settings.networks])]
        ),
        *_table(GUESS, settings.notes.on(GUESS), _numbers(settings.guess)),
        *_table(MANAGER, settings.notes.on(MANAGER), _numbers(settings.manager)),
    ]
    return "\n".join(lines) + "\n"


def _table(name: str, notes: Sequence[str], keys: Sequence[str]) -> Iterator[str]:
    if notes or keys:
        yield from ("", f"[{name}]")
        for note in notes:
            yield from _comment(f"NOTE {note}.")
        yield from keys


def _always(settings: ConvertedSettings) -> Iterator[str]:
    if settings.paths:
        yield _LOGS
    if settings.journal:
        yield _JOURNAL


def _logs(settings: ConvertedSettings) -> list[str]:
    keys = [_list("paths", settings.paths)] if settings.paths else []
    keys += ["journal = true"] if settings.journal else []
    return [*keys, f"timezone = {_quoted(settings.timezone)}"] if settings.timezone else keys


def _numbers(rule: Numbers) -> list[str]:
    keys = [] if rule.attempts is None else [f"attempts = {rule.attempts}"]
    keys += [] if rule.window is None else [f"window = {_quoted(length_of(rule.window))}"]
    return [*keys, _list("ban", [length_of(step) for step in rule.ban])] if rule.ban else keys


def _list(key: str, values: Sequence[str]) -> str:
    line = f"{key} = [{', '.join(map(_quoted, values))}]"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{key} = [", *(f"    {_quoted(value)}," for value in values), "]"])


def _quoted(text: str) -> str:
    return '"' + "".join(map(_letter, text)) + '"'


def _letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08X}"


def _comment(text: str) -> list[str]:
    lines = textwrap.wrap(
        printable(text), WIDTH - 2, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )
    return [f"# {line}" for line in lines]
