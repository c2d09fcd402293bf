"""The commands that the pages offer: what each one does, and which requests it sends to the daemon.

The user confirms each command on a page of its own before it runs. The daemon records the user's name: in
the reason of a ban, in the note of a list entry, or in the history of an alarm.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from attrs import evolve, frozen

from ringfence.errors import ControlError, RingfenceError
from ringfence.features.web.daemon_client import UNRECORDED, DaemonClient
from ringfence.plurals import counted
from ringfence.values.network import (
    PAGE_SHORTEST,
    PAGE_UNBAN_SHORTEST,
    format_network,
    parse_network,
)
from ringfence.values.text import printable

LENGTHS = {
    "10 minutes": 600,
    "1 hour": 3_600,
    "6 hours": 6 * 3_600,
    "1 day": 86_400,
    "7 days": 7 * 86_400,
    "30 days": 30 * 86_400,
}
"""The lengths that a user can choose for a ban (seconds)."""
_MOST_NOTE = 200  # characters of the user's reason and name together
_MOST_FRIENDS = 5


@frozen
class Order:
    """The arguments of a command of the live page, and ``person``, the name of the user who gave it.

    ``what`` is the address, network, list entry or number of an alarm that the command concerns. ``length``
    is a key of LENGTHS; only a ban has it. ``note`` is the user's reason.
    """

    what: str
    person: str
    length: str = "1 hour"
    note: str = ""

    @property
    def signed(self) -> str:
        """The user's reason and name in one line: ``scanner (web: Ann)``.

        If the line would be too long, the reason is cut, never the name.
        """
        signature = f"(web: {self.person})"
        note = " ".join(printable(self.note).split())[: _MOST_NOTE - len(signature) - 1].rstrip()
        return f"{note} {signature}" if note else signature


@frozen
class CommandResult:
    """The result of a command, as lines for the user.

    ``problems`` has a line for each thing that failed, and ``notes`` has the other lines.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@frozen
class WebCommand:
    """A command of the live page: its label, its effect in one or two sentences, and how to run it.

    ``check`` returns the argument ``what`` in its usual form, and raises ControlError if it is invalid.
    ``has_length``: the user chooses a length (only for a ban). ``has_note``: the user may write a reason.
    ``warns``: the user is warned if the command would block a friend.
    """

    label: str
    effect: str
    run: Callable[[DaemonClient, Order], Awaitable[CommandResult]]
    check: Callable[[str], str]
    has_length: bool = False
    has_note: bool = False
    warns: bool = False


async def run_command(client: DaemonClient, command: WebCommand, order: Order) -> CommandResult:
    """Run a command; return its result, with a note if its change is in force, but not recorded."""
    reasons = list[str]()
    UNRECORDED.set(reasons)
    result = await command.run(client, order)
    notes = (f"in force, but not recorded, so a restart may undo it: {why}" for why in dict.fromkeys(reasons))
    return evolve(result, notes=(*result.notes, *notes))


async def warnings_of(client: DaemonClient, command: WebCommand, what: str) -> list[str]:
    """Return the warnings about a command that concerns ``what``; [] if it blocks no address.

    They name friends (known phones and trunks of this PBX) among the addresses: the first few, and the number
    of the others.
    """
    if not command.warns:
        return []
    rows = await client.ask_costly("friends", networks=[what])
    accounts: dict[str, set[str]] = {}
    for row in rows:
        accounts.setdefault(row["address"], set()).add(row["account"])
    lines = [
        f"{address} is a friend, a phone or trunk of this PBX: {', '.join(sorted(names)[:_MOST_FRIENDS])}"
        for address, names in [*accounts.items()][:_MOST_FRIENDS]
    ]
    more = len(accounts) - _MOST_FRIENDS
    return [*lines, f"and {counted(more, 'more friend')}"] if more > 0 else lines


# -- the checks of a command's argument ``what``


def _small(text: str, shortest: Mapping[int, int] = PAGE_SHORTEST) -> str:
    """Return an address or network in its usual form.

    Raise ControlError if it is neither, or if the daemon refuses it to the page: ``shortest`` are the
    shortest prefix lengths, by IP version.
    """
    try:
        network = parse_network(text.strip())
    except ValueError:
        network = None
    if network is None or network.prefixlen < shortest[network.version]:
        sizes = ", ".join(f"IPv{version} /{length}" for version, length in shortest.items())
        raise ControlError(
            f"{printable(text[:100])} is not an address or a small network ({sizes}); for others, use the "
            "command line"
        )
    return format_network(network)


def _alarm(text: str) -> str:
    if not (text.isascii() and text.isdecimal() and len(text) < len("1000000000")):
        raise ControlError("an alarm is named by its number")
    return text


# -- the requests to the daemon


async def _unban(client: DaemonClient, order: Order) -> CommandResult:
    answer = await client.command("unban", networks=[order.what])
    return CommandResult((*answer["problems"], *_not_banned(answer)), tuple(answer["notes"]))


def _not_banned(answer: Mapping[str, Any]) -> list[str]:
    """Return a line for each network of an unban that was not banned."""
    return [f"{network}: is not banned" for network in answer["not_banned"]]


async def _unban_and_allow(client: DaemonClient, order: Order) -> CommandResult:
    """Allow an address, and end its ban; return what was done and what failed.

    The address is allowed first, so that it cannot be banned again in between. It is also allowed if it is
    not banned, or if its ban does not end.
    """
    allowed = await client.command("allow_add", what=[order.what], note=order.signed)
    is_allowed = not allowed["problems"]
    try:
        unbanned = await client.command("unban", networks=[order.what], allowed=is_allowed)
    except RingfenceError as error:
        done = f"{order.what} is on the allow list now; " if is_allowed else ""
        return CommandResult((*allowed["problems"], f"{done}unban: {error}"), tuple(allowed["notes"]))
    not_banned = [] if is_allowed else _not_banned(unbanned)
    return CommandResult(
        (*allowed["problems"], *unbanned["problems"], *not_banned), (*allowed["notes"], *unbanned["notes"])
    )


async def _ban(client: DaemonClient, order: Order) -> CommandResult:
    seconds = LENGTHS.get(order.length)
    if seconds is None:
        raise ControlError("choose one of the lengths of a ban")
    return _outcome(await client.command("ban", networks=[order.what], seconds=seconds, reason=order.signed))


async def _add(do: str, client: DaemonClient, order: Order) -> CommandResult:
    return _outcome(await client.command(do, what=[order.what], note=order.signed))


async def _remove(do: str, client: DaemonClient, order: Order) -> CommandResult:
    return _outcome(await client.command(do, what=[order.what]))


async def _dismiss(client: DaemonClient, order: Order) -> CommandResult:
    answer = await client.command("alarms_dismiss", numbers=[int(order.what)], by=order.person)
    return CommandResult(("this alarm is not active",) if answer["unknown"] else ())


def _outcome(answer: Mapping[str, Any]) -> CommandResult:
    return CommandResult(tuple(answer["problems"]), tuple(answer["notes"]))


COMMANDS: Mapping[str, WebCommand] = {
    "unban": WebCommand(
        "Unban",
        "The ban ends now. The rules may ban the address again.",
        _unban,
        partial(_small, shortest=PAGE_UNBAN_SHORTEST),
    ),
    "unban-allow": WebCommand(
        "Unban and allow",
        "The ban ends now, and the address is added to the allow list: nothing bans it until you remove it.",
        _unban_and_allow,
        _small,
        has_note=True,
    ),
    "ban": WebCommand(
        "Ban",
        "The kernel drops its packets for the time that you choose.",
        _ban,
        _small,
        has_length=True,
        has_note=True,
        warns=True,
    ),
    "allow": WebCommand(
        "Allow",
        "It is added to the allow list: nothing bans it until you remove it.",
        partial(_add, "allow_add"),
        _small,
        has_note=True,
    ),
    "allow-remove": WebCommand(
        "Remove from the allow list",
        "The rules may ban it again.",
        partial(_remove, "allow_remove"),
        _small,
    ),
    "deny": WebCommand(
        "Deny",
        "It is added to the deny list: the kernel drops all its packets until you remove it.",
        partial(_add, "deny_add"),
        _small,
        has_note=True,
        warns=True,
    ),
    "deny-remove": WebCommand(
        "Remove from the deny list",
        "The kernel does not drop its packets any more, unless a rule bans it.",
        partial(_remove, "deny_remove"),
        _small,
    ),
    "dismiss": WebCommand(
        "Dismiss alarm",
        "The alarm is hidden until it happens again.",
        _dismiss,
        _alarm,
    ),
}
"""Every command, by the name that URLs and forms use for it (``do``)."""


def is_offered(do: str, what: str) -> bool:
    """Whether the daemon lets the page use the command ``do`` for ``what``."""
    try:
        COMMANDS[do].check(what)
    except ControlError:
        return False
    return True
