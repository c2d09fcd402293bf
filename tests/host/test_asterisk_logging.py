"""Logging settings in Asterisk's files."""

from pathlib import Path

import pytest
from tests.support.lab import Lab

from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.asterisk_logging import LEVELS, Asterisk, Gate, read_asterisk

AUTOLOAD = "[modules]\nautoload = yes\n"


def read(folder: Path, **files: str) -> Asterisk:
    """Write files, and read their settings."""
    for name, text in {"asterisk": "", "modules": AUTOLOAD, **files}.items():
        (folder / f"{name}.conf").write_text(text, "utf-8")
    found = read_asterisk(AsteriskFiles(folder))
    assert found is not None
    return found


def test_a_host_without_asterisk(tmp_path: Path) -> None:
    """Without asterisk.conf there is no result."""
    assert read_asterisk(AsteriskFiles(tmp_path)) is None
    assert read_asterisk(AsteriskFiles(tmp_path / "absent")) is None


def test_channels_are_files_with_levels(tmp_path: Path) -> None:
    """Relative names are in Asterisk's log folder; formatters and verbosity are not levels."""
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


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("pbx", "pbx"),
        ("pbx.example.org", "pbx.example.org"),
        ("unknown", "unknown"),
        ("p" * 62, "p" * 62),
        ("p" * 63, "unknown"),
    ],
)
def test_hosts_may_be_in_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str) -> None:
    """With appendhostname every log name ends with the kernel's name of the host, as Asterisk gets it."""
    monkeypatch.setattr("socket.gethostname", lambda: name)
    found = read(tmp_path, logger="[general]\nappendhostname = yes\n[logfiles]\na => notice\n")

    assert list(found.channels) == [Path(f"/var/log/asterisk/a.{end}")]


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
def test_iax2_logs_failures_only_with_authdebug(
    tmp_path: Path, modules: str, iax: str, *, silent: bool
) -> None:
    """If chan_iax2 is loaded, failed logins are logged only with authdebug."""
    assert read(tmp_path, modules=modules, iax=iax).iax_silent is silent


def test_without_its_file_iax2_does_not_run(tmp_path: Path) -> None:
    """Without iax.conf IAX2 does not run, so it hides nothing."""
    assert not read(tmp_path).iax_silent


@pytest.mark.parametrize(
    ("modules", "sip", "tls"),
    [
        (AUTOLOAD, "[general]\ntlsenable = yes\n", True),
        (AUTOLOAD, "[general]\ntlsenable = no\n", False),
        (AUTOLOAD, "[general]\n[phone]\ntlsenable = yes\n", False),
        (AUTOLOAD + "noload = chan_sip.so\n", "[general]\ntlsenable = yes\n", False),
    ],
)
def test_chan_sip_serves_tls_if_its_file_enables_it(
    tmp_path: Path, modules: str, sip: str, *, tls: bool
) -> None:
    """chan_sip serves TLS if it is loaded and ``[general]`` of sip.conf enables it."""
    assert not read(tmp_path, modules=modules).chan_sip_tls
    assert read(tmp_path, modules=modules, sip=sip).chan_sip_tls is tls


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
def test_the_gate_of_pjsip(tmp_path: Path, pjsip: str, gate: Gate | None) -> None:
    """The gate is in force if endpoints are identified by auth_username, with the configured numbers."""
    assert read(tmp_path, pjsip=pjsip).gate == gate


def test_the_longest_silence_of_the_gate() -> None:
    """It is four periods, plus the time until the next pruning."""
    assert Gate().mute == 50


def test_security_lines_need_a_module(tmp_path: Path) -> None:
    """Security lines need the module res_security_log."""
    assert read(tmp_path).security
    assert not read(tmp_path, modules=AUTOLOAD + "noload = res_security_log.so\n").security


def test_unread_files_are_named(tmp_path: Path) -> None:
    """A file with an unreadable include is named as incomplete; no password is in the result."""
    found = read(
        tmp_path,
        pjsip="[global]\ntype = global\n#include pjsip.secret.conf\n[a]\ntype = auth\npassword = hunter2\n",
        logger="[logfiles]\n#tryinclude absent.conf\n",
    )

    assert [one.file for one in found.unread] == ["pjsip.conf"]
    assert "hunter2" not in repr(found)


@pytest.mark.asterisk
def test_the_channels_of_a_real_asterisk(asterisk22: Lab) -> None:
    """The channels read from the files are those that a real Asterisk lists."""
    found = read_asterisk(AsteriskFiles(asterisk22.asterisk.folder / "etc"))
    shown = asterisk22.asterisk.cli("logger show channels")

    assert found is not None
    assert {str(path) for path in found.channels} == {
        word for word in shown.split() if word.startswith("/var/log/asterisk/")
    }
    assert found.channels[Path("/var/log/asterisk/ringfence")] == {"notice", "security"}
    assert (found.security, found.iax_silent, found.gate, found.unread) == (True, False, None, ())
