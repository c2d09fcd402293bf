"""``ringfence check``: what is right, what is not, and what mends it; it changes nothing."""

import json
import shlex
import socket
from pathlib import Path

import pytest
from tests.support.amiserver import Fault, Script
from tests.support.asterisk import SECRET
from tests.support.console import path_with
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.netns import run

from ringfence.cli.check import UNPROVEN, _logins
from ringfence.parse.nflog import bind_request
from ringfence.report import WITHOUT_WIRE
from ringfence.sources.wire import GROUP

GOOD = Script(play=[GRANTED])


def lines_of(guard: Guard) -> tuple[int, list[str]]:
    """Run the check, and give its exit code and its lines."""
    done = guard.command("check")
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_all_is_well(tmp_path: Path) -> None:
    """With a daemon that hears its PBX and a firewall that works: every line is ok, exit code 0."""
    firewall = {"backend": "ipset", "limit": {"mode": "observe"}}  # else its rules change once it is up
    with (
        ami_server(GOOD) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, firewall=firewall) as guard,
    ):
        guard.config.chmod(0o600)
        until(lambda: guard.source_is("listening"), "the source listens")
        before = run("ipset", "save"), run("iptables", "-t", "raw", "-S")
        code, lines = lines_of(guard)

        assert [line for line in lines if line.startswith("NO")] == []
        assert "--  pbx: logs: none is to be read: who hides from AMI is not seen" in lines
        assert code == 0
        assert lines[0] == f"ok  configuration: {guard.config}"
        assert lines[1] == (
            f"ok  pbx: manager interface at 127.0.0.1:{pbx.port}: logged in, security events are granted"
        )
        assert lines[-1] == "ok  daemon: running, and hears every source"
        assert (run("ipset", "save"), run("iptables", "-t", "raw", "-S")) == before


def test_what_is_wrong_is_told_with_its_mend(tmp_path: Path) -> None:
    """No daemon, a refused login, a readable secret: a NO each, how many there are, exit code 1."""
    mend = "start it: systemctl start ringfence; where it ends by itself: journalctl -u ringfence"
    with ami_server(Script(fault=Fault.REFUSES)) as pbx:
        guard = Guard(tmp_path, ami={"port": pbx.port})
        guard.config.chmod(0o644)
        done = guard.command("check")
    place, refused = (
        f"127.0.0.1:{pbx.port}",
        'refuses "ringfence" (Authentication failed); compare with manager.conf',
    )
    wrong = [line for line in done.stdout.splitlines() if line.startswith("NO")]

    assert done.returncode == 1
    assert wrong == [
        f"NO  secret: everybody may read {guard.config}; mend: chmod o= {guard.config}",
        f"NO  pbx: manager interface at {place}: login refused: {place} {refused}",
        f"NO  daemon: no daemon listens at {tmp_path}/control.sock; {mend}",
    ]
    assert done.stderr == "3 to mend\n"
    assert not (tmp_path / "ringfence.db").exists()


def test_what_is_not_looked_at_is_said(tmp_path: Path) -> None:
    """Without logs and without the wire it is told what nobody sees then; neither is wrong."""
    asterisk = [
        {
            "name": "pbx",
            "ami": {"port": 1, "secret": SECRET},
            "logs": {"paths": []},
            "wire": {"enabled": False},
        }
    ]
    _, lines = lines_of(Guard(tmp_path, asterisk=asterisk))

    assert "--  pbx: logs: none is to be read: who hides from AMI is not seen" in lines
    [line] = [line for line in lines if line.startswith("--  wire: is not looked at ([asterisk.wire] ena")]
    assert line.endswith(f": {UNPROVEN}; {WITHOUT_WIRE}")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_wire_is_tried_where_no_daemon_looks_at_it(tmp_path: Path) -> None:
    """As the daemon would; where another program has the packet log, what that leaves open is said."""
    asterisk = [{"name": "pbx", "ami": {"port": 1, "secret": SECRET}}]
    guard = Guard(tmp_path, asterisk=asterisk)
    _, lines = lines_of(guard)
    assert f"ok  wire: NFLOG group {GROUP}" in lines

    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as other:
        other.bind((0, 0))
        other.send(bind_request(GROUP))
        _, lines = lines_of(guard)
    [line] = [line for line in lines if line.startswith("NO  wire: denied: ")]
    assert line.endswith(f"; {UNPROVEN}; {WITHOUT_WIRE}")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_of_the_wire_the_daemon_has_the_word(tmp_path: Path) -> None:
    """It holds the packet log, and knows what it sees there."""
    with ami_server(GOOD) as pbx:
        asterisk = [{"name": "pbx", "ami": {"port": pbx.port, "secret": SECRET}, "logs": {"paths": []}}]
        with Guard(tmp_path, asterisk=asterisk, firewall={"backend": "ipset"}) as guard:
            guard.config.chmod(0o600)
            until(lambda: guard.source_is("listening"), "all sources")
            assert f"ok  wire: NFLOG group {GROUP}" in lines_of(guard)[1]


def test_beside_others_no_log_is_found(tmp_path: Path) -> None:
    """With two PBXs that name no logs each is told so, and Asterisk's files are nobody's."""
    asterisk = [{"name": name, "ami": {"port": 1, "secret": SECRET}} for name in ("office", "branch")]
    _, lines = lines_of(Guard(tmp_path, asterisk=asterisk))

    for name in ("office", "branch"):
        [line] = [line for line in lines if line.startswith(f"NO  {name}: logs: ")]
        assert "with several [[asterisk]] none is found by itself" in line
    assert [
        line for line in lines if line.startswith("--  asterisk's settings: are not to be seen from here")
    ]


def test_a_pbx_that_is_away(tmp_path: Path) -> None:
    """A manager interface that nobody offers is unreachable."""
    place = "127.0.0.1:1"
    _, lines = lines_of(Guard(tmp_path))

    why = f"unreachable: {place}: Connection refused"
    mend = "does Asterisk run, and has its manager.conf enabled = yes in [general]?"
    assert [line for line in lines if "manager interface" in line] == [
        f"NO  pbx: manager interface at {place}: {why}; {mend}"
    ]


def test_a_manager_user_without_the_class(tmp_path: Path) -> None:
    """A login that brings no security events is found out, with what manager.conf needs."""
    with ami_server(Script()) as pbx:
        _, lines = lines_of(Guard(tmp_path, ami={"port": pbx.port}))
    [line] = [line for line in lines if "manager interface" in line]

    assert line.startswith(f"NO  pbx: manager interface at 127.0.0.1:{pbx.port}: deaf: logged in, but no")
    assert "read = security,system" in line


def test_a_database_of_countries_that_is_not_there(tmp_path: Path) -> None:
    """It is named, also while no entry of a list needs it."""
    _, lines = lines_of(Guard(tmp_path, geo={"database": str(tmp_path / "absent.mmdb")}))

    assert f"NO  geo: {tmp_path}/absent.mmdb is not there; see [geo] database" in lines


def test_a_dry_run_is_no_guard(tmp_path: Path) -> None:
    """With the memory firewall the daemon's own word is that nothing is dropped."""
    with ami_server(GOOD) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.source_is("listening"), "the source listens")
        code, lines = lines_of(guard)

    assert code == 1
    assert lines[-1] == "NO  daemon: a dry run: the memory firewall drops nothing"


def test_who_may_read_a_secret_of_its_own_file(tmp_path: Path) -> None:
    """A secret's own file is looked at, and then the configuration's need not be private."""
    file = tmp_path / "secret"
    file.write_text(SECRET, "utf-8")
    file.chmod(0o604)
    pbx = {"name": "pbx", "ami": {"port": 1, "secret_file": str(file)}}
    guard = Guard(tmp_path, asterisk=[pbx])
    guard.config.chmod(0o644)
    _, lines = lines_of(guard)

    assert [line for line in lines if "everybody" in line] == [
        f"NO  secret: everybody may read {file}; mend: chmod o= {file}"
    ]


def test_a_credential_makes_no_secret_of_the_configuration(tmp_path: Path) -> None:
    """Where systemd hands the secret over, everybody may read the configuration."""
    (tmp_path / "pbx.secret").write_text(SECRET, "utf-8")
    guard = Guard(
        tmp_path,
        asterisk=[{"name": "pbx", "ami": {"port": 1}}],
        environ={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    guard.config.chmod(0o644)
    _, lines = lines_of(guard)

    assert [line for line in lines if "everybody may read" in line] == []


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_firewall_that_cannot_work(tmp_path: Path) -> None:
    """Without the capabilities each thing that lacks is a NO."""
    guard = Guard(
        tmp_path, firewall={"backend": "ipset"}, prefix=["setpriv", "--bounding-set=-net_admin,-net_raw"]
    )
    code, lines = lines_of(guard)

    assert code == 1
    assert any(line.startswith("NO") and "CAP_NET_ADMIN" in line for line in lines)


def test_for_scripts(tmp_path: Path) -> None:
    """The same in JSON, an object a line, with the same exit code and count."""
    guard = Guard(tmp_path, ami={"port": 1})
    done = guard.command("check", "--json")
    _, lines = lines_of(guard)
    findings = json.loads(done.stdout)

    assert done.returncode == 1
    assert done.stderr == f"{sum(finding['right'] is False for finding in findings)} to mend\n"
    for finding, line in zip(findings, lines, strict=True):
        assert line[4:] in {finding["what"], f"{finding['what']}: {finding['detail']}"}
        assert line[:2] == {True: "ok", False: "NO", None: "--"}[finding["right"]]


def test_who_is_logged_in_is_known_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where logins cannot be known it is said why, and what to do; nothing is wrong."""
    monkeypatch.setattr("ringfence.host.logins.why_no_logins", lambda: "")
    assert _logins().line == "ok  logins: are known, and never banned"

    monkeypatch.setattr("ringfence.host.logins.why_no_logins", lambda: "no logind runs here")
    assert _logins().line == (
        "--  logins: no logind runs here; whoever is logged in from elsewhere could be banned: "
        "put your own address on `allow`"
    )


def test_a_trunk_is_offered_until_it_is_allowed(tmp_path: Path) -> None:
    """The command that is offered can be run, and then the list of the daemon has the word."""
    program = tmp_path / "asterisk"
    shown = " Identify:  i/carrier one\n Identify:  i/carrier\n      Match: 203.0.113.0/28\n"
    program.write_text(f"#!/bin/sh\ncase \"$2\" in pjsip*) printf '{shown}';; esac\n", "utf-8")
    program.chmod(0o755)
    with (
        ami_server(GOOD) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, environ=path_with(program)) as guard,
    ):
        [line] = [line for line in lines_of(guard)[1] if line.startswith("--  trunk carrier: ")]
        offered = shlex.split(line.partition("if it is yours: ")[2])
        assert guard.must(*offered[1:]) == "on the allow list: 203.0.113.0/28\n"
        _, lines = lines_of(guard)

    assert "ok  trunks: all that are known by their address are allowed, or friends" in lines


def test_a_decoy_that_is_an_account_is_seen(tmp_path: Path) -> None:
    """In Asterisk's files, before anybody has registered there."""
    files = tmp_path / "asterisk"
    files.mkdir()
    (files / "asterisk.conf").write_text("[directories]\n", "utf-8")
    (files / "modules.conf").write_text("[modules]\nautoload = yes\n", "utf-8")
    (files / "pjsip.conf").write_text(
        "[201]\ntype = endpoint\nauth = 201\n[201]\ntype = auth\npassword = x\n"
    )
    with ami_server(GOOD) as pbx:
        guard = Guard(tmp_path, ami={"port": pbx.port}, rules={"decoy": {"accounts": ["100", "201"]}})
        done = guard.command("check", "--asterisk-files", str(files))

    [line] = [line for line in done.stdout.splitlines() if line.startswith("NO  decoy")]
    assert line.startswith("NO  decoy 201: is an account in Asterisk's files")
    assert line.endswith("mend: take it out of accounts in [rules.decoy]")


def test_whose_files_are_here_must_be_known_to_harden(tmp_path: Path) -> None:
    """With several PBXs, or one elsewhere, nothing is said of whatever is in /etc/asterisk."""
    guard = Guard(tmp_path, asterisk=[{"name": "far", "ami": {"host": "192.0.2.9", "enabled": False}}])
    lines = guard.command("check", "--hardening").stdout.split("\n")

    [line] = [line for line in lines if "hardening" in line]
    assert line.startswith(
        "--  hardening: not seen: Asterisk does not run here, or is one of several: run this"
    )
