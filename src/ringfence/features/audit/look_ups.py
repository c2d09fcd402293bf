"""Findings of ``check`` about datagrams that stop Asterisk: it serves nobody until a look-up of a name ends.

A Via header names the host of its sender, and its ``maddr`` where Asterisk sends the answer. Any stranger
may write one, and may forge the address of each datagram. So bans alone do not end this, but these settings
do.
"""

from collections.abc import Iterator
from pathlib import Path

from ringfence.features.audit.accounts import is_running
from ringfence.findings import Finding
from ringfence.host.console import Console
from ringfence.host.hosts_file import hosts_line, knows_host
from ringfence.model import printable

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
            f"fix: echo '{hosts_line(printable(name))}' >> {hosts}",
        )
