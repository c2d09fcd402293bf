"""What Asterisk's own files say: its logs with their levels, and what it keeps to itself."""

from pathlib import Path

import pytest
from tests.support.lab import Lab

from ringfence.host.asterisk import LEVELS, Asterisk, Gate, read_asterisk

AUTOLOAD = "[modules]\nautoload = yes\n"


def read(folder: Path, **files: str) -> Asterisk:
    """Write files, and read what they say."""
    for name, text in {"asterisk": "", "modules": AUTOLOAD, **files}.items():
        (folder / f"{name}.conf").write_text(text, "utf-8")
    found = read_asterisk(folder)
    assert found is not None
    return found


def test_a_host_without_asterisk(tmp_path: Path) -> None:
    """Where there is no asterisk.conf nothing is said."""
    assert read_asterisk(tmp_path) is None
    assert read_asterisk(tmp_path / "absent") is None


def test_channels_are_files_with_levels(tmp_path: Path) -> None:
    """Names lie in Asterisk's own folder unless they have one; formatters and verbosity are no levels."""
    logger = """
        [general]
        dateformat = %F
        [logfiles]
        console => notice,warning
        syslog.local0 => security
        Messages => notice, warning ,error
        full.json => [json]*
        debug/x => verbose(3),debug
        /srv/own => NOTICE,security
        messages => security
        """
    found = read(tmp_path, asterisk="[directories]\nastlogdir => /srv/log\n", logger=logger).channels

    assert found == {
        Path("/srv/log/Messages"): {"notice", "warning", "error"},
        Path("/srv/log/full.json"): LEVELS,
        Path("/srv/log/debug/x"): {"verbose", "debug"},
        Path("/srv/own"): {"notice", "security"},
        Path("/srv/log/messages"): {"security"},
    }


def test_hosts_may_be_in_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With appendhostname every log has the host's name at its end."""
    monkeypatch.setattr("platform.node", lambda: "pbx")
    found = read(tmp_path, logger="[general]\nappendhostname = yes\n[logfiles]\na => notice\n")

    assert list(found.channels) == [Path("/var/log/asterisk/a.pbx")]


@pytest.mark.parametrize(
    ("modules", "iax", "silent"),
    [
        (AUTOLOAD, "[general]\n", True),
        (AUTOLOAD, "[general]\nauthdebug = no\n", True),
        (AUTOLOAD, "[general]\nauthdebug = yes\n", False),
        (AUTOLOAD + "noload => chan_iax2.so\n", "[general]\n", False),
        ("[modules]\nautoload = no\n", "[general]\n", False),
        ("[modules]\nautoload = no\nload = chan_iax2.so\n", "[general]\n", True),
        ("[modules]\nautoload = no\nrequire = chan_iax2\n", "[general]\n", True),
    ],
)
def test_iax2_is_silent_unless_told(tmp_path: Path, modules: str, iax: str, *, silent: bool) -> None:
    """Where the channel driver is loaded, failed logins are logged with authdebug only."""
    assert read(tmp_path, modules=modules, iax=iax).iax_silent is silent


def test_without_its_file_iax2_does_not_run(tmp_path: Path) -> None:
    """No iax.conf is no IAX2, of which nothing is kept back."""
    assert not read(tmp_path).iax_silent


@pytest.mark.parametrize(
    ("pjsip", "gate"),
    [
        ("[global]\ntype = global\n", None),
        ("[global]\ntype = global\nendpoint_identifier_order = ip,username\n", None),
        ("[any]\ntype = global\nendpoint_identifier_order = ip, auth_username\n", Gate()),
        (
            """
            [t](!)
            unidentified_request_count = 2
            unidentified_request_period = many
            [global](t)
            type = global
            endpoint_identifier_order = auth_username
            unidentified_request_prune_interval = 60
            """,
            Gate(count=2, period=5, prune=60),
        ),
    ],
)
def test_pjsip_is_patient_with_auth_username(tmp_path: Path, pjsip: str, gate: Gate | None) -> None:
    """The gate is in force where callers may be known by auth_username, with the numbers that are set."""
    assert read(tmp_path, pjsip=pjsip).gate == gate


def test_how_long_nothing_is_told() -> None:
    """Four periods, and until the next pruning."""
    assert Gate().mute == 50


def test_security_lines_take_a_module(tmp_path: Path) -> None:
    """Whether the module that writes them is loaded."""
    assert read(tmp_path).security
    assert not read(tmp_path, modules=AUTOLOAD + "noload = res_security_log.so\n").security


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    """A file that includes what cannot be read says more than is known; no password is in the answer."""
    found = read(
        tmp_path,
        pjsip="[global]\ntype = global\n#include pjsip.secret.conf\n[a]\ntype = auth\npassword = hunter2\n",
        logger="[logfiles]\n#tryinclude absent.conf\n",
    )

    assert found.unread == ("pjsip.conf",)
    assert "hunter2" not in repr(found)


@pytest.mark.asterisk
def test_it_is_what_asterisk_says(asterisk22: Lab) -> None:
    """On a real Asterisk its own list of channels is what is read from its files."""
    found = read_asterisk(asterisk22.asterisk.folder / "etc")
    shown = asterisk22.asterisk.cli("logger show channels")

    assert found is not None
    assert {str(path) for path in found.channels} == {
        word for word in shown.split() if word.startswith("/var/log/asterisk/")
    }
    assert found.channels[Path("/var/log/asterisk/ringfence")] == {"notice", "security"}
    assert (found.security, found.iax_silent, found.gate, found.unread) == (True, False, None, ())
