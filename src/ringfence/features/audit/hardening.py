"""Findings of ``check --hardening``: weaknesses of this Asterisk, why they matter, and the fix.

A finding is marked as wrong (``NO``) if it gives a stranger access: a password that can be guessed at once,
outside calls without a password, or an interface where guessers are not banned. A setting that may be
intended is marked ``--``. Administrators show these lines to others. So no line contains a password, or the
exact reason why a password is weak.
"""

import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringfence.cli.check_logs import unknown_findings
from ringfence.features.audit.accounts import ANONYMOUS, Account, AsteriskAccounts, accounts_in_force
from ringfence.features.audit.dialplan import Dialplan
from ringfence.features.audit.freepbx import MODULES, freepbx_findings
from ringfence.features.audit.provisioning import provisioning_findings
from ringfence.features.audit.services import AMI, HTTP, Services, read_services
from ringfence.findings import Finding
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.console import Console
from ringfence.values.text import printable

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
_WITH_PASSWORDS = (
    *("sip.conf", "users.conf", "iax.conf", "pjsip.conf", "pjsip_wizard.conf", "manager.conf", "ari.conf"),
)


def open_to_strangers(accounts: AsteriskAccounts) -> str:
    """Return by what (accounts, settings) strangers may call by SIP without a password; "" if by nothing."""
    files: dict[str, list[str]] = {}
    for account in accounts.accounts:
        if account.passwordless and account.file != "iax.conf":
            files.setdefault(account.file, []).append(account.name)
    guests = ["allowguest in sip.conf"] if accounts.guest_context else []
    return ", ".join([*guests, *(f"{file} [{_names(names, FEW)}]" for file, names in files.items())])


def hardening_findings(
    files: AsteriskFiles, console: Console, user: str, root: Path = Path("/")
) -> Iterator[Finding]:
    """Yield the findings about weaknesses in Asterisk's files and on its console.

    ``user`` is the manager user with which ringfence logs in. ``root`` is the root folder of this host.
    """
    if not _mode(files.folder / "asterisk.conf"):
        yield Finding(
            None,
            "hardening",
            f"{files.folder} has no readable files of Asterisk; fix: run this as root, on Asterisk's host",
        )
        return
    accounts = accounts_in_force(files, console)
    services = read_services(files)
    dialplan = Dialplan(console)
    found = [
        *_unauthenticated(accounts, dialplan),
        *_passwords(accounts, services),
        *_managers(services, user),
        *_http(services),
        *_readable_files(files),
        *freepbx_findings(root / MODULES),
        *provisioning_findings(root),
        *_summaries(accounts),
    ]
    hidden = list(_not_checked(accounts, services, console))
    yield from hidden
    yield from found
    if not any(finding.right is False for finding in (*hidden, *found)):
        seen = "nothing is wide open, as far as could be checked"
        yield Finding(None if hidden else True, "hardening", seen if hidden else "nothing is wide open")


def _readable_files(files: AsteriskFiles) -> Iterator[Finding]:
    """Yield a finding if every user of this host may read files with passwords, also included ones.

    No command is proposed for a link: Asterisk's user may have made it lead to any file of this host.
    """
    modes = {path: _mode(path) for name in _WITH_PASSWORDS for path in files.paths_of(name)}
    shown = [file for file, mode in modes.items() if stat.S_ISREG(mode) and mode & 0o004]
    if shown and _mode(files.folder) & 0o001:
        links = ", ".join(str(file) for file in shown if _is_link(file, files.folder))
        plain = shlex.join(str(file) for file in shown if not _is_link(file, files.folder))
        fixes = [f"chmod o= {plain}"] if plain else []
        fixes += [f"see where these links lead: {links}"] if links else []
        yield Finding(
            None,
            "hardening: files",
            f"every user of this host may read passwords; fix: {'; '.join(fixes)}",
        )


def _is_link(file: Path, folder: Path) -> bool:
    """Whether ``file``, or a folder between it and ``folder``, is a link."""
    return any(part.is_symlink() for part in (file, *file.parents) if folder in part.parents)


def _mode(path: Path) -> int:
    """Return the mode of a file; 0 if it does not exist (any more), or if its folder is closed."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _not_checked(accounts: AsteriskAccounts, services: Services, console: Console) -> Iterator[Finding]:
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


def _unauthenticated(accounts: AsteriskAccounts, dialplan: Dialplan) -> Iterator[Finding]:
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


def _reach_finding(dialplan: Dialplan, what: str, caller: str, context: str, fix: str) -> Finding:
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


def _passwords(accounts: AsteriskAccounts, services: Services) -> Iterator[Finding]:
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


def _managers(services: Services, user: str) -> Iterator[Finding]:
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


def _http(services: Services) -> Iterator[Finding]:
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


def _summaries(accounts: AsteriskAccounts) -> Iterator[Finding]:
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


def _names(names: Iterable[str], most: int) -> str:
    given = list(names)
    shown = ", ".join(printable(name) for name in given[:most])
    return f"{shown} and {len(given) - most} more" if len(given) > most else shown
