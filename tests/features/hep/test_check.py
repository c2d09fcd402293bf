"""The line of ``ringfence check`` about Asterisk's export of its messages."""

from pathlib import Path

import pytest

from ringfence.cli.check import Checked
from ringfence.config.loader import parse
from ringfence.features.hep.alarms import NO_EXPORT
from ringfence.features.hep.check import findings
from ringfence.host.console import NoConsole


def checked(exported: tuple[int, ...] | None, *, enabled: bool = True) -> Checked:
    """Return what is checked, if the daemon's sources have exported so many messages; None: no daemon."""
    tree = {"asterisk": [{"hep": {"enabled": enabled}}]}
    report = None if exported is None else {"sources": [{}, *({"exported": one} for one in exported)]}
    settings = parse(tree, "", {}, secrets=False)
    return Checked(settings, None, NoConsole(""), Path(), report=report)


@pytest.mark.parametrize(
    ("exported", "line"),
    [
        (None, "--  export (HEP): only a running daemon knows whether messages by TLS and WSS arrive"),
        ((0, 7), "ok  export (HEP): 7 messages by TLS and WSS since the daemon's start"),
        ((0,), f"since the daemon's start; if there should be some: {NO_EXPORT}"),
    ],
)
def test_the_export_of_asterisk(exported: tuple[int, ...] | None, line: str) -> None:
    """The daemon's counts show whether messages arrive; if none does, the line has the remedy."""
    [finding] = findings(checked(exported))
    assert finding.line.endswith(line)


def test_an_export_that_is_off_has_no_line() -> None:
    """By default ringfence reads no export."""
    assert list(findings(checked((7,), enabled=False))) == []
