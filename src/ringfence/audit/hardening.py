"""Findings of ``check --hardening``: weaknesses of this Asterisk, why they matter, and the fix.

A finding is marked as wrong (``NO``) if it gives a stranger access: a password that can be guessed at once,
outside calls without a password, or an interface where guessers are not banned. A setting that may be
intended is marked ``--``. Administrators show these lines to others. So no line contains a password, or the
exact reason why a password is weak.
"""

import re
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from ringfence.audit.accounts import ANONYMOUS, is_weak, read_accounts
from ringfence.audit.asterisk import (
    Context,
    Finding,
    context_from,
    globals_from,
    is_loaded,
    read_modules,
    settings_from,
    unknown_findings,
    unread_of,
)
from ringfence.host.asterisk_conf import Conf, Section, is_true, joined, read_conf
from ringfence.host.conf_reader import Unread
from ringfence.host.console import Console
from ringfence.model import Address, printable
from ringfence.netlink.sock_diag import LISTENING, address_of, port_of, sockets

if TYPE_CHECKING:
    from ringfence.audit.accounts import Account, AsteriskAccounts


# -- asterisk's services besides telephony, from its files: the manager interface, its HTTP server, and ARI
#
# If Asterisk runs in this network namespace, the kernel's list of sockets shows on which addresses they
# listen. Otherwise the addresses come from the files.


POWERS = ("all", "command", "originate", "system", "config")
"""Write classes of manager users that permit them to control this host or to call any number."""

_SECRET = frozenset({"secret", "password"})
_WANTED = frozenset(
    {
        *("enabled", "bindaddr", "port", "bindport", "tlsenable", "tlsbindaddr", "webenabled"),
        *("read", "write", "deny", "acl", "type", "password_format"),
    }
)
_ACLS = ("deny", "acl")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15})|([0-9a-fA-F:]{2,39}))(?::([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,5}")


@frozen
class Manager:
    """A user of the manager interface.

    ``read`` and ``write`` are the user's rights, which Asterisk calls classes. ``restricted``: an ACL limits
    the addresses from which the user may log in. ``weak``: the user's password can be guessed easily.
    """

    name: str
    read: frozenset[str]
    write: frozenset[str]
    restricted: bool
    weak: bool

    @property
    def powers(self) -> tuple[str, ...]:
        """The write classes of this user that are in ``POWERS``."""
        return tuple(power for power in POWERS if power in self.write)

    def may(self, side: str, name: str) -> bool:
        """Whether the user has the class ``name``, or all classes. ``side`` is "read" or "write"."""
        return not {name, "all"}.isdisjoint(self.read if side == "read" else self.write)


@frozen
class Listener:
    """A configured listening port.

    ``what`` is its service (AMI or HTTP). ``addresses`` are the local addresses on which it listens.
    ``setting`` is the option that makes it reachable from this host only. ``tls``: it uses TLS.
    """

    what: str
    port: int
    addresses: tuple[Address, ...]
    setting: str
    tls: bool = False

    @property
    def is_public(self) -> bool:
        """Whether other hosts may reach the port: it listens on more than loopback addresses."""
        return any(not address.is_loopback for address in self.addresses)


@frozen
class Services:
    """The services that Asterisk's files configure.

    ``managers``: the users of the manager interface, none if it is off. ``listeners``: the ports of the
    manager interface and of the HTTP server, as far as they are on. ``ari``: the users of ARI, none if it is
    off. ``weak_ari``: the users of ARI with weak passwords. ``webmanager``: the manager interface is also
    served over HTTP. ``unread``: parts of the files that are not known.
    """

    managers: tuple[Manager, ...] = ()
    listeners: tuple[Listener, ...] = ()
    ari: tuple[str, ...] = ()
    weak_ari: tuple[str, ...] = ()
    webmanager: bool = False
    unread: tuple[Unread, ...] = ()

    def manager(self, name: str) -> Manager | None:
        """Return the manager user with this name; None if there is no such user."""
        return next((manager for manager in self.managers if manager.name == name), None)

    def open_listeners(self, what: str) -> list[Listener]:
        """Return the listeners of the service ``what`` that listen on more than loopback addresses."""
        return [door for door in self.listeners if door.what == what and door.is_public]


AMI, HTTP = "AMI", "HTTP"


def read_services(folder: Path) -> Services:
    """Return the services that the files in ``folder`` configure.

    The addresses of a service come from the kernel's list of sockets, or else from the files.
    """
    read = {
        name: read_conf(
            folder / name, lambda _, option: option in _WANTED, lambda _, option: option in _SECRET
        )
        for name in ("manager.conf", "http.conf", "ari.conf")
    }
    manager, http, ari = (read[name] or Conf() for name in read)
    ami_on, http_on = (is_true(conf.section("general").last("enabled")) for conf in (manager, http))
    own, web = manager.section("general"), http.section("general")
    listeners = (
        *(_listeners(AMI, "manager.conf", own, "port", (5038, 5039)) if ami_on else ()),
        *(_listeners(HTTP, "http.conf", web, "bindport", (8088, 8089)) if http_on else ()),
    )
    users = _ari_users(ari) if is_true(ari.all_of("general").last("enabled", "yes")) else ()
    return Services(
        managers=tuple(map(_manager, _manager_users(manager))) if ami_on else (),
        listeners=listeners,
        ari=tuple(section.name for section in users),
        weak_ari=tuple(section.name for section in users if _is_weak_ari(section)),
        webmanager=is_true(own.last("webenabled")),
        unread=unread_of(read.values()),
    )


def _manager_users(conf: Conf) -> Iterator[Section]:
    """Yield a section for each manager user. Asterisk joins sections of one name, which has no case."""
    groups: dict[str, list[Section]] = {}
    for section in conf.sections:
        if section.name.lower() != "general":
            groups.setdefault(section.name.lower(), []).append(section)
    for parts in groups.values():
        yield joined(parts[0].name, parts)


def _manager(section: Section) -> Manager:
    secret = section.secret("secret")
    return Manager(
        section.name,
        read=frozenset(_classes(section.last("read"))),
        write=frozenset(_classes(section.last("write"))),
        restricted=any(section.last(option) for option in _ACLS),
        weak=secret is not None and is_weak(secret, [section.name]),
    )


def _classes(text: str) -> Iterable[str]:
    return (part.strip().lower() for part in text.split(","))


def _ari_users(ari: Conf) -> tuple[Section, ...]:
    return tuple(section for section in ari.sections if section.last("type").lower() == "user")


def _is_weak_ari(section: Section) -> bool:
    secret = section.secret("password")
    plain = section.last("password_format", "plain").lower() == "plain"
    return plain and secret is not None and is_weak(secret, [section.name])


def _listeners(
    what: str, file: str, general: Section, port_option: str, ports: tuple[int, int]
) -> Iterable[Listener]:
    """Yield a service's listener without TLS, and its listener with TLS if TLS is enabled.

    ``what`` is the service (AMI or HTTP). ``file`` and its section ``general`` configure it. The option
    ``port_option`` sets its port without TLS. ``ports`` are its default ports, without and with TLS.
    """
    text = general.last(port_option)
    plain = int(text) if _NUMBER.fullmatch(text) else ports[0]
    yield _listener(what, plain, general.last("bindaddr"), f"bindaddr = 127.0.0.1 in {file} [general]")
    if is_true(general.last("tlsenable")):
        setting = f"tlsbindaddr = 127.0.0.1:{ports[1]} in {file} [general]"
        yield evolve(_listener(what, ports[1], general.last("tlsbindaddr"), setting), tls=True)


def _listener(what: str, port: int, place: str, setting: str) -> Listener:
    """Return a listener on ``port``, or on the port in ``place`` if that names one.

    ``place`` is the address from the file, "" if the file names none. The listener has the addresses of the
    kernel's sockets at its port. If there is no such socket, it has the address in ``place``, or all
    addresses (``::``) if ``place`` is "". A host name in ``place`` is not resolved, and counts as no address.
    ``what`` and ``setting`` are those of :class:`Listener`.
    """
    written = _ADDRESS.fullmatch(place)
    if written and written[4]:
        port = int(written[4])
    found = listening_at(port) or ({ip_address("::")} if not place else set())
    if not found and written:
        with suppress(ValueError):
            found = {ip_address(written[1] or written[2] or written[3])}
    return Listener(what, port, tuple(sorted(found, key=str)), setting)


def listening_at(port: int) -> set[Address]:
    """Return the local addresses on which a program listens at a TCP port in this network namespace.

    Return an empty set if the kernel cannot list its sockets.
    """
    try:
        return {
            address_of(row.local[:4] if family is socket.AF_INET else row.local)
            for family in (socket.AF_INET, socket.AF_INET6)
            for row in sockets(family, socket.IPPROTO_TCP, 1 << LISTENING)
            if port_of(row.local_port) == port
        }
    except OSError:  # the kernel lacks the module that lists sockets
        return set()


# -- reachability in the dialplan: whether a call into a context can dial out, or only reach this PBX
#
# Toll fraud needs a trunk that dials a number of the caller's choice. So a context *dials out* if a pattern
# for long numbers dials the number that the caller dialled, through a named trunk:
# ``Dial(PJSIP/${EXTEN}@carrier)``, ``Dial(DAHDI/g0/${EXTEN:1})``. ``Dial(PJSIP/${EXTEN})`` only rings a
# phone.
#
# Included contexts count, and so do contexts that get the number by a jump or as an argument. Values known
# only during a call are reported as unclear: variables, scripts (AGI, ARI, Lua), switches, and menus that
# let the caller dial. So if a context is reported to dial out, this is reliable. If not, it may still dial
# out.
#
# A ``Dial`` may contain a password (``IAX2/user:secret@host``), so only names of contexts and extensions
# are returned.


MAX_CONTEXTS = 100
"""The maximum number of visits in one call of :meth:`Dialplan.reach`.

A visit is a context and how a call reaches it. One context can have several visits.
"""
LONG = 7
"""The least number of digits of an outside number.

A pattern matches long numbers if it has this many digits or more, or if it ends with a wildcard.
"""

_CALLED = "\x01"
"""A placeholder for the number that the caller dialled."""
_UNKNOWN = "\x02"
"""A placeholder for a value that is known only during a call."""
_PHONES = frozenset({"SIP", "PJSIP", "IAX2", "SCCP"})
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,80}")
_GLOBAL = re.compile(r"(?:GLOBAL\(([A-Za-z0-9_]{1,80})\)|([A-Za-z0-9_]{1,80}))")
_ARGUMENT = re.compile(r"ARG([1-9][0-9]?)")
_SET = re.compile(r"\[[^\]]{0,80}\]")
_MAX_DEPTH = 5
_JUMPS = frozenset({"goto", "gosub"})
_LENGTHS = (2, 3)
"""How many parts a jump's target has: 2 (extension, priority) or 3 (context, extension, priority)."""
_SCRIPTS = frozenset({"agi", "eagi", "fastagi", "deadagi", "externalivr", "stasis"})


@frozen
class Reach:
    """The result of :meth:`Dialplan.reach`.

    ``dials``: the patterns that dial out (``_00X. in outbound``). ``unclear``: texts about what could not be
    examined. ``known`` is False if the console does not answer, or if the context does not exist.
    """

    known: bool = True
    dials: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


@frozen
class _Visit:
    """A context to examine, and how a call reaches it.

    If ``extension`` is "", the call arrives with the number that the caller dialled. Otherwise the call goes
    to the fixed ``extension``, with ``arguments``. ``origin`` is the pattern that matched the dialled number,
    for messages; "" until a pattern is known.
    """

    context: str
    extension: str = ""
    arguments: tuple[str, ...] = ()
    origin: str = ""


@define
class Dialplan:
    """The dialplan in force, from the console. The console is asked only once for each context."""

    _console: Console
    _contexts: dict[str, Context | None] = field(factory=dict)
    _globals: dict[str, str] | None = None

    def reach(self, context: str) -> Reach:
        """Return whether a call into ``context`` can dial out, and through which patterns."""
        first = self._context(context)
        if first is None:
            return Reach(known=False)
        dials: dict[str, None] = {}
        unclear: dict[str, None] = {}
        visits, seen = deque([_Visit(context)]), {_Visit(context)}
        while visits:
            visit = visits.popleft()
            found = self._context(visit.context)
            if found is None:
                continue
            unclear |= {f"the switch {switch.partition('/')[0]}": None for switch in found.switches}
            nexts = [evolve(visit, context=name) for name in found.includes]
            for extension, name, arguments in self._applications(found, visit):
                origin = visit.origin or f"{extension} in {visit.context}"
                verdict = _verdict(name, arguments)
                if verdict is not False:
                    (dials if verdict else unclear)[origin] = None
                nexts += (evolve(jump, origin=origin) for jump in _jumps(name, arguments, visit.context))
            for new in nexts:
                if new in seen:
                    continue
                if len(seen) == MAX_CONTEXTS:
                    unclear[f"more than {MAX_CONTEXTS} contexts"] = None
                    break
                seen.add(new)
                visits.append(new)
        return Reach(dials=tuple(dials), unclear=tuple(unclear))

    def _context(self, name: str) -> Context | None:
        if name not in self._contexts:
            shown = self._console.show(f"dialplan show {name}") if _NAME.fullmatch(name) else None
            self._contexts[name] = context_from(shown) if shown else None
        return self._contexts[name]

    def _applications(self, context: Context, visit: _Visit) -> Iterator[tuple[str, str, str]]:
        """Yield each application that may run on this visit: its extension, its name and its arguments.

        If the visit has no fixed extension, only patterns that match long numbers count. In the arguments,
        variables are replaced by their values or by placeholders.
        """
        begun = {
            step.extension for step in context.steps if step.priority == 1
        }  # the extensions that a call can enter: it begins at priority 1
        for step in context.steps:
            if visit.extension:
                fits = step.extension == visit.extension
            else:
                fits = step.extension in begun and _is_wide(step.extension)
            if not fits:
                continue
            name, _, arguments = step.application.partition("(")
            yield step.extension, name.strip().lower(), self._filled(arguments.removesuffix(")"), visit)

    def _filled(self, text: str, visit: _Visit) -> str:
        return "".join(
            self._value(part[2:-1], visit, 0) if part[:2] == "${" else part for part in _parts(text)
        )

    def _value(self, name: str, visit: _Visit, depth: int) -> str:
        """Return the value of ``name``, the text within ``${}``: a variable, or a function.

        Return _CALLED if the value contains the dialled number, and _UNKNOWN if it is known only during a
        call. ``depth`` is the depth of nested ``${}``.
        """
        if "${" in name and depth < _MAX_DEPTH:  # nested, such as ${FILTER(0-9,${EXTEN})}
            inner = "".join(
                self._value(part[2:-1], visit, depth + 1) if part[:2] == "${" else "" for part in _parts(name)
            )
            contacts = name.startswith("PJSIP_DIAL_CONTACTS(")
            return f"PJSIP/{_CALLED}" if contacts else _CALLED if _CALLED in inner else _UNKNOWN
        base = name.partition(":")[0]
        argument = _ARGUMENT.fullmatch(base)
        if base == "EXTEN":
            return visit.extension or _CALLED
        if argument:
            number = int(argument[1])
            return visit.arguments[number - 1] if number <= len(visit.arguments) else _UNKNOWN
        known = _GLOBAL.fullmatch(base)
        if self._globals is None:
            self._globals = globals_from(self._console.show("dialplan show globals") or "")
        value = self._globals.get(known[1] or known[2], "") if known else ""
        return value if value and "${" not in value else _UNKNOWN


def _parts(text: str) -> Iterator[str]:
    """Split a text into its variables and the texts between them.

    A variable is ``${...}`` with all that is in it, even other variables.
    """
    start = position = 0
    while (position := text.find("${", start)) >= 0:
        yield text[start:position]
        depth, end = 0, position
        while end < len(text):
            if text.startswith("{", end):
                depth += 1
            elif text[end] == "}":
                depth -= 1
                if not depth:
                    break
            end += 1
        yield text[position : end + 1]
        start = end + 1
    yield text[start:]


def _is_wide(extension: str) -> bool:
    """Whether an extension is a pattern that matches long numbers."""
    pattern = _SET.sub("X", extension)
    return pattern[:1] == "_" and (pattern[-1] in ".!" or len(pattern) > LONG)


def _verdict(name: str, arguments: str) -> bool | None:
    """Whether an application dials the number that the caller dialled, through a trunk.

    Return None if this is unclear: for a script, or if a value is known only during a call. Return False for
    a jump to a known target: the jump itself dials nothing, and ``_jumps`` follows it.
    """
    if name in _SCRIPTS:
        return None
    if name in _JUMPS:
        return None if _UNKNOWN in ",".join(_target(arguments)[:2]) else False
    return _dialled(arguments) if name == "dial" else False


def _dialled(arguments: str) -> bool | None:
    """Whether a Dial calls the number that the caller dialled, through a trunk; None if this is unclear.

    A Local channel dials nothing itself: it leads to another context, which ``_jumps`` returns.
    """
    found: bool | None = False
    for position in arguments.partition(",")[0].split("&"):
        technology, _, rest = position.partition("/")
        if technology == "Local":
            continue
        if _CALLED in rest and _UNKNOWN not in technology:
            named = technology not in _PHONES or "/" in rest or "@" in rest
            found = True if named else found
        elif _UNKNOWN in position or _CALLED in technology:
            found = None if found is False else found
    return found


def _target(arguments: str) -> list[str]:
    """Return the parts of a jump's target: context, extension and priority.

    There are two parts without a context, and one if only the priority is given.
    """
    return [part.strip() for part in arguments.partition("(")[0].split(",")]


def _jumps(name: str, arguments: str, here: str) -> list[_Visit]:
    """Return the visits to which the application ``name`` sends a call next.

    A jump to a fixed extension of another context counts only if an argument has the dialled number. ``here``
    is the context of the application; a jump that names no context stays in it.
    """
    if name == "dial":
        places = [
            position for position in arguments.partition(",")[0].split("&") if position.startswith("Local/")
        ]
        contexts = [
            position.rpartition("@")[2].partition("/")[0] for position in places if _CALLED in position
        ]
        return [_Visit(context) for context in contexts]
    if name == "macro":
        macro, *words = arguments.split(",")
        return [_Visit(f"macro-{macro}", "s", tuple(words))] if _CALLED in "".join(words) else []
    target = _target(arguments)
    if name not in _JUMPS or len(target) not in _LENGTHS:
        return []
    context, extension, _ = target if len(target) == max(_LENGTHS) else (here, *target)
    if _CALLED in extension:
        return [_Visit(context)]
    text = arguments.partition("(")[2].removesuffix(")")
    return [_Visit(context, extension, tuple(text.split(",")))] if _CALLED in text or context == here else []


FEW, MANY = 5, 60
"""The maximum number of names (such as accounts) in one finding.

``FEW`` is for summaries, ``MANY`` for lists of accounts that must be fixed one by one.
"""

_PASSWORD_FIXES = {
    "pjsip.conf": "an auth for it; or identify_by = ip, where an identify names its addresses",
    "pjsip_wizard.conf": "accepts_auth = yes with inbound_auth/password; or endpoint/identify_by = ip",
    "sip.conf": "a secret, and no insecure=invite; a trunk is type = peer with host = its address",
    "users.conf": "a secret",
    "iax.conf": "a secret, or deny and permit, or remove it",
}
_STRANGERS_FIX = "remove it, or give it a context that cannot dial"
_RANDOM = "16 random characters each, for example from: openssl rand -hex 8"


def accounts_in_force(folder: Path, console: "Console") -> "AsteriskAccounts":
    """Return the accounts of the loaded drivers, from the files in ``folder`` and the console."""
    drivers = {name: _is_loaded(folder, console, module) for name, module in _DRIVERS.items()}
    return _in_force(read_accounts(folder, **drivers), console)


def open_to_strangers(accounts: "AsteriskAccounts") -> str:
    """Return a text that names by what strangers may call by SIP without a password; "" if by nothing."""
    files: dict[str, list[str]] = {}
    for account in accounts.accounts:
        if account.passwordless and account.file != "iax.conf":
            files.setdefault(account.file, []).append(account.name)
    guests = ["allowguest in sip.conf"] if accounts.guest_context else []
    return ", ".join([*guests, *(f"{file} [{_names(names, FEW)}]" for file, names in files.items())])


def hardening_findings(folder: Path, console: "Console", user: str) -> Iterator[Finding]:
    """Yield the findings about the files in ``folder`` and what the console shows.

    ``user`` is the manager user with which ringfence logs in.
    """
    if not (folder / "asterisk.conf").exists():
        yield Finding(
            None,
            "hardening",
            f"{folder} has no readable files of Asterisk; fix: run this as root, on Asterisk's host",
        )
        return
    accounts = accounts_in_force(folder, console)
    services = read_services(folder)
    dialplan = Dialplan(console)
    found = [
        *_unauthenticated(accounts, dialplan),
        *_passwords(accounts, services),
        *_managers(services, user),
        *_web(services),
        *_readable_files(folder),
        *_summaries(accounts),
    ]
    hidden = list(_not_checked(accounts, services, console))
    yield from hidden
    yield from found
    if not any(finding.right is False for finding in (*hidden, *found)):
        seen = "nothing is wide open, as far as could be checked"
        yield Finding(None if hidden else True, "hardening", seen if hidden else "nothing is wide open")


# -- datagrams that stop Asterisk: it looks up the names in them, and serves nobody until the look-up ends
#
# A Via header names the host of its sender, and its ``maddr`` where Asterisk sends the answer. Any stranger
# may write one, and may forge the address of each datagram. So bans alone do not end this, but these settings
# do.


_LOOK_UPS = "look-ups of names"
_OVERLOAD = "taskprocessor_overload_trigger"


def look_up_findings(console: "Console") -> Iterator[Finding]:
    """Yield a finding for each running channel driver that look-ups of names can stop.

    ``maddr=HOST.example`` makes PJSIP look up that name in the background, one name after the other. If a
    name server does not answer, each look-up takes ten seconds. With more than 500 that wait, PJSIP takes
    itself for overloaded and ignores all requests, unless only its own queues count. On Asterisk 22, 300
    datagrams did so. chan_sip has one thread, which waits for each look-up of any host in a Via.
    """
    if _is_running("chan_sip", console.show("module show like chan_sip.so") or ""):
        yield Finding(
            None,
            _LOOK_UPS,
            "chan_sip: one datagram that names a host with a silent name server (Via) stops SIP for 18 s; "
            "fix: use PJSIP; until then, options timeout:1 attempts:1 in /etc/resolv.conf makes it 2 s",
        )
    shown = (line.partition(":") for line in (console.show("pjsip show settings") or "").split("\n"))
    if any((name.strip(), value.strip()) == (_OVERLOAD, "global") for name, _, value in shown):
        yield Finding(
            None,
            _LOOK_UPS,
            "PJSIP: some hundred datagrams that name hosts (maddr) with a silent name server stop SIP for "
            f"half an hour; fix: {_OVERLOAD} = pjsip_only in pjsip.conf, in its section of type global",
        )


HOSTS = Path("/etc/hosts")
_MOST_BYTES = 1 << 20  # of such a file


def host_name_findings(name: str, hosts: Path, nsswitch: Path) -> Iterator[Finding]:
    """Yield a finding if ``name``, the name of this host, is known to no file, so a name server is asked.

    ``hosts`` has the names that are known without a name server. ``nsswitch`` has the ways of a look-up.

    Asterisk looks up its own name while it sends some answers, and does nothing else until the look-up ends.
    A Via header with ``maddr=255.255.255.255`` asks for such an answer.
    """
    if not knows_host(name, hosts, nsswitch):
        yield Finding(
            None,
            _LOOK_UPS,
            f"{printable(name)}, the name of this host, is not in {hosts}: while its name server does not "
            "answer, some datagrams to Asterisk may stop SIP for ten minutes; "
            f"fix: echo '{hosts_line(printable(name))}' >> {hosts}",
        )


def knows_host(name: str, hosts: Path, nsswitch: Path) -> bool:
    """Whether ``name`` needs no name server; the files are those of :func:`host_name_findings`."""
    if "myhostname" in _words_of(nsswitch, "hosts:"):
        return True
    known = {word.lower() for line in _lines_of(hosts) for word in line.partition("#")[0].split()[1:]}
    return name.lower() in known


def hosts_line(name: str) -> str:
    """Return the line of a hosts file that makes ``name`` the name of this host."""
    return f"127.0.1.1 {name}"


def _words_of(path: Path, first: str) -> list[str]:
    """Return the words of the line that begins with ``first``; none if there is no such line."""
    found = (line.partition("#")[0].split() for line in _lines_of(path))
    return next((words[1:] for words in found if words and words[0] == first), [])


def _lines_of(path: Path) -> list[str]:
    """Return the lines of a small file of this host; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").split("\n")
    except OSError:
        return []


def _in_force(accounts: "AsteriskAccounts", console: "Console") -> "AsteriskAccounts":
    """Return ``accounts`` with the settings of chan_sip that are in force, if the console shows them.

    They may differ from the file: it may have changed since Asterisk read it.
    """
    shown = settings_from(console.show("sip show settings") or "")
    guest_context = shown.get("allow unknown access")
    if guest_context is None:
        return accounts
    return evolve(
        accounts,
        guest_context=shown.get("context", "default") if guest_context == "Yes" else "",
        reveals_accounts=shown.get("always auth rejects") == "No",
        autocreates=shown.get("autocreate peer", "Off") != "Off",
    )


_WITH_PASSWORDS = (
    *("sip.conf", "users.conf", "iax.conf", "pjsip.conf", "pjsip_wizard.conf", "manager.conf", "ari.conf"),
)
_DRIVERS = {"chan_sip": "chan_sip", "iax2": "chan_iax2", "pjsip": "res_pjsip"}


def _is_loaded(folder: Path, console: "Console", module: str) -> bool:
    """Whether Asterisk has loaded ``module``.

    The console decides, or modules.conf if the console does not answer. If a part of modules.conf cannot be
    read, the module counts as loaded.
    """
    shown = console.show(f"module show like {module}.so")
    if shown is None:
        modules = read_modules(folder)
        return is_loaded(modules, module) or bool(modules and modules.unread)
    return _is_running(module, shown)


def _is_running(module: str, shown: str) -> bool:
    """Whether the module runs, as the console has ``shown`` by ``module show``."""
    lines = (line for line in shown.split("\n") if line.startswith(f"{module}.so "))
    return any(" Running " in line and " Not Running " not in line for line in lines)


def _readable_files(folder: Path) -> Iterator[Finding]:
    """Yield a finding if every user of this host may read files with passwords."""
    names = [name for name in _WITH_PASSWORDS if (folder / name).is_file()]
    shown = [name for name in names if (folder / name).stat().st_mode & 0o004]
    if shown and folder.stat().st_mode & 0o001:
        fix = f"fix: chmod o= {' '.join(str(folder / name) for name in shown)}"
        yield Finding(None, "hardening: files", f"every user of this host may read passwords; {fix}")


def _not_checked(accounts: "AsteriskAccounts", services: "Services", console: "Console") -> Iterator[Finding]:
    unread = tuple(dict.fromkeys((*accounts.unread, *services.unread)))
    if closed := [one.text for one in unread if one.closed]:
        yield Finding(
            False, "hardening", f"not all files can be read: {', '.join(closed)}; fix: run this as root"
        )
    yield from unknown_findings("hardening", unread)
    if console.problem:
        yield Finding(
            None,
            "hardening: console",
            f"{console.problem}: settings in force, and where contexts lead, are not checked",
        )
    if accounts.in_database:
        yield Finding(
            None,
            "hardening: database",
            f"accounts in a database are not checked (extconfig.conf: {', '.join(accounts.in_database)})",
        )


def _unauthenticated(accounts: "AsteriskAccounts", dialplan: "Dialplan") -> Iterator[Finding]:
    """Yield a finding for each way to call without a password, with the context that such calls reach.

    Before these, yield findings about settings of chan_sip that help guessers.
    """
    if accounts.reveals_accounts:
        yield Finding(
            False,
            "hardening: chan_sip",
            "reveals to guessers which accounts exist; fix: alwaysauthreject = yes in sip.conf [general]",
        )
    if accounts.autocreates:
        why = "creates an account without a password for anyone who registers; "
        why += "fix: remove autocreatepeer from sip.conf"
        yield Finding(False, "hardening: chan_sip", why)
    if accounts.guest_context:
        yield _reach_finding(
            dialplan,
            "chan_sip",
            "anyone calls without an account",
            accounts.guest_context,
            "allowguest = no in sip.conf [general]",
        )
    groups: dict[tuple[str, str, bool], list[Account]] = {}
    for account in accounts.accounts:
        if account.passwordless:
            anonymous = account.file == "pjsip.conf" and account.name.partition("@")[0] == ANONYMOUS
            groups.setdefault((account.file, account.context, anonymous), []).append(account)
    for (file, context, anonymous), passwordless in groups.items():
        named = _names([account.name for account in passwordless], MANY)
        caller = "anyone calls" if anonymous else "anyone who knows the name calls"
        fix = _STRANGERS_FIX if anonymous else _PASSWORD_FIXES[file]
        yield _reach_finding(dialplan, f"{file} [{named}]", f"{caller} without a password", context, fix)


def _reach_finding(dialplan: "Dialplan", what: str, caller: str, context: str, fix: str) -> Finding:
    """Return the finding about calls without a password that reach ``context``.

    The finding is marked as wrong if the context is known to dial out; otherwise such calls may be intended.
    ``what`` names the configuration that permits such calls, ``caller`` is a text about who can make them,
    and ``fix`` is a text about how to forbid them.
    """
    reach = dialplan.reach(context)
    into = f"{caller}, into context {printable(context)}"
    if reach.dials:
        detail = f"{into}, which dials out ({_names(reach.dials, FEW)}): toll fraud at your cost; fix: {fix}"
        return Finding(False, f"hardening: {what}", detail)
    if not reach.known:
        destination = "; where this leads is unknown"
    elif reach.unclear:
        destination = (
            f"; no way out is found, but not everything can be checked ({_names(reach.unclear, FEW)})"
        )
    else:
        destination = ", where no way out is found"
    return Finding(None, f"hardening: {what}", f"{into}{destination}; fix, unless intended: {fix}")


def _passwords(accounts: "AsteriskAccounts", services: "Services") -> Iterator[Finding]:
    by_file: dict[str, list[str]] = {}
    for account in accounts.accounts:
        if account.weak:
            by_file.setdefault(account.file, []).append(account.name)
    by_file["manager.conf"] = [manager.name for manager in services.managers if manager.weak]
    by_file["ari.conf"] = list(services.weak_ari)
    for file, names in by_file.items():
        if names:
            yield Finding(
                False,
                f"hardening: passwords in {file}",
                f"{len(names)} can be guessed at once (short, well known, or little more than the account's "
                f"name): {_names(names, MANY)}; fix: {_RANDOM}",
            )
    if hashed := sum(account.hashed for account in accounts.accounts):
        yield Finding(None, "hardening: passwords", f"{hashed} are stored as hashes, and cannot be checked")


def _managers(services: "Services", user: str) -> Iterator[Finding]:
    """Yield findings about access to the manager interface, and about the rights of its users."""
    listeners = services.open_listeners(AMI)
    anywhere = [manager.name for manager in services.managers if not manager.restricted]
    for listener in listeners:
        where = f"listens on {', '.join(map(str, listener.addresses))} port {listener.port}"
        if anywhere:
            why = (
                f"and these users may log in from anywhere: {_names(anywhere, FEW)}; fix: {listener.setting}"
            )
            acl = "or deny = 0.0.0.0/0.0.0.0 and permit = the one address it is used from"
            yield Finding(False, "hardening: manager interface", f"{where}, {why}, {acl}")
        else:
            why = "only its users' deny and permit protect it"
            yield Finding(None, "hardening: manager interface", f"{where}; {why}; fix: {listener.setting}")
    powerful = [
        f"{manager.name} ({', '.join(manager.powers)})"
        for manager in services.managers
        if manager.powers and manager.name != user
    ]
    if powerful:
        yield Finding(
            None,
            "hardening: manager users",
            f"their passwords allow to run commands or place calls: {_names(powerful, FEW)}; "
            "fix: only the classes it needs in write =, a deny and a permit",
        )
    own = services.manager(user)
    if own is not None and own.powers:
        yield Finding(
            False,
            f"hardening: manager user {printable(user)}",
            f"ringfence needs no {', '.join(own.powers)}; fix: write = reporting in its section",
        )


def _web(services: "Services") -> Iterator[Finding]:
    """Yield findings about the services of the HTTP server that other hosts may reach.

    Asterisk does not log wrong passwords there, so guessers are not banned.
    """
    unseen = "wrong passwords are reported nowhere, so guessers are never banned"
    for listener in services.open_listeners(HTTP):
        where = f"HTTP listens on {', '.join(map(str, listener.addresses))} port {listener.port}"
        if services.ari:
            fix = f"enabled = no in ari.conf [general], or {listener.setting}"
            yield Finding(False, "hardening: ARI", f"{where}, ARI with it: {unseen}; fix: {fix}")
        if services.webmanager:
            fix = f"webenabled = no in manager.conf [general], or {listener.setting}"
            yield Finding(
                False,
                "hardening: manager interface over HTTP",
                f"{where}, the manager interface with it, and in its digest logins {unseen}; fix: {fix}",
            )
        if not services.ari and not services.webmanager:
            fix = f"{listener.setting}, if no phone comes by WebSocket"
            yield Finding(None, "hardening: HTTP", f"{where}; fix: {fix}")


def _summaries(accounts: "AsteriskAccounts") -> Iterator[Finding]:
    """Yield one line for each common setting that makes the abuse of a stolen password easy.

    The lines are about phones that may register from anywhere, phones without a limit of calls, and broken
    TLS versions.
    """
    phones = [account for account in accounts.accounts if account.registers]
    anywhere = [phone.name for phone in phones if not phone.restricted]
    if anywhere:
        yield Finding(
            None,
            "hardening: phones",
            f"{len(anywhere)} of {len(phones)} may register from anywhere: {_names(anywhere, FEW)}; fix, "
            "where their networks are known: acl (pjsip.conf), deny and permit (sip.conf, iax.conf)",
        )
    endless = [phone.name for phone in phones if not phone.limited]
    if endless:
        yield Finding(
            None,
            "hardening: calls at once",
            f"{len(endless)} of {len(phones)} have no limit: {_names(endless, FEW)}; a stolen password makes "
            "as many calls as your trunk takes; fix: call-limit (sip.conf); GROUP_COUNT() in the dialplan "
            "(PJSIP, whose device_state_busy_at only queues and hints look at)",
        )
    for setting in accounts.broken_tls:
        yield Finding(None, "hardening: TLS", f"{printable(setting)}: a broken version; fix: remove the line")


def _names(names: "Sequence[str] | Iterable[str]", most: int) -> str:
    given = list(names)
    shown = ", ".join(printable(name) for name in given[:most])
    return f"{shown} and {len(given) - most} more" if len(given) > most else shown
