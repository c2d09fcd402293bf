"""``ringfence check``: findings with their fixes; nothing is changed."""

import errno
import fcntl
import json
import os
import pty
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.amiserver import Fault, Script
from tests.support.asterisk import SECRET
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.certificate import certificate_in
from tests.support.console import ScriptedConsole
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.lab import Lab
from tests.support.netns import run

from ringfence.cli.check import (
    UNPROVEN,
    Checked,
    _asterisk_findings,
    _closed_connections,
    _logins,
    _proxy_findings,
    _secret_findings,
)
from ringfence.config.schema import Settings
from ringfence.findings import Finding
from ringfence.guard import process
from ringfence.guard.request_fields import PeerRole
from ringfence.guard.request_table import check_request
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.hosts_file import HOSTS
from ringfence.netlink.nflog import GROUP, bind_request
from ringfence.sources.state import WITHOUT_CLIENTS, WITHOUT_LOG, WITHOUT_WIRE

GOOD = Script(play=[GRANTED])
TRUNK = """
[carrier]
type = endpoint
[carrier]
type = identify
endpoint = carrier
match = 203.0.113.0/28
"""


def lines_of(guard: Guard) -> tuple[int, list[str]]:
    """Run the check; return its exit code and its lines."""
    done = guard.command("check")
    assert SECRET not in done.stdout + done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_all_is_well(tmp_path: Path) -> None:
    """With a connected daemon and a working firewall every line is ok, with exit code 0."""
    firewall = {"backend": "ipset", "limit": {"mode": "observe"}}  # otherwise its rules change once it is up
    with (
        ami_server(GOOD) as pbx,
        Guard(tmp_path, ami={"port": pbx.port}, firewall=firewall) as guard,
    ):
        guard.config.chmod(0o600)
        until(lambda: guard.source_is("listening"), "the source listens")
        until(lambda: not guard.status()["asking_waits"], "the rules that wait for the friends")
        before = run("ipset", "save"), run("iptables", "-t", "raw", "-S")
        code, lines = lines_of(guard)

        assert [line for line in lines if line.startswith("NO")] == []
        assert f"--  pbx: logs: no log is configured: {WITHOUT_LOG}" in lines
        assert code == 0
        assert lines[0] == f"ok  configuration: {guard.config}"
        assert lines[1] == (
            f"ok  pbx: manager interface at 127.0.0.1:{pbx.port}: logged in, security events are granted"
        )
        assert lines[-1] == "ok  daemon: running, and every source is connected"
        assert (run("ipset", "save"), run("iptables", "-t", "raw", "-S")) == before


def test_problems_have_fixes(tmp_path: Path) -> None:
    """No daemon, a refused login, a readable secret: one NO for each, the total, and exit code 1."""
    hint = "start it: systemctl start ringfence; if it stops unexpectedly, see: journalctl -u ringfence"
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
        f"NO  secret: every user may read {guard.config}; fix: chmod o= {guard.config}",
        f"NO  pbx: manager interface at {place}: login refused: {place} {refused}",
        f"NO  daemon: no daemon listens at {tmp_path}/control.sock; {hint}",
    ]
    assert done.stderr == "3 to fix\n"
    assert not (tmp_path / "ringfence.db").exists()


def test_switched_off_sources_are_named(tmp_path: Path) -> None:
    """Without logs and wire, the check names the effect; neither is an error."""
    asterisk = [
        {
            "name": "pbx",
            "ami": {"port": 1, "secret": SECRET},
            "logs": {"paths": []},
            "wire": {"enabled": False},
        }
    ]
    _, lines = lines_of(Guard(tmp_path, asterisk=asterisk))

    assert f"--  pbx: logs: no log is configured: {WITHOUT_LOG}" in lines
    [line] = [line for line in lines if line.startswith("--  wire: is switched off ([asterisk.wire] ena")]
    assert line.endswith(f": {UNPROVEN}; {WITHOUT_WIRE}")


def test_proxies_need_the_wire(tmp_path: Path) -> None:
    """If proxies are configured and the wire is off, the check names the effect and the fix."""
    asterisk = [
        {
            "name": "pbx",
            "proxies": ["127.0.0.1", "127.0.1.0/30"],
            "ami": {"port": 1, "secret": SECRET},
            "logs": {"paths": []},
            "wire": {"enabled": False},
        }
    ]
    _, lines = lines_of(Guard(tmp_path, asterisk=asterisk))

    assert f"NO  pbx: proxies 127.0.0.1, 127.0.1.0/30: {WITHOUT_CLIENTS}" in lines


def test_a_program_that_is_only_named_like_a_proxy_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check names the user of a Kamailio that does not count, and the fix; this is not an error."""
    monkeypatch.setattr("ringfence.cli.check.find_foreign_proxies", lambda _: ["alice (1001)"])
    [finding] = _proxy_findings(Settings(asterisk=()), Finding(right=True, what="wire"))

    assert finding.line == (
        "--  Kamailio, OpenSIPS: a program of alice (1001) is named so, and does not count: any user can "
        "start such a program; fix: run it as the user kamailio or opensips, or name its user in "
        "server_users of [asterisk.ami]; if it is not yours, stop it"
    )


def test_an_unknown_range_of_calls_has_a_reason(tmp_path: Path) -> None:
    """If rtp.conf is too large for the daemon, which reads it again and again, the check reports it."""
    (tmp_path / "rtp.conf").write_text("[general]\n" + "a = 1\n" * 10_000, "utf-8")
    checked = Checked(Settings(asterisk=()), AsteriskFiles(tmp_path), ScriptedConsole(), HOSTS)
    [line] = [one.line for one in _asterisk_findings(checked, None) if "rtp.conf" in one.line]

    assert line == (
        f"NO  asterisk's settings: rtp.conf: {tmp_path}/rtp.conf: this file with its includes is too large "
        "for ringfence; fix: correct this, then check again"
    )


@pytest.mark.parametrize(
    ("ports", "shown"), [({}, 1), ({"sip_ports": ["5060", "5160/udp"]}, 0)], ids=["found", "named"]
)
def test_ports_that_are_not_known_are_named(tmp_path: Path, ports: Mapping[str, object], shown: int) -> None:
    """If the daemon finds no port of Asterisk, and none is configured, the check names those guarded."""
    with Guard(tmp_path, ami={"port": 1}, firewall={"backend": "memory", **ports}) as guard:
        _, lines = lines_of(guard)

    line = (
        "--  firewall: Asterisk's ports are not known, so UDP 4569, 5060 and TCP 5038, 5060, 5061, 8089 are "
        "guarded; fix: if it has others, name all in sip_ports of [firewall]"
    )
    assert [found for found in lines if "ports are not known" in found] == [line] * shown


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_wire_is_opened_without_a_daemon(tmp_path: Path) -> None:
    """Without a daemon the check opens the wire itself; if another program holds it, the effect is named."""
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
def test_the_running_daemon_reports_the_wire(tmp_path: Path) -> None:
    """The running daemon holds the wire, so its own report counts."""
    with ami_server(GOOD) as pbx:
        asterisk = [{"name": "pbx", "ami": {"port": pbx.port, "secret": SECRET}, "logs": {"paths": []}}]
        with Guard(tmp_path, asterisk=asterisk, firewall={"backend": "ipset"}) as guard:
            guard.config.chmod(0o600)
            until(lambda: guard.source_is("listening"), "all sources")
            assert f"ok  wire: NFLOG group {GROUP}" in lines_of(guard)[1]


def test_closed_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line states whether the kernel reports closed connections, with the limit or the fix."""
    assert _closed_connections().line == (
        "ok  connections: the kernel reports closed TCP connections of this network namespace "
        "(not of containers)"
    )

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    line = _closed_connections().line
    assert line.startswith("NO  connections: cannot follow closed TCP connections (NETLINK_SOCK_DIAG): ")
    assert "; fix: `modprobe inet_diag tcp_diag`" in line


def test_several_pbxs_need_log_paths(tmp_path: Path) -> None:
    """With two PBXs without log paths each is reported, and Asterisk's files belong to neither."""
    asterisk = [{"name": name, "ami": {"port": 1, "secret": SECRET}} for name in ("office", "branch")]
    _, lines = lines_of(Guard(tmp_path, asterisk=asterisk))

    for name in ("office", "branch"):
        [line] = [line for line in lines if line.startswith(f"NO  {name}: logs: ")]
        assert "with several [[asterisk]] sections no log is found automatically" in line
    assert [line for line in lines if "cannot be read from here" in line]


def test_an_unreachable_pbx(tmp_path: Path) -> None:
    """A manager interface without a listener is unreachable."""
    place = "127.0.0.1:1"
    _, lines = lines_of(Guard(tmp_path))

    why = f"unreachable: {place}: Connection refused"
    hint = "is Asterisk running, and does its manager.conf have enabled = yes in [general]?"
    assert [line for line in lines if "manager interface" in line] == [
        f"NO  pbx: manager interface at {place}: {why}; {hint}"
    ]


def test_tls_without_verification_is_pointed_out(tmp_path: Path) -> None:
    """With ``tls_verify = false`` a line names the weakness and its fix."""
    certificate = certificate_in(tmp_path)
    with ami_server(GOOD, certificate=certificate) as pbx:
        _, lines = lines_of(Guard(tmp_path, ami={"port": pbx.port, "tls": True, "tls_verify": False}))
    [good, weak] = [line for line in lines if "manager interface" in line]

    assert good.startswith("ok  ")
    assert weak.startswith(f"--  pbx: manager interface at 127.0.0.1:{pbx.port}: the server's certificate is")
    assert "fix: tls_ca = " in weak


def test_manager_logins_that_cannot_be_confirmed_are_pointed_out(tmp_path: Path) -> None:
    """AMI over HTTP is reported with its effect and fix; without HTTP there is no such line."""
    said = b"Response: Success\r\nActionID: {ActionID}\r\nCoreHTTPenabled: Yes\r\n\r\n"
    script = Script(play=[GRANTED], answers={"CoreSettings": said})
    with ami_server(script) as pbx:
        _, lines = lines_of(Guard(tmp_path, ami={"port": pbx.port}))
    [good, weak] = [line for line in lines if "manager interface" in line]

    assert good.startswith("ok  ")
    assert weak.startswith(
        f"--  pbx: manager interface at 127.0.0.1:{pbx.port}: AMI is also served over HTTP"
    )
    assert "failed manager logins that it reports are listed and cause no ban; fix: webenabled = no" in weak


def test_a_manager_interface_that_is_switched_off_confirms_no_login(tmp_path: Path) -> None:
    """With ``enabled = false`` the check names the effect and the fix."""
    guard = Guard(tmp_path, ami={"enabled": False})
    guard.settings["asterisk"][0]["logs"] = {"paths": [str(tmp_path / "messages")]}
    guard.configure()
    [line] = [line for line in lines_of(guard)[1] if "manager interface" in line]

    assert line.startswith("--  pbx: manager interface: is not used (enabled = false)")
    assert line.endswith("no failed manager login can be confirmed; fix: enabled = true")


def test_a_manager_user_without_the_class(tmp_path: Path) -> None:
    """A login without security events is detected, with the line that manager.conf needs."""
    with ami_server(Script()) as pbx:
        _, lines = lines_of(Guard(tmp_path, ami={"port": pbx.port}))
    [line] = [line for line in lines if "manager interface" in line]

    assert line.startswith(
        f"NO  pbx: manager interface at 127.0.0.1:{pbx.port}: no events: logged in, but no"
    )
    assert "read = security,system" in line


def test_a_missing_country_database(tmp_path: Path) -> None:
    """A missing country database is reported, even while no list entry needs it."""
    _, lines = lines_of(Guard(tmp_path, geo={"database": str(tmp_path / "absent.mmdb")}))

    assert f"NO  geo: {tmp_path}/absent.mmdb does not exist; see [geo] database" in lines


def test_a_dry_run_is_no_guard(tmp_path: Path) -> None:
    """With the memory firewall the daemon reports that nothing is dropped."""
    with ami_server(GOOD) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.source_is("listening"), "the source listens")
        code, lines = lines_of(guard)

    assert code == 1
    assert lines[-1] == "NO  daemon: firewall.dry_run: the memory firewall drops nothing"


def test_the_modes_of_a_secret_file(tmp_path: Path) -> None:
    """The secret's own file is checked; the configuration may then be readable."""
    file = tmp_path / "secret"
    file.write_text(SECRET, "utf-8")
    file.chmod(0o604)
    pbx = {"name": "pbx", "ami": {"port": 1, "secret_file": str(file)}}
    guard = Guard(tmp_path, asterisk=[pbx])
    guard.config.chmod(0o644)
    _, lines = lines_of(guard)

    assert [line for line in lines if "every user" in line] == [
        f"NO  secret: every user may read {file}; fix: chmod o= {file}"
    ]


def test_a_secret_file_in_a_closed_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the service's user may not enter a folder above the file, the fix is another place."""
    monkeypatch.setattr(process, "USER", "daemon")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o700)
        file = Path(name, "secret")
        file.write_text(SECRET, "utf-8")
        file.chmod(0o644)
        config = Path(name, "ringfence.toml")
        config.write_text(f'[[asterisk]]\n[asterisk.ami]\nsecret_file = "{file}"\n', "utf-8")
        [_, found, _] = [finding.line for finding in _secret_findings(config)]

    assert found == (
        f"NO  secret: the service cannot start: its user ringfence may not read {file}, because the folder "
        f"{name} is closed to it; fix: move it to /etc/ringfence"
    )


def test_the_modes_of_the_token_of_routers(tmp_path: Path) -> None:
    """The file of the token is checked like that of the secret, and the configuration if it has the token."""
    file, secret = tmp_path / "token", tmp_path / "secret"
    for one in (file, secret):
        one.write_text("0123456789abcdef", "utf-8")
        one.chmod(0o600)
    file.chmod(0o604)
    pbx = {"name": "pbx", "ami": {"port": 1, "secret_file": str(secret)}}
    guard = Guard(
        tmp_path,
        asterisk=[pbx],
        metrics={"listen": "127.0.0.1:9721"},
        publish={"token_file": str(file)},
    )
    guard.config.chmod(0o644)
    found = [line for line in lines_of(guard)[1] if "every user" in line]
    guard.configure(publish={"token": "0123456789abcdef"})
    guard.config.chmod(0o644)
    inside = [line for line in lines_of(guard)[1] if "every user" in line]

    assert found == [f"NO  secret: every user may read {file}; fix: chmod o= {file}"]
    assert inside == [f"NO  secret: every user may read {guard.config}; fix: chmod o= {guard.config}"]


def test_the_modes_of_other_secrets(tmp_path: Path) -> None:
    """The files of the mail server and of the local API are checked too; a missing one is no traceback."""
    password, key = tmp_path / "mail.password", tmp_path / "key"
    for one in (password, key):
        one.write_text("0123456789abcdef", "utf-8")
        one.chmod(0o604)
    mail = {"to": ["admin@example.com"], "username": "u", "security": "tls", "password_file": str(password)}
    guard = Guard(
        tmp_path,
        notify={"mail": [mail]},
        crowdsec={
            "url": "http://127.0.0.1:1",
            "machine": "pbx",
            "password_file": str(tmp_path / "missing"),
            "key_file": str(key),
        },
    )
    guard.config.chmod(0o600)
    found = [line for line in lines_of(guard)[1] if "every user" in line]

    assert found == [f"NO  secret: every user may read {one}; fix: chmod o= {one}" for one in (key, password)]


def test_a_credential_makes_no_secret_of_the_configuration(tmp_path: Path) -> None:
    """If systemd passes the secret, every user may read the configuration."""
    (tmp_path / "pbx.secret").write_text(SECRET, "utf-8")
    guard = Guard(
        tmp_path,
        asterisk=[{"name": "pbx", "ami": {"port": 1}}],
        environ={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    guard.config.chmod(0o644)
    _, lines = lines_of(guard)

    assert [line for line in lines if "every user may read" in line] == []


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_firewall_that_cannot_work(tmp_path: Path) -> None:
    """Without capabilities, each missing requirement is a NO."""
    guard = Guard(
        tmp_path, firewall={"backend": "ipset"}, prefix=["setpriv", "--bounding-set=-net_admin,-net_raw"]
    )
    code, lines = lines_of(guard)

    assert code == 1
    assert any(line.startswith("NO") and "CAP_NET_ADMIN" in line for line in lines)


def test_for_scripts(tmp_path: Path) -> None:
    """--json prints the same findings as objects, with the same exit code and total."""
    guard = Guard(tmp_path, ami={"port": 1})
    done = guard.command("check", "--json")
    _, lines = lines_of(guard)
    findings = json.loads(done.stdout)

    assert done.returncode == 1
    assert done.stderr == f"{sum(finding['right'] is False for finding in findings)} to fix\n"
    for finding, line in zip(findings, lines, strict=True):
        assert line[4:] in {finding["what"], f"{finding['what']}: {finding['detail']}"}
        assert line[:2] == {True: "ok", False: "NO", None: "--"}[finding["right"]]


def test_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """If logins are unknown, the check names the reason and the remedy; this is not an error."""
    monkeypatch.setattr("ringfence.cli.check.why_no_logins", lambda: "")
    assert _logins().line == "ok  logins: addresses logged in to this host are known, and never banned"

    monkeypatch.setattr("ringfence.cli.check.why_no_logins", lambda: "no logind runs here")
    assert _logins().line == (
        "--  logins: no logind runs here; your own address could be banned; fix: put it on the allow list"
    )


@pytest.mark.asterisk
def test_a_trunk_is_suggested_until_it_is_allowed(tmp_path: Path) -> None:
    """The console names the trunk, without any program being run; then the daemon's list is decisive."""
    program = tmp_path / "bin/asterisk"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n", "utf-8")
    program.chmod(0o755)
    with Lab.made("22", {"pjsip.conf": TRUNK}) as lab:
        guard = Guard(
            tmp_path,
            ami={"port": MANAGER_PORT},
            prefix=lab.network.in_pbx(),
            environ={"PATH": f"{program.parent}:{os.environ['PATH']}"},
        )
        with guard:
            [line] = [line for line in lines_of(guard)[1] if line.startswith("--  trunk carrier: ")]
            offered = shlex.split(line.partition("if it is yours: ")[2])
            assert guard.must(*offered[1:]) == "on the allow list: 203.0.113.0/28\n"
            _, lines = lines_of(guard)

    assert "ok  trunks: all trunks known by their address are allowed, or friends" in lines
    assert not (tmp_path / "executed").exists()


def test_a_trunk_at_which_this_pbx_registers_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon accepts the requests for its lists, so a trunk that is a friend is not suggested."""

    def answer(_: Settings, do: str, **fields: object) -> list[dict[str, str]]:
        check_request(PeerRole.ADMINISTRATOR, do, fields)
        return [{"address": "203.0.113.5", "reason": "trunk"}] if do == "friends" else []

    monkeypatch.setattr("ringfence.cli.check.ask", answer)
    shown = {"pjsip show identifies": " Identify:  i/carrier\n      Match: 203.0.113.5/32\n"}
    checked = Checked(Settings(asterisk=()), None, ScriptedConsole(shown.get), HOSTS)
    found = [finding.line for finding in _asterisk_findings(checked, {"sources": []})]

    assert "ok  trunks: all trunks known by their address are allowed, or friends" in found


def test_a_decoy_that_is_an_account(tmp_path: Path) -> None:
    """A decoy that is an account in Asterisk's files is reported before anyone has registered there."""
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
    assert line.endswith("fix: remove it from accounts in [rules.decoy]")


_SAME_PATHS = """\
set -eu
mkdir "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
$2
shift 2
exec "$@"
"""
"""Run a command where /etc has the files of ``$1/etc`` too, after another command ``$2``."""
_IN_CONTAINER = "/etc/included.conf: it is included, and names a file of Asterisk's own host or container"


@pytest.mark.asterisk
@pytest.mark.parametrize(
    ("mounted", "found"),
    [
        ("true", ["NO  decoy alice", _IN_CONTAINER]),
        ("mount --bind {etc} /etc/asterisk", ["NO  decoy alice", _IN_CONTAINER]),
        ("mount -t tmpfs none {etc}", ["hardening: not checked: Asterisk's files are only in its container"]),
    ],
    ids=["another path", "the same path", "no path"],
)
def test_a_containers_paths_are_not_those_of_this_host(
    tmp_path: Path, mounted: str, found: list[str]
) -> None:
    """An Asterisk in a container has files at paths at which this host has others, of another Asterisk.

    On this host, the folder of its configuration has another path, the same one, or none. The file that it
    includes is only on this host, and so not the one that Asterisk means.
    """
    account = "[{0}]\ntype = endpoint\nauth = {0}\n[{0}]\ntype = auth\npassword = x\n"
    host = tmp_path / "etc"
    (host / "asterisk").mkdir(parents=True)
    (host / "asterisk/asterisk.conf").write_text("[directories]\nastetcdir => /etc/asterisk\n", "utf-8")
    (host / "asterisk/pjsip.conf").write_text(account.format("host"), "utf-8")
    (host / "included.conf").write_text(account.format("included"), "utf-8")
    with Lab.made("22", {"pjsip.conf": '#tryinclude "/etc/included.conf"\n'}) as lab:
        command = mounted.format(etc=lab.asterisk.folder / "etc")
        prefix = ["unshare", "--mount", "sh", "-c", _SAME_PATHS, "sh", str(tmp_path), command]
        decoys = {"decoy": {"accounts": ["alice", "host", "included"]}}
        ami = {"port": MANAGER_PORT, "secret": SECRET}
        guard = Guard(tmp_path, ami=ami, rules=decoys, prefix=[*lab.network.in_pbx(), *prefix])
        lines = guard.command("check", "--hardening").stdout.splitlines()

    assert [text for text in found if not any(text in line for line in lines)] == []
    assert [line for line in lines if "  decoy " in line and "alice" not in line] == []
    assert any(line.startswith(("ok  trunks", "--  trunk")) for line in lines)


def test_one_local_asterisk_is_needed(tmp_path: Path) -> None:
    """With several PBXs, or a remote one, /etc/asterisk is not checked."""
    guard = Guard(tmp_path, asterisk=[{"name": "far", "ami": {"host": "192.0.2.9", "enabled": False}}])
    lines = guard.command("check", "--hardening").stdout.split("\n")

    [line] = [line for line in lines if "hardening" in line]
    assert line.startswith("--  hardening: not checked: Asterisk is remote, or one of several; fix: run this")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_an_asterisk_at_an_own_address_is_local(tmp_path: Path) -> None:
    """If AMI listens at an address of this host, its files are checked."""
    run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
    guard = Guard(tmp_path, asterisk=[{"name": "pbx", "ami": {"host": "192.0.2.9", "enabled": False}}])

    assert "Asterisk is remote" not in guard.command("check", "--hardening").stdout


def test_no_word_is_broken_on_a_terminal(tmp_path: Path) -> None:
    """At 80 columns no word of the piped output is broken, and a fix begins a new line."""
    guard = Guard(tmp_path)
    guard.config.chmod(0o644)
    piped = guard.command("check")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    environ = {key: value for key, value in guard._environ.items() if key != "COLUMNS"}
    command = [sys.executable, "-m", "ringfence", "check", "--config", str(guard.config)]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", 0) as reader, suppress(OSError):  # EIO: the other end is closed
        while read := reader.read(65_536):
            shown += read
    process.wait()
    lines = shown.decode().replace("\r", "").splitlines()

    whole = (piped.stdout + piped.stderr).replace("; fix:", " fix:")
    assert " ".join(lines).replace("; fix:", " fix:").split() == whole.split()
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []
    assert any(line.startswith("    fix: chmod o=") for line in lines)
