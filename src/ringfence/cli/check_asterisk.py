"""What ``check`` says of Asterisk's own settings: what they keep from every log."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ringfence.cli.findings import Finding

if TYPE_CHECKING:
    from ringfence.host.asterisk import Asterisk

ELSEWHERE = (
    'asterisk -rx "logger show channels", asterisk -rx "pjsip show settings", and authdebug in iax.conf'
)
"""Where an administrator sees for himself what this cannot tell."""


def asterisk_findings(asterisk: "Asterisk | None") -> Iterator[Finding]:
    """Say what Asterisk is set to keep to itself; without its files, that it cannot be told."""
    what = "asterisk's settings"
    if asterisk is None:
        yield Finding(None, what, f"are not to be seen from here; see where it runs: {ELSEWHERE}")
        return
    if asterisk.unread:
        names = ", ".join(asterisk.unread)
        yield Finding(None, what, f"not all may be read ({names}); run this as root, or see: {ELSEWHERE}")
    if asterisk.iax_silent:
        yield Finding(
            None,
            f"{what}: IAX2",
            "failed logins are logged nowhere; mend: authdebug = yes in iax.conf [general]",
        )
    gate = asterisk.gate
    if gate is not None:
        yield Finding(
            None,
            f"{what}: PJSIP",
            f"callers that it does not know are told of from request {gate.count} within {gate.period} s on, "
            f"and then for up to {gate.mute} s not at all (unidentified_request_count, _period, "
            "_prune_interval); mend: no auth_username in endpoint_identifier_order, if no phone needs it",
        )
    if not asterisk.unread and not asterisk.iax_silent and gate is None:
        yield Finding(True, what, "nothing is kept from its logs")
