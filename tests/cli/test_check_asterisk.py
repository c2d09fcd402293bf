"""Findings of ``check`` about Asterisk's settings: attempts that the logs do not show, with the fix."""

import pytest
from attrs import evolve
from tests.support.console import ScriptedConsole

from ringfence.cli.check_logs import asterisk_findings
from ringfence.host.asterisk_logging import Asterisk, Gate
from ringfence.host.conf_reader import Unread
from ringfence.host.console import Console
from ringfence.sources.state import CHAN_SIP_TLS

GOOD = Asterisk(channels={}, security=True, iax_silent=False, gate=None, chan_sip_tls=False, unread=())
SETTINGS = "Global Settings:\n  TCP SIP Bindaddress:    Disabled\n  TLS SIP Bindaddress:    {}\n"


def lines(asterisk: Asterisk | None, console: Console | None = None) -> list[str]:
    """Return the findings about these settings."""
    found = asterisk_findings(asterisk, console if console is not None else ScriptedConsole())
    return [finding.line for finding in found]


def test_nothing_is_hidden() -> None:
    """Settings that hide nothing are one line, which is ok."""
    assert lines(GOOD) == ["ok  asterisk's settings: no setting hides attempts from its logs"]


def test_iax2_without_authdebug() -> None:
    """Without authdebug failed logins are not logged; the finding has the fix."""
    [line] = lines(evolve(GOOD, iax_silent=True))

    assert line.startswith("--  asterisk's settings: IAX2: failed logins are logged nowhere")
    assert line.endswith("fix: authdebug = yes in iax.conf [general]")


def test_the_gate_is_reported_in_numbers() -> None:
    """The finding has the first reported request and the longest silence."""
    [line] = lines(evolve(GOOD, gate=Gate(count=3, period=10, prune=60)))

    assert "from request 3 within 10 s on, and then not at all for up to 100 s" in line
    assert "auth_username" in line


@pytest.mark.parametrize(
    ("answer", "problem", "in_file", "serves"),
    [
        (SETTINGS.format("198.18.0.1:5061"), "", False, True),
        (SETTINGS.format("Disabled"), "", True, False),
        (None, "", True, False),
        (None, "nobody answers", True, True),
        (None, "nobody answers", False, False),
    ],
)
def test_chan_sip_over_tls_is_a_gap(answer: str | None, problem: str, *, in_file: bool, serves: bool) -> None:
    """The console states whether chan_sip serves TLS; if it cannot be asked, sip.conf decides."""
    found = lines(evolve(GOOD, chan_sip_tls=in_file), ScriptedConsole(lambda _: answer, problem))

    gap = f"--  asterisk's settings: chan_sip: {CHAN_SIP_TLS}"
    assert found == ([gap] if serves else lines(GOOD))


def test_unreadable_settings() -> None:
    """If files are unreadable, the finding names commands that show the settings."""
    commands = (
        'asterisk -rx "logger show channels", asterisk -rx "pjsip show settings", and authdebug in iax.conf'
    )

    assert lines(None) == [f"--  asterisk's settings: cannot be read from here; on its host, see: {commands}"]
    closed = Unread("iax.conf", "/etc/asterisk/own.conf", "it cannot be read: Permission denied", closed=True)
    wrong = Unread("pjsip.conf", "/etc/asterisk/pjsip.conf:3", "a section has no closing ]")
    hidden, refused = lines(evolve(GOOD, unread=(closed, wrong)))
    assert hidden == (
        "--  asterisk's settings: not all files can be read (/etc/asterisk/own.conf: it cannot be read: "
        f"Permission denied); fix: run this as root, or see: {commands}"
    )
    assert refused == (
        "NO  asterisk's settings: pjsip.conf: /etc/asterisk/pjsip.conf:3: a section has no closing ]; "
        "fix: correct this, then check again"
    )
