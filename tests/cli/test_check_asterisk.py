"""``check`` on Asterisk's settings: what they keep from the logs, with the mend."""

from attrs import evolve

from ringfence.cli.check_asterisk import asterisk_findings
from ringfence.host.asterisk import Asterisk, Gate

GOOD = Asterisk(channels={}, security=True, iax_silent=False, gate=None, unread=())


def lines(asterisk: Asterisk | None) -> list[str]:
    """Give what is said of these settings."""
    return [finding.line for finding in asterisk_findings(asterisk)]


def test_nothing_is_kept_back() -> None:
    """Settings that hide nothing are one line, and right."""
    assert lines(GOOD) == ["ok  asterisk's settings: nothing is kept from its logs"]


def test_iax2_logs_nothing_unless_told() -> None:
    """Without authdebug failed logins are nowhere to be seen, which is told with the mend."""
    [line] = lines(evolve(GOOD, iax_silent=True))

    assert line.startswith("--  asterisk's settings: IAX2: failed logins are logged nowhere")
    assert line.endswith("mend: authdebug = yes in iax.conf [general]")


def test_what_pjsip_keeps_back_is_told_in_numbers() -> None:
    """Where unknown callers are told of late, it is said from when on and for how long not at all."""
    [line] = lines(evolve(GOOD, gate=Gate(count=3, period=10, prune=60)))

    assert "from request 3 within 10 s on, and then for up to 100 s not at all" in line
    assert "auth_username" in line


def test_what_cannot_be_told_is_told_where_to_look() -> None:
    """Without the files, or without all of them, the commands are named that show it."""
    commands = (
        'asterisk -rx "logger show channels", asterisk -rx "pjsip show settings", and authdebug in iax.conf'
    )

    assert lines(None) == [
        f"--  asterisk's settings: are not to be seen from here; see where it runs: {commands}"
    ]
    assert lines(evolve(GOOD, unread=("iax.conf", "pjsip.conf"))) == [
        "--  asterisk's settings: not all may be read (iax.conf, pjsip.conf); run this as root, or see: "
        + commands
    ]
