"""Findings of ``check`` about settings of Asterisk that hide attempts from all its logs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ringfence.audit.findings import Finding
from ringfence.sources.coverage_gaps import CHAN_SIP_TLS

if TYPE_CHECKING:
    from ringfence.audit.asterisk import Asterisk
    from ringfence.host.console import Console

ELSEWHERE = (
    'asterisk -rx "logger show channels", asterisk -rx "pjsip show settings", and authdebug in iax.conf'
)
"""Where an administrator finds the settings that ``check`` could not read: commands and a file."""


def asterisk_findings(asterisk: "Asterisk | None", console: "Console") -> Iterator[Finding]:
    """Yield a finding for each setting that hides attempts; if there is none, a finding that says so.

    ``asterisk`` is None if Asterisk's files cannot be read here. In this case, and if only a part of the
    files can be read, yield a finding with the commands that show such settings to the administrator.
    """
    what = "asterisk's settings"
    if asterisk is None:
        yield Finding(None, what, f"cannot be read from here; on its host, see: {ELSEWHERE}")
        return
    if asterisk.unread:
        names = ", ".join(asterisk.unread)
        yield Finding(
            None, what, f"not all files can be read ({names}); fix: run this as root, or see: {ELSEWHERE}"
        )
    if asterisk.iax_silent:
        yield Finding(
            None,
            f"{what}: IAX2",
            "failed logins are logged nowhere; fix: authdebug = yes in iax.conf [general]",
        )
    gate = asterisk.gate
    if gate is not None:
        yield Finding(
            None,
            f"{what}: PJSIP",
            f"unknown callers are reported only from request {gate.count} within {gate.period} s on, "
            f"and then not at all for up to {gate.mute} s (unidentified_request_count, _period, "
            "_prune_interval); fix: remove auth_username from endpoint_identifier_order, unless needed",
        )
    chan_sip_tls = _chan_sip_tls(asterisk, console)
    if chan_sip_tls:
        yield Finding(None, f"{what}: chan_sip", CHAN_SIP_TLS)
    if not asterisk.unread and not asterisk.iax_silent and gate is None and not chan_sip_tls:
        yield Finding(True, what, "no setting hides attempts from its logs")


def _chan_sip_tls(asterisk: "Asterisk", console: "Console") -> bool:
    """Whether chan_sip serves TLS: the console's answer, or else what sip.conf configures.

    The file decides only if the console cannot be used. A new Asterisk has no chan_sip, but often still a
    sip.conf. Its console does not know the command; then the result is False.
    """
    from ringfence.audit.shown import settings_from  # noqa: PLC0415 - loaded when the command runs

    shown = settings_from(console.show("sip show settings") or "").get("tls sip bindaddress")
    return shown != "Disabled" if shown else bool(console.problem) and asterisk.chan_sip_tls
