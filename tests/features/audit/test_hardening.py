"""Findings of ``check --hardening``: weaknesses of an Asterisk, with the fix, and without any password."""

import json
import os
import shlex
import socket
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET, Asterisk
from tests.support.console import ScriptedConsole
from tests.support.daemon import Completed, Guard, until
from tests.support.debian import DebianAsterisk
from tests.support.lab import Lab
from tests.support.network import Network, socket_in
from tests.support.unprivileged import unprivileged

from ringfence.features.audit.check import host_name_findings, look_up_findings
from ringfence.features.audit.hardening import FEW, hardening_findings
from ringfence.findings import Finding
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.console import NoConsole

NEVER_SHOWN = {
    "4711-sip": "pjsip.conf, the user's name of an auth and hardly more",
    "x9Ya": "pjsip.conf, short",
    "changeme": "sip.conf, well known",
    "iax-77": "iax.conf, short",
    "f3Q9zLw27vTk": "sip.conf, a good one",
    "dial-secret": "extensions.conf, in a Dial",
    "switch-secret": "extensions.conf, in a switch",
    "global-secret": "extensions.conf, a global variable",
    "ari-secret": "ari.conf",
    "hunter2": "manager.conf",
    "0cc175b9c0f1b6a831c399e269772661": "sip.conf, a hash",
    SECRET: "manager.conf, ringfence's own",
}
BAD = {
    "modules.conf": "[modules]\nautoload = yes\n",
    "manager.conf": f"""
[general]
enabled = yes
bindaddr = 0.0.0.0
webenabled = yes
[ringfence]
secret = {SECRET}
read = security
write = command
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
[admin]
secret = hunter2
read = all
write = all
""",
    "http.conf": "[general]\nenabled = yes\nbindaddr = 0.0.0.0\n",
    "ari.conf": "[general]\nenabled = yes\n[app]\ntype = user\npassword = ari-secret\n",
    "extensions.conf": """
[globals]
TRUNK = IAX2/user:global-secret@192.0.2.9
[world]
include => outbound
switch => IAX2/user:switch-secret@192.0.2.9/world
[outbound]
exten => _00X.,1,Dial(${TRUNK}/${EXTEN})
exten => _9X.,1,Gosub(call,s,1(IAX2/user:dial-secret@192.0.2.9/${EXTEN:1},60))
[call]
exten => s,1,Dial(${ARG1},${ARG2})
[inside]
exten => _1XX,1,Dial(PJSIP/${EXTEN})
exten => 100,1,Answer()
 same => n,Wait(1)
""",
    "pjsip.conf": """
[udp]
type = transport
protocol = udp
bind = 198.18.0.1:5080
[phone](!)
type = endpoint
context = inside
disallow = all
allow = ulaw
#include phones.conf
[anonymous](phone)
context = world
[carrier](phone)
aors = carrier
[carrier]
type = aor
contact = sip:203.0.113.5
[carrier]
type = identify
endpoint = carrier
match = 203.0.113.0/28
[wide](phone)
identify_by = ip
[wide]
type = identify
endpoint = wide
match = 0.0.0.0/0
""",
    "phones.conf": "".join(
        f"[{name}](phone)\nauth = {name}\naors = {name}\n"
        f"[{name}]\ntype = auth\nusername = {user}\npassword = {password}\n"
        f"[{name}]\ntype = aor\nmax_contacts = 5\n"
        for name, user, password in (("desk", "4711", "4711-sip"), ("hall", "hall", "x9Ya"))
    ),
    "sip.conf": """
[general]
context = world
udpbindaddr = 198.18.0.1
alwaysauthreject = no
autocreatepeer = yes
tlsclientmethod = sslv3
[door]
type = friend
host = dynamic
secret = changeme
context = inside
[good]
type = friend
host = dynamic
secret = f3Q9zLw27vTk
context = inside
call-limit = 2
deny = 0.0.0.0/0.0.0.0
permit = 10.0.0.0/255.0.0.0
[hashed]
type = friend
host = dynamic
md5secret = 0cc175b9c0f1b6a831c399e269772661
context = inside
""",
    "iax.conf": "[general]\n[far]\ntype = friend\nhost = dynamic\nsecret = iax-77\ncontext = inside\n",
    "users.conf": "[general]\n",
}
GONE = "no running Asterisk is visible here"
GUESSED = "can be guessed at once (short, well known, or little more than the account's name)"
RANDOM = "fix: 16 random characters each, for example from: openssl rand -hex 8"
KEPT = "a secret, or deny and permit, or remove it"
REMOVE = "remove it, or give it a context that cannot dial"
MAKING = "creates an account without a password for anyone who registers"
HTTP = "HTTP listens on 0.0.0.0 port 8088"
STRANGERS = "anyone calls without a password, into context in; where this leads is unknown"
MISSING = (
    "gone is included, and does not exist, so Asterisk refuses the file; fix: correct this, then check again"
)
UNSEEN = "wrong passwords are reported nowhere, so guessers are never banned"
HTTP_HERE = "bindaddr = 127.0.0.1 in http.conf [general]"
WRONG = {
    "chan_sip": "reveals to guessers which accounts exist; fix: alwaysauthreject = yes in sip.conf [general]",
    "passwords in sip.conf": f"1 {GUESSED}: door; {RANDOM}",
    "passwords in iax.conf": f"1 {GUESSED}: far; {RANDOM}",
    "passwords in pjsip.conf": f"2 {GUESSED}: desk, hall; {RANDOM}",
    "passwords in manager.conf": f"1 {GUESSED}: admin; {RANDOM}",
    "manager interface": "listens on 0.0.0.0 port 5038, and these users may log in from anywhere: admin; "
    "fix: bindaddr = 127.0.0.1 in manager.conf [general], "
    "or deny = 0.0.0.0/0.0.0.0 and permit = the one address it is used from",
    "manager user ringfence": "ringfence needs no command; fix: write = reporting in its section",
    "ARI": f"{HTTP}, ARI with it: {UNSEEN}; fix: enabled = no in ari.conf [general], or {HTTP_HERE}",
    "manager interface over HTTP": f"{HTTP}, the manager interface with it, and in its digest logins "
    f"{UNSEEN}; fix: webenabled = no in manager.conf [general], or {HTTP_HERE}",
}


def checked(asterisk: Asterisk, folder: Path, *options: str) -> Completed:
    """Run the check on the host of an Asterisk, in whose file of hosts the name of this machine stands."""
    (folder / "hosts").write_text(f"127.0.1.1 {socket.gethostname()}\n", "utf-8")
    prefix = ["ip", "netns", "exec", asterisk.namespace]
    guard = Guard(folder, ami={"port": 5038, "secret": SECRET}, prefix=prefix)
    guard.config.chmod(0o600)
    places = "--asterisk-files", str(asterisk.folder / "etc"), "--hosts", str(folder / "hosts")
    done = guard.command("check", *places, *options)
    assert "Traceback" not in done.stderr
    return done


def hardening(done: Completed) -> list[str]:
    """Return the lines about hardening, with their marks and without the prefix."""
    lines = [line for line in done.stdout.split("\n") if line[4:].startswith("hardening")]
    return [line[:4] + line[4:].removeprefix("hardening: ") for line in lines]


@pytest.mark.asterisk
@pytest.mark.parametrize("release", ["16", "22"])
def test_a_default_installation_of_debian(tmp_path: Path, release: str) -> None:
    """Its findings are right: guests reach the demo context, and nothing is wide open."""
    with Network() as network, DebianAsterisk(release, network.pbx) as asterisk:
        told = hardening(checked(asterisk, tmp_path, "--hardening"))
        plain = checked(asterisk, tmp_path).stdout.split("\n")

    named = [line.split(": ")[1] for line in plain if line.startswith("--  look-ups of names: ")]
    assert named == ["chan_sip", "PJSIP"][release == "22" :]
    demo = "into context public; no way out is found, but not everything can be checked (the switch Lua)"
    advice = "fix, unless intended"
    guests = "allowguest = no in sip.conf [general]"
    chan_sip, iax2, well = (
        f"--  chan_sip: anyone calls without an account, {demo}; {advice}: {guests}",
        f"--  iax.conf [guest]: anyone who knows the name calls without a password, {demo}; {advice}: {KEPT}",
        "ok  nothing is wide open",
    )
    assert told == ([chan_sip] if release == "16" else []) + [iax2, well]


@pytest.mark.asterisk
def test_a_badly_configured_asterisk(tmp_path: Path) -> None:
    """Each weakness is a NO with its fix; no password is in any output."""
    with Network() as network, DebianAsterisk("16", network.pbx, BAD) as asterisk:
        done = checked(asterisk, tmp_path, "--hardening")
        as_json = checked(asterisk, tmp_path, "--hardening", "--json")

    told = [tuple(line.split(": ", 1)) for line in hardening(done)]
    wrong = [(what[4:], detail) for what, detail in told if what.startswith("NO")]
    hints = [what[4:] for what, _ in told if what.startswith("--")]
    making = ("chan_sip", f"{MAKING}; fix: remove autocreatepeer from sip.conf")
    wrong.remove(making)
    assert {what: detail for what, detail in wrong if "context world" not in detail} == WRONG
    out = "into context world, which dials out (_00X. in outbound, _9X. in outbound): toll fraud at your cost"
    assert [(what, detail) for what, detail in wrong if "context world" in detail] == [
        ("chan_sip", f"anyone calls without an account, {out}; fix: allowguest = no in sip.conf [general]"),
        ("pjsip.conf [anonymous]", f"anyone calls without a password, {out}; fix: {REMOVE}"),
    ]
    assert hints == [
        "pjsip.conf [carrier]",
        "passwords",
        "manager users",
        "files",
        "phones",
        "calls at once",
        "TLS",
    ]
    _others(done)
    assert done.returncode == as_json.returncode == 1
    marks = {True: "ok", False: "NO", None: "--"}
    entries = json.loads(as_json.stdout)
    assert [f"{marks[e['right']]:3} {e['what']}: {e['detail']}".removesuffix(": ") for e in entries] == (
        done.stdout.split("\n")[:-1]
    )
    for secret, where in NEVER_SHOWN.items():
        assert secret not in done.stdout + done.stderr + as_json.stdout + as_json.stderr, where


def _others(done: Completed) -> None:
    """Check the other findings about the same Asterisk: trunks, and the rights of our manager user."""
    lines = done.stdout.split("\n")

    wide = "NO  trunk wide: every address is accepted as this trunk; fix: "
    assert any(line.startswith(wide) for line in lines)
    [trunk] = [line for line in lines if line.startswith("--  trunk carrier: ")]
    offered = shlex.split(trunk.partition("if it is yours: ")[2])
    assert offered == ["ringfence", "allow", "add", "203.0.113.0/28", "--note", "carrier"]
    [rights] = [line for line in lines if "manager user ringfence: lacks" in line]
    assert "lacks read = system, write = reporting: " in rights


@pytest.mark.asterisk
def test_passwordless_calls_are_possible(tmp_path: Path) -> None:
    """On a real Asterisk a trunk's endpoint is reached by name alone, a phone with an auth is not."""
    extra = {"pjsip.conf": "[carrier]\ntype=endpoint\ncontext=public\ndisallow=all\nallow=ulaw\n"}
    with Lab.made("22", extra) as lab:
        told = hardening(checked(lab.asterisk, tmp_path, "--hardening"))
        as_carrier = lab.attack("probe", "--method", "INVITE", "--account", "carrier").statuses
        as_alice = lab.attack("probe", "--method", "INVITE", "--account", "alice").statuses

    assert [line for line in told if "without a password" in line and "[carrier]" in line]
    assert [line for line in told if "without a password" in line and "alice" in line] == []
    assert "401" not in as_carrier
    assert "401" in as_alice


def test_without_the_console(tmp_path: Path) -> None:
    """The files are still checked, and the reach of a context is unknown."""
    (tmp_path / "asterisk.conf").touch()
    (tmp_path / "modules.conf").write_text("[modules]\nautoload = yes\n", "utf-8")
    (tmp_path / "pjsip.conf").write_text("[anonymous]\ntype=endpoint\ncontext=in\n#include gone\n", "utf-8")
    (tmp_path / "extconfig.conf").write_text("[settings]\nps_auths => odbc,x\n", "utf-8")
    console = NoConsole(GONE)
    found = [finding.line for finding in hardening_findings(AsteriskFiles(tmp_path), console, "ringfence")]

    assert found == [
        f"NO  hardening: pjsip.conf: {tmp_path}/pjsip.conf:4: {MISSING}",
        f"--  hardening: console: {GONE}: settings in force, and where contexts lead, are not checked",
        "--  hardening: database: accounts in a database are not checked (extconfig.conf: ps_auths)",
        f"--  hardening: pjsip.conf [anonymous]: {STRANGERS}; fix, unless intended: {REMOVE}",
    ]


def found_in(folder: Path, **files: str) -> dict[str, Finding]:
    """Return the findings about an Asterisk with these files, by their subject, without a console."""
    for name, text in {"asterisk": "", "modules": "[modules]\nautoload = yes\n", **files}.items():
        (folder / f"{name}.conf").write_bytes(text.encode())
    found = hardening_findings(AsteriskFiles(folder), NoConsole(GONE), "ringfence")
    return {finding.what: finding for finding in found}


def test_a_byte_order_mark_hides_nothing(tmp_path: Path) -> None:
    """An editor of Windows writes the mark and CR LF, and Asterisk reads the file."""
    manager = "\ufeff[General]\r\nEnabled = yes\r\nbindaddr = 0.0.0.0\r\n\r\n[crm]\r\nsecret = admin123\r\n"
    found = found_in(tmp_path, manager=manager)

    assert found["hardening: passwords in manager.conf"].right is False
    assert found["hardening: manager interface"].right is False


def test_a_template_that_asterisk_reads_as_a_peer_is_open(tmp_path: Path) -> None:
    """A blank before the parenthesis makes the template an account without a password."""
    peer = "type=friend\nhost=dynamic\n"
    phones = (
        "[100] (phones)\nsecret=Kq83hsjd93jsmQ\n[base](!)\n" + peer + "[200](base)\nsecret=Kq83hsjd93jsmQ\n"
    )
    found = found_in(tmp_path, sip=f"[general]\nallowguest=no\n[phones] (!)\n{peer}{phones}")

    assert (
        "anyone who knows the name calls without a password" in found["hardening: sip.conf [phones]"].detail
    )
    assert "1 of 2" not in found["hardening: phones"].detail
    assert "phones, 200" in found["hardening: phones"].detail
    assert not any("base" in finding.line for finding in found.values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("manager", "[general]\nenabled = yes\n[a\n"),
        ("manager", "\0[general]\n=\nenabled = yes\n[a](b)\n"),
        ("manager", "[general]\n#include gone.conf\n"),
        ("sip", "[general]\nallowguest=no\n#include x.conf\n"),
        ("sip", "[general]\nallowguest=no\n[a](+type=.*)\nsecret=x\n[general](+host=.*)\n"),
        ("pjsip", "type=endpoint\n"),
        ("extconfig", "[settings\n"),
        ("http", "\ufeff\ufeff[general]\n"),
        ("ari", "[general](\n"),
    ],
)
def test_a_file_that_is_not_understood_is_never_right(tmp_path: Path, name: str, text: str) -> None:
    """It is named and wrong, and nothing states that all is well as far as could be checked."""
    (tmp_path / "x.conf").write_text("[x\n", "utf-8")
    found = found_in(tmp_path, **{name: text})

    assert found[f"hardening: {name}.conf"].right is False
    assert not any("wide open" in finding.detail for finding in found.values())


def test_a_file_in_a_database_is_named(tmp_path: Path) -> None:
    """Asterisk then does not read the file, which extconfig.conf maps to the database."""
    found = found_in(tmp_path, extconfig="[settings]\nsip.conf => odbc,asterisk\n")

    assert "extconfig.conf: sip.conf" in found["hardening: database"].detail


def test_settings_in_force_override_the_file(tmp_path: Path) -> None:
    """If chan_sip has not read its file again, its settings in force are reported."""
    (tmp_path / "asterisk.conf").touch()
    (tmp_path / "sip.conf").write_text("[general]\nallowguest=no\n", "utf-8")
    settings = (
        "  Allow unknown access:   Yes\n  Always auth rejects:    No\n  AutoCreate Peer:        Off\n"
        "  Context:                wild\n"
    )
    console = ScriptedConsole(lambda command: settings if command == "sip show settings" else None)
    found = [f.line for f in hardening_findings(AsteriskFiles(tmp_path), console, "ringfence")]

    assert any(line.startswith("NO  hardening: chan_sip: reveals to guessers") for line in found)
    assert any(
        line.startswith("--  hardening: chan_sip: anyone") and "context wild;" in line for line in found
    )
    assert len(found) == 2


def test_without_files(tmp_path: Path) -> None:
    """Without Asterisk's files the only finding is that they are missing."""
    [finding] = hardening_findings(AsteriskFiles(tmp_path), NoConsole(GONE), "ringfence")

    assert finding.right is None
    assert f"{tmp_path} has no readable files of Asterisk" in finding.detail


@pytest.mark.kernel
def test_a_closed_folder_has_no_readable_files(tmp_path: Path) -> None:
    """In Debian's package only root and Asterisk may enter the folder."""
    (tmp_path / "asterisk.conf").touch()
    with unprivileged():
        [finding] = hardening_findings(AsteriskFiles(tmp_path), NoConsole(GONE), "ringfence")

    assert f"{tmp_path} has no readable files of Asterisk; fix: run this as root" in finding.detail


def test_a_file_that_vanishes_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk's user may remove a file between any two looks."""
    (tmp_path / "asterisk.conf").touch()
    sip, stat = tmp_path / "sip.conf", Path.stat
    sip.touch()
    tmp_path.chmod(0o755)

    def vanishing(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = stat(path, follow_symlinks=follow_symlinks)
        if path == sip:
            sip.unlink()
        return found

    monkeypatch.setattr(Path, "stat", vanishing)
    found = hardening_findings(AsteriskFiles(tmp_path), NoConsole(GONE), "ringfence")
    assert {finding.right for finding in found} == {None}


def test_many_phones_are_summarized(tmp_path: Path) -> None:
    """Common settings are summarized: the number, some names, and the fix."""
    (tmp_path / "asterisk.conf").touch()
    (tmp_path / "modules.conf").write_text("[modules]\nautoload = yes\n", "utf-8")
    phones = "".join(
        f"[{number}]\ntype=friend\nhost=dynamic\nsecret=f3Q9zLw27vTk\n" for number in range(200, 300)
    )
    (tmp_path / "sip.conf").write_text("[general]\nallowguest=no\n" + phones, "utf-8")
    console = NoConsole(GONE)
    found = [finding.line for finding in hardening_findings(AsteriskFiles(tmp_path), console, "ringfence")]

    some = ", ".join(str(number) for number in range(200, 200 + FEW)) + f" and {100 - FEW} more"
    assert [line for line in found if f"100 of 100 may register from anywhere: {some}; fix, " in line]
    assert [line for line in found if f"100 of 100 have no limit: {some}; a stolen" in line]
    assert len(found) == 4


def test_restricted_interfaces_are_no_fault(tmp_path: Path) -> None:
    """A manager interface with restricted users, and HTTP for phones, are reported and not wrong."""
    (tmp_path / "asterisk.conf").touch()
    (tmp_path / "manager.conf").write_text(
        "[general]\nenabled=yes\nbindaddr=192.0.2.1\nport=5999\n[a]\nsecret=f3Q9zLw27vTk\nacl=office\n",
        "utf-8",
    )
    (tmp_path / "http.conf").write_text(
        "[general]\nenabled=yes\nbindaddr=192.0.2.1\nbindport=5998\n", "utf-8"
    )
    console = NoConsole(GONE)
    found = {f.what: f for f in hardening_findings(AsteriskFiles(tmp_path), console, "ringfence")}

    assert found["hardening: manager interface"].right is None
    assert found["hardening: HTTP"].right is None
    assert {f.right for f in found.values()} == {None}


@pytest.mark.parametrize("name", ["asterisk", "a; reboot"])
def test_readable_files_with_passwords(tmp_path: Path, name: str) -> None:
    """Files with passwords in a readable folder are reported; the fix can be pasted, and changes no link."""
    folder = tmp_path / name
    folder.mkdir()
    for file, mode in (
        ("asterisk.conf", 0o644),
        ("pjsip.conf", 0o644),
        ("iax.conf", 0o640),
        ("sip.conf", 0o604),
    ):
        (folder / file).touch()
        (folder / file).chmod(mode)
    console = NoConsole(GONE)

    def told() -> list[str]:
        found = hardening_findings(AsteriskFiles(folder), console, "ringfence")
        return [finding.detail for finding in found if "files" in finding.what]

    folder.chmod(0o755)
    [line] = told()
    shown = shlex.split(line.partition("; fix: ")[2])
    assert shown == ["chmod", "o=", f"{folder}/sip.conf", f"{folder}/pjsip.conf"]
    (tmp_path / "another program's file").touch(0o644)
    (folder / "sip.conf").unlink()
    (folder / "sip.conf").symlink_to(tmp_path / "another program's file")
    [line] = told()
    command, links = line.partition("; fix: ")[2].split("; see ")
    assert shlex.split(command) == ["chmod", "o=", f"{folder}/pjsip.conf"]
    assert links == f"where these links lead: {folder}/sip.conf"
    folder.chmod(0o750)
    assert told() == []


@pytest.mark.asterisk
@pytest.mark.parametrize("release", ["16", "22"])
def test_wrong_passwords_of_ari_are_not_logged(release: str) -> None:
    """No log shows a wrong password of ARI or of a manager over HTTP, so they must not be public."""
    extra = {
        "http.conf": "[general]\nenabled = yes\nbindaddr = 198.18.0.1\nbindport = 8088\n",
        "ari.conf": "[general]\nenabled = yes\n[app]\ntype = user\npassword = f3Q9zLw27vTk\n",
        "manager.conf": "[general](+)\nwebenabled = yes\n",
    }
    with Lab.made(release, extra) as lab:
        where = socket_in(lab.network.attacker)
        attacker = b"198.18.1.1"
        assert answer(where, b"GET /ari/asterisk/info?api_key=app:wrong") == b"HTTP/1.1 401 Unauthorized"
        where = socket_in(lab.network.attacker)
        assert answer(where, b"GET /rawman?action=login&username=nobody&secret=x") == b"HTTP/1.1 200 OK"
        log = lab.asterisk.logs / "ringfence"
        until(lambda: attacker in log.read_bytes(), "the manager's refusal is logged")
        told = [line for line in log.read_bytes().split(b"\n") if attacker in line]

    assert all(b"nobody" in line for line in told)


def answer(connection: socket.socket, request: bytes) -> bytes:
    """Send a request to the HTTP server of the PBX; return the first line of the answer."""
    with connection:
        connection.settimeout(10)
        connection.connect(("198.18.0.1", 8088))
        connection.sendall(request + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.makefile("rb").readline().rstrip()


@pytest.mark.parametrize(
    ("hosts", "nsswitch", "known"),
    [
        ("127.0.0.1 localhost\n127.0.1.1 pbx.example.org PBX # a name\n", "hosts: files dns\n", True),
        ("127.0.0.1 localhost\n", "passwd: files\nhosts: files myhostname dns\n", True),
        ("127.0.0.1 localhost # pbx\n", "hosts: files dns\n", False),
        ("127.0.0.1 localhost\n", "# hosts: myhostname\n", False),
        (None, None, False),
    ],
)
def test_the_name_of_this_host_is_known_without_a_name_server(
    tmp_path: Path, hosts: str | None, nsswitch: str | None, *, known: bool
) -> None:
    """A name that no file has is a remark, because Asterisk waits for its look-up."""
    for name, text in (("hosts", hosts), ("nsswitch", nsswitch)):
        if text is not None:
            (tmp_path / name).write_text(text, "utf-8")

    found = [*host_name_findings("pbx", tmp_path / "hosts", tmp_path / "nsswitch")]

    assert [finding.right for finding in found] == ([] if known else [None])
    fix = f'fix: echo "127.0.1.1 $(hostname --fqdn) $(hostname)" >> {tmp_path}/hosts'
    assert all(fix in finding.line for finding in found)


@pytest.mark.parametrize(
    ("shown", "weak"),
    [
        ("Global Settings:\n taskprocessor_overload_trigger             : global\n", "PJSIP: some hundred"),
        (" taskprocessor_overload_trigger : pjsip_only\n", ""),
        ("chan_sip.so       Session Initiation Protocol (SIP)  0   Running  deprecated\n", "chan_sip: one"),
        ("chan_sip.so       Session Initiation Protocol (SIP)  0   Not Running  deprecated\n", ""),
        ("No such command", ""),
        (None, ""),
    ],
)
def test_look_ups_of_names_may_stop_a_driver(shown: str | None, weak: str) -> None:
    """PJSIP by its default setting, and chan_sip always; each finding has its fix."""
    found = [finding.line for finding in look_up_findings(ScriptedConsole(lambda _: shown))]

    assert [line.partition("look-ups of names: ")[2][: len(weak)] for line in found] == (
        [weak] if weak else []
    )
    assert all("fix: " in line for line in found)


def test_included_files_with_passwords(tmp_path: Path) -> None:
    """FreePBX's passwords are in files that the main files include."""
    (tmp_path / "asterisk.conf").touch()
    (tmp_path / "pjsip.conf").write_text("#include pjsip.auth.conf\n", "utf-8")
    (tmp_path / "pjsip.conf").chmod(0o640)
    (tmp_path / "pjsip.auth.conf").write_text("[200]\ntype=auth\npassword=f3Q9zLw27vTk\n", "utf-8")
    (tmp_path / "pjsip.auth.conf").chmod(0o664)
    tmp_path.chmod(0o755)

    found = hardening_findings(AsteriskFiles(tmp_path), NoConsole(GONE), "ringfence")
    [line] = [finding.detail for finding in found if "files" in finding.what]
    assert shlex.split(line.partition("; fix: ")[2]) == ["chmod", "o=", f"{tmp_path}/pjsip.auth.conf"]
