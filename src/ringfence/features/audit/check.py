"""Findings of ``check`` about the Asterisk of this host: rights, pages, guests, decoys, look-ups."""

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringfence.cli.check import Checked
from ringfence.config.schema import Settings
from ringfence.features.audit.accounts import accounts_in_force, is_running
from ringfence.features.audit.hardening import hardening_findings, open_to_strangers
from ringfence.features.audit.options import HARDENING
from ringfence.features.audit.services import HTTP, read_services
from ringfence.findings import Finding
from ringfence.firewall.limits import GUESTS, LimitMode
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.console import Console
from ringfence.host.hosts_file import hosts_line, knows_host
from ringfence.values.text import printable

_RIGHTS = (("read", "security"), ("read", "system"), ("write", "reporting"))
"""The rights (side, class) by which ringfence's manager user gets events, phones and trunks."""
_CONTAINED = "Asterisk's files are only in its container, or not its own; fix: make their folder a volume"


def findings(checked: Checked) -> Iterator[Finding]:
    """Yield the findings about the Asterisk on this host, and about its weaknesses if these are wanted."""
    files, console, settings = checked.files, checked.console, checked.settings
    if files is None:
        if HARDENING in checked.wishes:
            yield Finding(None, "hardening", f"not checked: {console.problem or _CONTAINED}")
        yield from look_up_findings(console)
        return
    user = str(settings.asterisk[0].ami.username)
    yield from rights_findings(files, user)
    yield from page_findings(settings, files)
    accounts = accounts_in_force(files, console)
    yield from guest_findings(settings, open_to_strangers(accounts))
    decoys = settings.rules["decoy"]
    if decoys.enabled and decoys.accounts:
        yield from decoy_findings(decoys.accounts, (account.name for account in accounts.accounts))
    if HARDENING in checked.wishes:
        yield from hardening_findings(files, console, user)
    yield from look_up_findings(console)
    yield from host_name_findings(
        socket.gethostname(), checked.hosts, checked.hosts.with_name("nsswitch.conf")
    )


def page_findings(settings: Settings, files: AsteriskFiles) -> Iterator[Finding]:
    """Report, for each HTTPS port that other hosts may reach, whether the answers to strangers count.

    An answer counts as an attempt (rule ``unexplained``), unless strangers may read pages there.
    """
    doors = [door for door in read_services(files).open_listeners(HTTP) if door.tls] if settings.wire else []
    for door in doors:
        what = f"wire: HTTPS on port {door.port}"
        if not settings.has_pages(door.port):
            counted = "strangers may read no pages: each answer without an event counts (rule unexplained)"
            fix = "if they should (provisioning, ARI): https_pages = true in [asterisk.wire], or allow them"
            yield Finding(True, what, f"{counted}; {fix}")
        elif not any(getattr(getattr(pbx, "hep", None), "enabled", False) for pbx in settings.asterisk):
            hidden = "strangers may read pages, and guesses by WSS can hide among them from AMI and the wire"
            yield Finding(None, what, f"{hidden}; fix: https_pages = false, or [asterisk.hep]")


def rights_findings(files: AsteriskFiles, user: str) -> Iterator[Finding]:
    """Report the rights that our manager user lacks. ``user`` is its name.

    Yield nothing if the user has all rights that it needs, or if its rights are unknown.
    """
    own = read_services(files).manager(user)
    lacking = [f"{side} = {name}" for side, name in _RIGHTS if own and not own.may(side, name)]
    if lacking:
        yield Finding(
            None,
            f"asterisk's settings: manager user {printable(user)}",
            f"lacks {', '.join(lacking)}: phones and trunks become friends at their first event, not at "
            "the start; fix: read = security,system and write = reporting there, then manager reload",
        )


def decoy_findings(decoys: Iterable[str], accounts: Iterable[str]) -> Iterator[Finding]:
    """Report the decoys that are real accounts.

    A decoy is an account name in the settings of the rule ``decoy``. A real account must not be one, because
    then one mistyped password of its phone causes a ban.
    """
    for name in sorted({*decoys} & {*accounts}):
        why = "is an account in Asterisk's files, so a mistyped password of it leads to a ban"
        fix = "fix: remove it from accounts in [rules.decoy]"
        yield Finding(False, f"decoy {printable(name)}", f"{why}; {fix}")


def guest_findings(settings: Settings, by: str) -> Iterator[Finding]:
    """Report whether the limit on strangers' requests fits: a PBX that takes their calls needs a higher one.

    ``by`` is what lets strangers call without a password, "" if nothing is known that does.
    """
    if settings.plan(None).mode("asking") is LimitMode.OFF:
        return
    if by and not settings.guests:
        yield Finding(
            None,
            "guests",
            f"Asterisk takes calls without a password ({by}), and a stranger may ask little in a second; "
            "fix: allow the networks of your carriers, or, if anybody may call: guests = true in "
            "[[asterisk]]",
        )
    elif by:
        yield Finding(True, "guests", f"strangers may call ({by}), and each may ask {GUESTS} times as much")
    elif settings.guests:
        yield Finding(
            None,
            "guests",
            f"strangers may ask {GUESTS} times as much, but no account is known that takes calls without a "
            "password; fix: if there is none, remove guests from [[asterisk]]",
        )


# -- datagrams that stop Asterisk: it looks up the names in them, and serves nobody until the look-up ends
#
# A Via header names the host of its sender, and its ``maddr`` where Asterisk sends the answer. Any stranger
# may write one, and may forge the address of each datagram. So bans alone do not end this, but these settings
# do.


_LOOK_UPS = "look-ups of names"
_OVERLOAD = "taskprocessor_overload_trigger"


def look_up_findings(console: Console) -> Iterator[Finding]:
    """Yield a finding for each running channel driver that look-ups of names can stop.

    ``maddr=HOST.example`` makes PJSIP look up that name in the background, one name after the other. If a
    name server does not answer, each look-up takes ten seconds. With more than 500 that wait, PJSIP takes
    itself for overloaded and ignores all requests, unless only its own queues count. On Asterisk 22, 300
    datagrams did so. chan_sip has one thread, which waits for each look-up of any host in a Via.
    """
    if is_running("chan_sip", console.show("module show like chan_sip.so") or ""):
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
            # No name in a shell's quotes: it may come from a DHCP server.
            f'fix: echo "{hosts_line("$(hostname)", "$(hostname --fqdn)")}" >> {hosts}',
        )
