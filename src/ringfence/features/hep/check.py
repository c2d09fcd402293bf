"""The line of ``ringfence check`` about Asterisk's export (HEP)."""

from collections.abc import Iterator

from ringfence.cli.check import Checked
from ringfence.features.hep.alarms import NO_EXPORT
from ringfence.features.hep.settings import targets
from ringfence.findings import Finding
from ringfence.plurals import counted


def findings(checked: Checked) -> Iterator[Finding]:
    """Check whether Asterisk's export of decrypted messages arrives, if it is configured."""
    if not targets(checked.settings):
        return
    what = "export (HEP)"
    if checked.report is None:
        yield Finding(None, what, "only a running daemon knows whether messages by TLS and WSS arrive")
    elif number := sum(source.get("exported", 0) for source in checked.report["sources"]):
        yield Finding(True, what, f"{counted(number, 'message')} by TLS and WSS since the daemon's start")
    else:
        unless = "no message by TLS or WSS has arrived since the daemon's start; if there should be some:"
        yield Finding(None, what, f"{unless} {NO_EXPORT}")
