"""From fail2ban's asterisk jails to what ringfence is to be told, and what of them cannot be carried over.

Pure: which files are there is asked of the caller. Where several jails guard Asterisk, whom any of them
ignores is allowed, what any of them reads is read, and the first one's numbers count: ringfence has one list
and one rule of guesses.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from math import ceil

from attrs import Factory, define, field, frozen

from ringfence.fail2ban.jails import Jail
from ringfence.fail2ban.ladder import ladder_of
from ringfence.fail2ban.times import seconds_from
from ringfence.model import Network, network_from, printable
from ringfence.values import MAX_ATTEMPTS, MAX_DURATION

Files = Callable[[str], Sequence[str]]
"""What gives the files that a path, perhaps with ``*``, ``?`` and ``[…]``, stands for now."""

FEW = 2
"""So few attempts, and one forgetful person is out."""

LOGS, ALLOW, GUESS = "asterisk.logs", "allow", "rules.guess"

_NOT_CARRIED = {
    "ignorecommand": (ALLOW, "no command is asked: write the networks that it lets through"),
    "failregex": (
        LOGS,
        "Asterisk's lines are known; for lines of your own dialplan: [[asterisk.logs.custom]]",
    ),
    "ignoreregex": (LOGS, "no line is ignored by a pattern: allow its sender, or mend its phone"),
    "datepattern": (LOGS, "every date that Asterisk writes is known"),
    "journalmatch": (LOGS, "what the units asterisk.service and freepbx.service write is read"),
    "port": (GUESS, 'a ban covers every port, SSH too, unless scope = "sip" in [firewall]'),
    "bantime.rndtime": (GUESS, "bans are as long as they are said to be"),
}
_EVERY_PORT = "0:65535"
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
_WILD = frozenset("*?[")
_WORD = re.compile(r"[^\s,]+")
_SHOWN = 200  # characters of what somebody wrote


@define
class Notes:
    """What a person is to know, by the table that it belongs to."""

    by_table: dict[str, list[str]] = field(factory=dict)

    def add(self, table: str, text: str) -> None:
        """Say something once."""
        said = self.by_table.setdefault(table, [])
        if text not in said:
            said.append(text)

    def of(self, table: str) -> Sequence[str]:
        """Give what was said of a table."""
        return self.by_table.get(table, ())


@frozen(kw_only=True)
class Carried:
    """What ringfence is to be told: None or empty where fail2ban says nothing that it understands."""

    jails: tuple[str, ...]
    networks: tuple[Network, ...] = ()
    paths: tuple[str, ...] = ()
    journal: bool = False
    timezone: str | None = None
    attempts: int | None = None
    window: float | None = None
    ban: tuple[float, ...] = ()
    notes: Notes = Factory(Notes)


def carried(jails: Sequence[Jail], files: Files) -> Carried:
    """Carry over at least one jail."""
    notes = Notes()
    first, *others = jails
    numbers = (
        _attempts(first, notes),
        _window(first, notes),
        ladder_of(first, lambda text: notes.add(GUESS, text)),
    )
    for jail in others:
        _differences(first, jail, notes)
    for jail in jails:
        _told_not_carried(jail, notes)
    return Carried(
        jails=tuple(jail.name for jail in jails),
        networks=tuple(dict.fromkeys(network for jail in jails for network in _networks(jail, notes))),
        paths=tuple(dict.fromkeys(path for jail in jails for path in _paths(jail, files, notes))),
        journal=any(_reads_journal(jail) for jail in jails),
        timezone=next(filter(None, [_timezone(jail, notes) for jail in jails]), None),
        attempts=numbers[0],
        window=numbers[1],
        ban=numbers[2],
        notes=notes,
    )


def bantime_of(jail: Jail) -> float | None:
    """Give how long a jail's bans are, below 0 for ever; None where it does not say."""
    try:
        return seconds_from(jail.options["bantime"])
    except (KeyError, ValueError):
        return None


def _networks(jail: Jail, notes: Notes) -> Iterator[Network]:
    for word in _WORD.findall(jail.options.get("ignoreip", "")):
        try:
            # fail2ban also takes a netmask, and an address within the network.
            network = network_from(str(ip_network(word, strict=False)))
        except ValueError:
            why = "neither an address nor a network; write its addresses, or a name into hosts"
            notes.add(ALLOW, f"ignoreip {_shown(word)}: {why}")
            continue
        if not network.prefixlen:
            notes.add(ALLOW, f"{network} allows everybody: nobody at all is banned")
        yield network


def _paths(jail: Jail, files: Files, notes: Notes) -> Iterator[str]:
    if _reads_journal(jail):
        return
    for line in filter(None, map(str.strip, jail.options.get("logpath", "").split("\n"))):
        head, _, tail = line.rpartition(" ")
        pattern = head.rstrip() if tail in {"head", "tail"} else line
        if not pattern.startswith("/") or not pattern.isprintable():
            notes.add(LOGS, f"logpath {_shown(pattern)}: not an absolute path")
            continue
        found = files(pattern)
        if not _WILD.isdisjoint(pattern):
            found = [path for path in found if not _is_rotated(path, found)]
            now = f"what it stands for now ({len(found)}) is read, and nothing that comes later"
            notes.add(LOGS, f"logpath {_shown(pattern)}: {now}")
        elif not found:
            notes.add(LOGS, f"{_shown(pattern)} is not there now; it is read when it comes")
            yield pattern
            continue
        for path in found:
            if path.isprintable():
                yield path
            else:
                notes.add(LOGS, f"{_shown(path)}: a path with such characters cannot be written here")


def _is_rotated(path: str, found: Sequence[str]) -> bool:
    """Say whether a file is an old one of a log: what is rotated away is followed by itself."""
    if path.endswith((".gz", ".xz", ".bz2", ".zst")):
        return True
    parts = [path.rpartition(mark) for mark in ".-"]
    return any(number.isdigit() and log in found for log, _, number in parts)


def _timezone(jail: Jail, notes: Notes) -> str | None:
    zone = jail.options.get("logtimezone", "").strip()
    if not zone:
        return None
    if zone.upper() in {"UTC", "GMT", "Z"}:
        return "UTC"
    if match := _OFFSET.fullmatch(zone):
        hours = int(match[2])
        return f"Etc/GMT{'-' if match[1] == '+' else '+'}{hours}" if hours else "UTC"  # POSIX counts westward
    notes.add(LOGS, f'logtimezone {_shown(zone)}: name the zone, such as timezone = "Europe/Berlin"')
    return None


def _attempts(jail: Jail, notes: Notes) -> int | None:
    text = jail.options.get("maxretry", "")
    try:
        lines = int(text)
    except ValueError:
        notes.add(
            GUESS,
            f"maxretry {_shown(text)}: no number; ringfence's own holds" if text else _UNSAID["maxretry"],
        )
        return None
    attempts = min(max(1, lines), MAX_ATTEMPTS)
    if attempts != lines:
        notes.add(GUESS, f"maxretry {_shown(text)}: must be from 1 to {MAX_ATTEMPTS}")
    notes.add(GUESS, _LINES)
    if attempts <= FEW:
        notes.add(
            GUESS, f"attempts = {attempts} leaves nobody room to mistype a password; 5 is ringfence's own"
        )
    return attempts


def _window(jail: Jail, notes: Notes) -> float | None:
    text = jail.options.get("findtime", "")
    if not text:
        notes.add(GUESS, _UNSAID["findtime"])
        return None
    try:
        seconds = float(ceil(seconds_from(text)))
    except ValueError as error:
        notes.add(GUESS, f"findtime {_shown(text)}: {error}; ringfence's own holds")
        return None
    if not 0 < seconds <= MAX_DURATION:
        notes.add(GUESS, f"findtime {_shown(text)}: must be above 0 and at most ten years")
    return min(max(1.0, seconds), MAX_DURATION)


def _differences(first: Jail, other: Jail, notes: Notes) -> None:
    """Say which numbers of another jail give way to the first one's."""
    lost = [
        f"{option} = {_shown(other.options[option])}"
        for option in ("maxretry", "findtime", "bantime")
        if option in other.options and other.options[option] != first.options.get(option)
    ]
    if lost:
        why = f"jail {_shown(first.name)} comes first, and there is one rule of guesses"
        notes.add(GUESS, f"of jail {_shown(other.name)} not carried over: {', '.join(lost)}; {why}")


def _told_not_carried(jail: Jail, notes: Notes) -> None:
    for option, (table, why) in _NOT_CARRIED.items():
        text = jail.options.get(option, "").strip()
        if text and text != _EVERY_PORT:
            notes.add(table, f"{option} = {_shown(text)}: {why}")
    if jail.options.get("ignoreself", "true").lower() not in {"1", "on", "true", "yes"}:
        notes.add(ALLOW, "ignoreself = false: this host's own addresses are never banned")
    for action in _actions(jail.options.get("action", "")):
        if not action.startswith(_FIREWALL):
            notes.add(
                GUESS, f"action {_shown(action)}: is not carried out; each ban is a line in ringfence's log"
            )
    for option, fault in jail.faults.items():
        if option in _USED:
            notes.add(_USED[option], f"{option} of jail {_shown(jail.name)} {fault}; not carried over")


def _actions(text: str) -> Iterator[str]:
    """Name the actions of ``iptables[name=SIP, protocol=all] sendmail-whois[dest="a b"]``."""
    quote, depth, name = "", 0, ""
    for letter in f"{text}\n":
        if quote:
            quote = "" if letter == quote else quote
        elif depth:
            quote = letter if letter in "\"'" else ""
            depth += (letter == "[") - (letter == "]")
        elif letter == "[" or letter.isspace():
            if name:
                yield name
            name, depth = "", int(letter == "[")
        else:
            name += letter


def _reads_journal(jail: Jail) -> bool:
    return jail.options.get("backend", "").strip().lower().startswith("systemd")


def _shown(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


_LINES = (
    "fail2ban counts lines of the log, and one wrong password may be several; ringfence counts wrong "
    "passwords. The same number is more patient here"
)
_UNSAID = {
    "maxretry": "maxretry: no jail says it; ringfence's own holds",
    "findtime": "findtime: no jail says it; ringfence's own holds",
}
_USED = {option: table for option, (table, _) in _NOT_CARRIED.items()} | {
    "ignoreip": ALLOW,
    "ignoreself": ALLOW,
    "logpath": LOGS,
    "logtimezone": LOGS,
    "backend": LOGS,
    **dict.fromkeys(("maxretry", "findtime", "bantime", "action"), GUESS),
}
