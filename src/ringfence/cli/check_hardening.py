"""What ``check --hardening`` says: what in this Asterisk invites an attack, why that matters, and the mend.

Wrong (``NO``) is what a stranger gets somewhere by: a password that is guessed at once, calls to the world
without any, a door for guessers whom nothing can ban. What may be meant so is told (``--``). Passwords are
named nowhere, and which account has what kind of weak one is not said either, since such lines are shown to
others.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from ringfence.cli.findings import Finding
from ringfence.model import printable

if TYPE_CHECKING:
    from ringfence.host.accounts import Account, Accounts
    from ringfence.host.console import AsteriskConsole
    from ringfence.host.dialplan import Dialplan
    from ringfence.host.services import Services

FEW, MANY = 5, 60
"""So many names stand in a line: of what is summed up, and of what is to be mended one by one."""

_FREE_MENDS = {
    "pjsip.conf": "an auth for it; or identify_by = ip, where an identify names its addresses",
    "pjsip_wizard.conf": "accepts_auth = yes with inbound_auth/password; or endpoint/identify_by = ip",
    "sip.conf": "a secret, and no insecure=invite; a trunk is type = peer with host = its address",
    "users.conf": "a secret",
    "iax.conf": "a secret, or deny and permit, or remove it",
}
_STRANGERS_MEND = "remove it, or give it a context that cannot dial"
_RANDOM = "16 random characters each, such as of: openssl rand -hex 8"


def accounts_in_force(folder: Path, console: "AsteriskConsole") -> "Accounts":
    """Give the accounts of the drivers that are loaded, by the files in ``folder`` and the console."""
    from ringfence.host.accounts import read_accounts  # noqa: PLC0415 - loaded when the command runs

    drivers = {name: _is_loaded(folder, console, module) for name, module in _DRIVERS.items()}
    return _in_force(read_accounts(folder, **drivers), console)


def hardening_findings(folder: Path, console: "AsteriskConsole", user: str) -> Iterator[Finding]:
    """Say what is found in the files in ``folder`` and by the console; ``user`` is our own manager user."""
    from ringfence.host.dialplan import Dialplan  # noqa: PLC0415 - loaded when the command runs
    from ringfence.host.services import read_services  # noqa: PLC0415 - loaded when the command runs

    if not (folder / "asterisk.conf").exists():
        yield Finding(None, "hardening", f"{folder} has no Asterisk's files that may be read; be root, there")
        return
    accounts = accounts_in_force(folder, console)
    services = read_services(folder)
    dialplan = Dialplan(console)
    found = [
        *_strangers(accounts, dialplan),
        *_passwords(accounts, services),
        *_managers(services, user),
        *_web(services),
        *_shown_to_all(folder),
        *_summed_up(accounts),
    ]
    hidden = list(_not_seen(accounts, services, console))
    yield from hidden
    yield from found
    if not any(finding.right is False for finding in found):
        seen = "of what can be seen, nothing is wide open"
        yield Finding(None if hidden else True, "hardening", seen if hidden else "nothing is wide open")


def _in_force(accounts: "Accounts", console: "AsteriskConsole") -> "Accounts":
    """Put what chan_sip does now in place of what its file says, which it may not have read since."""
    from ringfence.host.shown import settings_from  # noqa: PLC0415 - loaded when the command runs

    shown = settings_from(console.show("sip show settings") or "")
    guests = shown.get("allow unknown access")
    if guests is None:
        return accounts
    return evolve(
        accounts,
        guests=shown.get("context", "default") if guests == "Yes" else "",
        telling=shown.get("always auth rejects") == "No",
        making=shown.get("autocreate peer", "Off") != "Off",
    )


_WITH_PASSWORDS = (
    *("sip.conf", "users.conf", "iax.conf", "pjsip.conf", "pjsip_wizard.conf", "manager.conf", "ari.conf"),
)
_DRIVERS = {"chan_sip": "chan_sip", "iax2": "chan_iax2", "pjsip": "res_pjsip"}


def _is_loaded(folder: Path, console: "AsteriskConsole", module: str) -> bool:
    """Ask Asterisk whether it has a driver; where it does not answer, the files."""
    from ringfence.host.asterisk import is_loaded, read_modules  # noqa: PLC0415 - loaded when the command runs

    shown = console.show(f"module show like {module}.so")
    if shown is None:
        modules = read_modules(folder)
        return is_loaded(modules, module) or bool(modules and modules.unread)
    return any(line.startswith(f"{module}.so ") and " Running " in line for line in shown.split("\n"))


def _shown_to_all(folder: Path) -> Iterator[Finding]:
    """Tell which files with passwords any user of this host may read."""
    names = [name for name in _WITH_PASSWORDS if (folder / name).is_file()]
    shown = [name for name in names if (folder / name).stat().st_mode & 0o004]
    if shown and folder.stat().st_mode & 0o001:
        mend = f"mend: chmod o= {' '.join(str(folder / name) for name in shown)}"
        yield Finding(None, "hardening: files", f"every user of this host may read passwords; {mend}")


def _not_seen(accounts: "Accounts", services: "Services", console: "AsteriskConsole") -> Iterator[Finding]:
    if unread := sorted({*accounts.unread, *services.unread}):
        yield Finding(None, "hardening", f"not all may be read: {', '.join(unread)}; run this as root")
    if console.lack:
        yield Finding(
            None,
            "hardening: console",
            f"{console.lack}: what is in force, and where a context leads, is not seen",
        )
    if accounts.stored:
        yield Finding(
            None,
            "hardening: database",
            f"accounts in a database are not looked at (extconfig.conf: {', '.join(accounts.stored)})",
        )


def _strangers(accounts: "Accounts", dialplan: "Dialplan") -> Iterator[Finding]:
    """Tell who calls without a password, and how far that leads."""
    from ringfence.host.accounts import ANONYMOUS  # noqa: PLC0415 - loaded when the command runs

    if accounts.telling:
        yield Finding(
            False,
            "hardening: chan_sip",
            "tells guessers which accounts there are; mend: alwaysauthreject = yes in sip.conf [general]",
        )
    if accounts.making:
        why = (
            "makes an account for whoever registers, without a password; mend: no autocreatepeer in sip.conf"
        )
        yield Finding(False, "hardening: chan_sip", why)
    if accounts.guests:
        yield _led(
            dialplan,
            "chan_sip",
            "anybody calls without an account",
            accounts.guests,
            "allowguest = no in sip.conf [general]",
        )
    groups: dict[tuple[str, str, bool], list[Account]] = {}
    for account in accounts.accounts:
        if account.free:
            anonymous = account.file == "pjsip.conf" and account.name.partition("@")[0] == ANONYMOUS
            groups.setdefault((account.file, account.context, anonymous), []).append(account)
    for (file, context, anonymous), free in groups.items():
        named = _names([account.name for account in free], MANY)
        who = "anybody calls" if anonymous else "whoever gives the name calls"
        mend = _STRANGERS_MEND if anonymous else _FREE_MENDS[file]
        yield _led(dialplan, f"{file} [{named}]", f"{who} without a password", context, mend)


def _led(dialplan: "Dialplan", what: str, who: str, context: str, mend: str) -> Finding:
    """Say how far a call without a password comes: wrong where it is seen to reach the world."""
    reach = dialplan.reach(context)
    into = f"{who}, into context {printable(context)}"
    if reach.dials:
        detail = (
            f"{into}, which dials out ({_names(reach.dials, FEW)}): toll fraud at your cost; mend: {mend}"
        )
        return Finding(False, f"hardening: {what}", detail)
    if not reach.known:
        leads = "; where that leads is not seen"
    elif reach.unclear:
        leads = f"; it is not seen to dial out, but not all is seen ({_names(reach.unclear, FEW)})"
    else:
        leads = ", which is not seen to dial out"
    return Finding(None, f"hardening: {what}", f"{into}{leads}; mend, unless it is meant so: {mend}")


def _passwords(accounts: "Accounts", services: "Services") -> Iterator[Finding]:
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
                f"{len(names)} guessed at once (short, well known, or hardly more than the account's name): "
                f"{_names(names, MANY)}; mend: {_RANDOM}",
            )
    if hashed := sum(account.hashed for account in accounts.accounts):
        yield Finding(None, "hardening: passwords", f"{hashed} are kept as hashes, and cannot be judged")


def _managers(services: "Services", user: str) -> Iterator[Finding]:
    """Tell who reaches the manager interface, and who may do what there."""
    from ringfence.host.services import AMI  # noqa: PLC0415 - loaded when the command runs

    doors = services.open_doors(AMI)
    anywhere = [manager.name for manager in services.managers if not manager.bounded]
    for door in doors:
        where = f"listens on {', '.join(map(str, door.addresses))} port {door.port}"
        if anywhere:
            why = f"and from anywhere may log in: {_names(anywhere, FEW)}; mend: {door.setting}"
            acl = "or deny = 0.0.0.0/0.0.0.0 and permit = the one address it is used from"
            yield Finding(False, "hardening: manager interface", f"{where}, {why}, {acl}")
        else:
            why = "its users' deny and permit alone keep strangers out"
            yield Finding(None, "hardening: manager interface", f"{where}; {why}; mend: {door.setting}")
    powerful = [
        f"{manager.name} ({', '.join(manager.powers)})"
        for manager in services.managers
        if manager.powers and manager.name != user
    ]
    if powerful:
        yield Finding(
            None,
            "hardening: manager users",
            f"whoever has the password of one runs commands or places calls: {_names(powerful, FEW)}; "
            "mend: only the classes it needs in write =, a deny and a permit",
        )
    own = services.manager(user)
    if own is not None and own.powers:
        yield Finding(
            False,
            f"hardening: manager user {printable(user)}",
            f"ringfence needs no {', '.join(own.powers)}; mend: write = reporting in its section",
        )


def _web(services: "Services") -> Iterator[Finding]:
    """Tell what the HTTP server offers to the world, where guessers are neither seen nor banned."""
    from ringfence.host.services import HTTP  # noqa: PLC0415 - loaded when the command runs

    unseen = "wrong passwords are told nowhere, so nothing bans who guesses"
    for door in services.open_doors(HTTP):
        where = f"HTTP listens on {', '.join(map(str, door.addresses))} port {door.port}"
        if services.ari:
            mend = f"enabled = no in ari.conf [general], or {door.setting}"
            yield Finding(False, "hardening: ARI", f"{where}, ARI with it: {unseen}; mend: {mend}")
        if services.webmanager:
            mend = f"webenabled = no in manager.conf [general], or {door.setting}"
            yield Finding(
                False,
                "hardening: manager interface over HTTP",
                f"{where}, the manager interface with it, and in its digest logins {unseen}; mend: {mend}",
            )
        if not services.ari and not services.webmanager:
            mend = f"{door.setting}, if no phone comes by WebSocket"
            yield Finding(None, "hardening: HTTP", f"{where}; mend: {mend}")


def _summed_up(accounts: "Accounts") -> Iterator[Finding]:
    """Tell in a line each what is usual, and would slow a thief down."""
    phones = [account for account in accounts.accounts if account.registers]
    anywhere = [phone.name for phone in phones if not phone.bounded]
    if anywhere:
        yield Finding(
            None,
            "hardening: phones",
            f"{len(anywhere)} of {len(phones)} may register from anywhere: {_names(anywhere, FEW)}; mend, "
            "where their networks are known: acl (pjsip.conf), deny and permit (sip.conf, iax.conf)",
        )
    endless = [phone.name for phone in phones if not phone.limited]
    if endless:
        yield Finding(
            None,
            "hardening: calls at once",
            f"{len(endless)} of {len(phones)} have no limit: {_names(endless, FEW)}; a stolen password makes "
            "as many calls as your trunk takes; mend: call-limit (sip.conf); GROUP_COUNT() in the dialplan "
            "(PJSIP, whose device_state_busy_at only queues and hints look at)",
        )
    for setting in accounts.outdated:
        yield Finding(
            None, "hardening: TLS", f"{printable(setting)}: a broken version; mend: remove the line"
        )


def _names(names: "Sequence[str] | Iterable[str]", most: int) -> str:
    given = list(names)
    shown = ", ".join(printable(name) for name in given[:most])
    return f"{shown} and {len(given) - most} more" if len(given) > most else shown
