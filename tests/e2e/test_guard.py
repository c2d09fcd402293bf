"""The whole way on a real Asterisk: an attacker's packets, AMI, attempts, and the kernel that drops him.

Every test has sources that no other test uses, and a daemon of its own on the shared Asterisk. How few
guesses are answered is a figure of the bench; here it counts that they end.
"""

import os
import re
import signal
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER
from tests.support.captures import FORGED
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, NO_WIRE, guarded
from tests.support.lab import Lab
from tests.support.network import socket_in

from ringfence.detect.hidden import WAIT

pytestmark = pytest.mark.asterisk

MANY = "20000"
IPV6 = ("--target", "[fd00:18::1]:5060")
AIMED = f";rport;maddr={FORGED}"


def source_of(request: pytest.FixtureRequest) -> str:
    """Give a source that no other test has: each is known by its name."""
    number = zlib.crc32(request.node.name.encode())
    return f"198.19.{128 + number % 100}.{1 + number // 100 % 250}"


@pytest.mark.parametrize(
    ("source", "options", "banned"),
    [
        ("198.19.10.1", (), "198.19.10.1"),
        ("198.19.10.2", ("--account", "nobody"), "198.19.10.2"),
        ("198.19.10.3", ("--transport", "TCP"), "198.19.10.3"),
        ("198.19.10.4", ("--method", "INVITE"), "198.19.10.4"),
        ("198.19.10.5", ("--account", "locked"), "198.19.10.5"),
        ("198.19.10.6", ("--call-id", "one-for-all"), "198.19.10.6"),
        ("fd00:19::a:1", IPV6, "fd00:19::/64"),
        ("fd00:18::b1", IPV6, "fd00:18::b1"),
    ],
    ids=["known", "unknown", "tcp", "invite", "acl", "one-call-id", "ipv6-64", "ipv6-beside-the-pbx"],
)
def test_a_guesser_is_stopped_and_banned(
    asterisk22: Lab, tmp_path: Path, source: str, options: Sequence[str], banned: str
) -> None:
    """Whichever way he guesses, his guesses end in silence and he alone is banned, for five attempts."""
    with guarded(asterisk22, tmp_path) as guard:
        result = asterisk22.attack("guess", "--number", MANY, "--sources", source, *options)

        assert result.stopped == "silence"
        rows = guard.bans()
        assert [(banned, "guess", 5)] == [(row["address"], row["rule"], row["attempts"]) for row in rows]


def test_the_addresses_of_one_prefix_are_one_guesser(asterisk22: Lab, tmp_path: Path) -> None:
    """A few guesses from each of many addresses of a /64 end as soon as those from one address."""
    with guarded(asterisk22, tmp_path) as guard:
        result = asterisk22.attack(
            "guess", "--number", "4", "--sources", "fd00:19::b:1-fd00:19::b:28", "--timeout", "0.2", *IPV6
        )

        assert result.challenges_answered < result.challenges_sent
        assert {"fd00:19::/64"} == guard.banned()


@pytest.mark.parametrize(
    "account",
    [
        "%0D%0ARemoteAddress%3A%20IPV4/UDP/203.0.113.9/5",
        "x%0D%0A%0D%0AEvent%3A%20SuccessfulAuth",
        "x%0D%0A%0D%0A%0D%0A%0D%0AEvent%3A%20Y",
    ],
)
def test_a_forged_header_blames_its_sender(asterisk22: Lab, tmp_path: Path, account: str) -> None:
    """CR LF in a user name hides nobody, blames nobody else, and is told as tampering."""
    source = f"198.19.11.{len(account)}"
    with guarded(asterisk22, tmp_path) as guard:
        result = asterisk22.attack("guess", "--number", MANY, "--sources", source, "--account", account)

        assert result.stopped == "silence"
        assert {source} == guard.banned()
        assert guard.status()["tampered"] > 0
        assert "evidence.tampered" in guard.log


def test_a_phone_is_left_alone(asterisk22: Lab, tmp_path: Path) -> None:
    """A phone that registers, mistypes twice and registers again is never banned."""
    phone = ("--sources", "198.19.12.1")
    with guarded(asterisk22, tmp_path) as guard:
        statuses = [
            asterisk22.attack("register", *phone).statuses,
            asterisk22.attack("guess", "--number", "2", *phone).statuses,
            asterisk22.attack("register", *phone).statuses,
        ]

        assert statuses == [{"200": 1}, {"401": 2}, {"200": 1}]
        assert guard.bans() == []
        assert guard.status()["attempts"] == 2


def test_an_allowed_network_is_never_banned(asterisk22: Lab, tmp_path: Path) -> None:
    """Guesses from an allowed network are seen and answered to the last."""
    with guarded(asterisk22, tmp_path, allow={"networks": ["198.19.13.0/24"]}) as guard:
        result = asterisk22.attack("guess", "--number", "40", "--sources", "198.19.13.7")

        assert result.answered == 40
        until(lambda: guard.status()["never_banned"] == 40, "all attempts")
        assert guard.bans() == []


def test_with_ami_alone_chan_sip_is_listed_and_bans_nobody(asterisk16: Lab, tmp_path: Path) -> None:
    """Without the wire and the log its attempts are claimed, withheld and listed, whoever they blame."""
    with guarded(asterisk16, tmp_path, logs=NO_LOGS, wire=NO_WIRE) as guard:
        asterisk16.attack("guess", "--number", "20", "--sources", "198.19.14.1", "--account", "bob")
        asterisk16.attack(
            *("guess", "--number", "20", "--sources", "198.19.14.2", "--account", "bob"),
            *("--via", AIMED),
        )

        until(lambda: guard.status()["withheld"] == 40, "all attempts")
        assert guard.bans() == []
        watched = {(row["address"], row["standing"], row["proof"]) for row in guard.status()["watched"]}
        assert {("198.19.14.1", "withheld", "claimed"), (str(FORGED), "withheld", "claimed")} == watched


@pytest.mark.parametrize("via", [";rport", AIMED], ids=["honest", "aimed"])
@pytest.mark.parametrize(
    "options",
    [("--account", "bob"), ("--account", "nobody{}"), ("--account", "bob", "--method", "INVITE")],
    ids=["known", "unknown", "invite"],
)
def test_the_wire_knows_who_guesses_at_chan_sip(
    asterisk16: Lab, tmp_path: Path, options: Sequence[str], via: str, request: pytest.FixtureRequest
) -> None:
    """With AMI and the wire, whomever a Via names: the sender is banned and nobody else."""
    source = source_of(request)
    with guarded(asterisk16, tmp_path, logs=NO_LOGS) as guard:
        result = asterisk16.attack("guess", "--number", MANY, "--sources", source, *options, "--via", via)

        assert result.stopped == "silence"
        assert guard.banned() == {source}
        assert ("evidence.aimed" in guard.log) is (via == AIMED)
        assert guard.status()["problems"] == []


@pytest.mark.parametrize("via", [";rport", AIMED], ids=["honest", "aimed"])
@pytest.mark.parametrize("account", ["bob", "nobody{}"])
def test_the_log_knows_who_guesses_at_chan_sip(
    asterisk16: Lab, tmp_path: Path, account: str, via: str, request: pytest.FixtureRequest
) -> None:
    """With AMI and the log alone, whomever a Via names: the sender is banned and nobody else."""
    source = source_of(request)
    with guarded(asterisk16, tmp_path, wire=NO_WIRE) as guard:
        result = asterisk16.attack(
            *("guess", "--number", MANY, "--sources", source, "--account", account, "--via", via)
        )

        assert result.stopped == "silence"
        assert guard.banned() == {source}
        if via == AIMED:
            until(lambda: "evidence.aimed" in guard.log, "the alarm")


def test_an_escape_in_a_header_of_chan_sips_blames_nobody(asterisk16: Lab, tmp_path: Path) -> None:
    """The log's line names a stranger, the event too by a Via: neither is believed, nobody else is banned."""
    tail = rf";x=' failed for '{FORGED}:5060' - Usernam\x1b"
    with guarded(asterisk16, tmp_path, wire=NO_WIRE) as guard:
        asterisk16.attack(
            *("guess", "--number", "20", "--sources", "198.19.14.9", "--account", "bob"),
            *("--to-tail", tail, "--username", "another", "--via", AIMED),
        )
        until(lambda: guard.status()["withheld"] >= 20, "all attempts")

        assert guard.bans() == []
        assert {row["address"] for row in guard.status()["watched"]} == {str(FORGED)}


def test_the_log_carries_on_where_ami_does_not(asterisk22: Lab, tmp_path: Path) -> None:
    """With the manager interface out of reach, the security lines of the log stop a guesser as well."""
    with guarded(asterisk22, tmp_path, ami={"port": 1}, wire=NO_WIRE, listening=False) as guard:
        until(lambda: "listening" in guard.states().values(), "the log")
        result = asterisk22.attack("guess", "--number", MANY, "--sources", "198.19.25.1")

        assert result.stopped == "silence"
        assert guard.banned() == {"198.19.25.1"}


def test_ami_may_go_and_come_back(tmp_path: Path) -> None:
    """While AMI is away the log goes on counting, and what both tell before and after counts once."""
    guess = ("guess", "--sources", "198.19.25.7", "--number")
    closed = (
        "INPUT",
        "-p",
        "tcp",
        "--dport",
        str(MANAGER_PORT),
        "-j",
        "REJECT",
        "--reject-with",
        "tcp-reset",
    )
    with Lab.made("22") as lab, guarded(lab, tmp_path, wire=NO_WIRE) as guard:
        lab.attack(*guess, "2")
        until(lambda: guard.status()["attempts"] == 2, "two attempts")

        lab.run("iptables", "-I", *closed)
        sessions = lab.asterisk.cli("manager show connected")
        [descriptor] = re.findall(rf"(?m)^ *{MANAGER_USER} .* (\d+) +\d+ +\d+ +\d+ *$", sessions)
        lab.asterisk.cli(f"manager kick session {descriptor}")
        until(lambda: not guard.ami_is("listening"), "the end of AMI")
        lab.attack(*guess, "1")
        until(lambda: guard.status()["attempts"] == 3, "a third by the log")

        lab.run("iptables", "-D", *closed)
        until(lambda: guard.ami_is("listening"), "AMI again", 40)
        lab.attack(*guess, "1")
        until(lambda: guard.status()["sources"][1]["events"] >= 12, "what the log tells")
        assert (guard.status()["attempts"], guard.bans()) == (4, [])
        lab.attack(*guess, "1")
        until(lambda: guard.banned() == {"198.19.25.7"}, "the ban")


def test_the_log_alone_guards(asterisk22: Lab, tmp_path: Path) -> None:
    """Without a manager user, the log and the wire stop a guesser, and who hides from the log."""
    with guarded(asterisk22, tmp_path, ami={"enabled": False}) as guard:
        for source, call_id in (("198.19.25.5", "{}"), ("198.19.25.6", r"\xff{}")):
            result = asterisk22.attack("guess", "--number", MANY, "--sources", source, "--call-id", call_id)
            assert result.stopped == "silence"

        assert guard.banned() == {"198.19.25.5", "198.19.25.6"}
        assert {name.partition(":")[0] for name in guard.states()} == {"pbx/log", "wire"}


def test_what_three_sources_tell_counts_once(asterisk22: Lab, tmp_path: Path) -> None:
    """Four guesses told by AMI, by security lines and by notices, and seen on the wire: four attempts."""
    with guarded(asterisk22, tmp_path) as guard:
        asterisk22.attack("guess", "--number", "4", "--sources", "198.19.25.2")
        until(lambda: guard.status()["sources"][1]["events"] >= 12, "the log's tellings")

        assert (guard.status()["attempts"], guard.bans()) == (4, [])


VEIL = r'"x\x1b" '
BLAMING = rf"m\" <sip:a@h>' failed for '{FORGED}:5060' (callid: zz{{}}"
SILENT_DIGEST = (
    r'Authorization: Digest username="alice", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
)


@pytest.mark.parametrize(
    "options",
    [
        ("--call-id", r"\xff{}"),
        ("--call-id", r"\xff"),
        ("--call-id", r"\xff{}", "--account", "nobody{}"),
        ("--call-id", r"\xff{}", "--method", "INVITE"),
        ("--call-id", rf"{{}}\xff{BLAMING}", "--display", VEIL),
        ("--call-id", rf"{{}}{BLAMING}", "--display", VEIL),
        ("--before-digest", SILENT_DIGEST),
        ("--call-id", r"\xff{}", "--transport", "TCP"),
    ],
    ids=["hidden", "one-call", "unknown", "invite", "hidden-and-forged", "forged", "two-digests", "by-tcp"],
)
def test_nothing_hides_and_nobody_else_is_blamed(
    asterisk22: Lab, tmp_path: Path, options: Sequence[str], request: pytest.FixtureRequest
) -> None:
    """Whatever silences AMI and the log, or makes the log name a stranger: the sender alone is banned."""
    source = source_of(request)
    with guarded(asterisk22, tmp_path) as guard:
        result = asterisk22.attack("guess", "--number", MANY, "--sources", source, *options)

        assert result.stopped == "silence"
        assert guard.banned() == {source}


ELSEWHERE = f';rport;maddr=198.19.26.2;x=";received={FORGED}"'


def test_a_challenge_that_is_sent_elsewhere_blames_its_sender(asterisk22: Lab, tmp_path: Path) -> None:
    """PJSIP sends it where a Via says; who asked, hiding from all events, is banned, and nobody there."""
    with guarded(asterisk22, tmp_path) as guard:
        asterisk22.attack(
            *("probe", "--number", "20", "--silences", "20", "--timeout", "0.02"),
            *("--sources", "198.19.26.1", "--call-id", r"\xff{}", "--via", ELSEWHERE),
        )
        until(lambda: guard.banned() != set(), "a ban")

        assert guard.banned() == {"198.19.26.1"}


def test_what_only_the_wire_could_settle_is_listed_without_it(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the wire a notice of PJSIP's, which can be forged, shows who hides and bans nobody."""
    source = "198.19.25.3"
    with guarded(asterisk22, tmp_path, wire=NO_WIRE) as guard:
        asterisk22.attack("guess", "--number", "20", "--sources", source, "--call-id", r"\xff{}")
        until(lambda: guard.status()["withheld"] == 20, "the notices")

        watched = {(row["address"], row["standing"]) for row in guard.status()["watched"]}
        assert (watched, guard.bans()) == ({(source, "withheld")}, [])


def test_phones_that_register_again_and_again_hide_nothing(tmp_path: Path) -> None:
    """AMI tells of each challenge of theirs, so none is missed after the wait."""
    with Lab.made("22") as lab, guarded(lab, tmp_path) as guard:
        for _ in range(5):
            lab.attack("register", "--sources", "198.19.25.4", "--call-id", "phone")
        seen = time.monotonic()
        until(lambda: time.monotonic() > seen + WAIT + 1.0, "the wait")

        assert (guard.status()["attempts"], guard.bans()) == (0, [])


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_leaves_no_gap(asterisk22: Lab, tmp_path: Path, end: str) -> None:
    """Whether the daemon is stopped or killed, the banned stays out meanwhile and after."""
    source = {"stop": "198.19.17.1", "kill": "198.19.17.2"}[end]
    attack = ("guess", "--number", "1", "--sources", source)
    with guarded(asterisk22, tmp_path) as guard:
        asterisk22.attack("guess", "--number", MANY, "--sources", source)
        before = guard.bans()[0]

        getattr(guard, end)()
        while_down = asterisk22.attack(*attack).answered
        from_kernel = guard.command("bans")
        guard.start()
        after = guard.bans()[0]

        assert while_down == 0
        assert source in from_kernel.stdout
        assert "read from the kernel" in from_kernel.stderr
        assert {key: before[key] for key in ("address", "since", "expires", "rule", "attempts")} == {
            key: after[key] for key in ("address", "since", "expires", "rule", "attempts")
        }
        assert asterisk22.attack(*attack).answered == 0


def test_off_lets_everybody_in_and_on_brings_the_bans_back(asterisk22: Lab, tmp_path: Path) -> None:
    """`off` ends enforcement at once and lasts over a restart; `on` puts back what has time left."""
    attack = ("guess", "--number", "2", "--sources", "198.19.18.1")
    with guarded(asterisk22, tmp_path) as guard:
        asterisk22.attack("guess", "--number", MANY, "--sources", "198.19.18.1")

        assert guard.command("off").returncode == 0
        assert asterisk22.attack(*attack).answered == 2
        guard.stop()
        guard.start()
        assert asterisk22.attack(*attack).answered == 2
        assert guard.command("on").returncode == 0
        assert asterisk22.attack(*attack).answered == 0


def test_unban_lets_one_in(asterisk22: Lab, tmp_path: Path) -> None:
    """`unban` frees the one it names, and he is counted from nothing."""
    sources = ["198.19.19.1", "198.19.19.2"]
    with guarded(asterisk22, tmp_path) as guard:
        for source in sources:
            asterisk22.attack("guess", "--number", MANY, "--sources", source)

        assert guard.command("unban", sources[0]).returncode == 0
        assert {sources[1]} == guard.banned()
        assert asterisk22.attack("guess", "--number", "4", "--sources", sources[0]).answered == 4
        assert {sources[1]} == guard.banned()


def test_a_ban_by_hand_works_and_ends_by_itself(asterisk22: Lab, tmp_path: Path) -> None:
    """`ban --for 2s` silences an address, and the kernel lets it in again in time."""
    attack = ("register", "--sources", "198.19.20.1")
    with guarded(asterisk22, tmp_path) as guard:
        assert guard.command("ban", "198.19.20.1", "--for", "2s", "--reason", "a test").returncode == 0
        assert asterisk22.attack(*attack).answered == 0
        until(lambda: not guard.bans(), "the end of the ban")
        assert asterisk22.attack(*attack).statuses == {"200": 1}


def test_check_finds_nothing_wrong(each_asterisk: Lab, tmp_path: Path) -> None:
    """`check` beside a working daemon finds nothing to mend and exits with 0."""
    with guarded(each_asterisk, tmp_path) as guard:
        guard.config.chmod(0o600)
        done = guard.command("check")

        assert (done.returncode, done.stderr) == (0, "")
        assert "NO" not in {line.split()[0] for line in done.stdout.strip().split("\n")}


def test_tls_is_heard(asterisk22: Lab, tmp_path: Path) -> None:
    """Over TLS, with the server's certificate checked, attempts are heard as over TCP."""
    ami = {"port": 5039, "tls": True, "tls_ca": str(asterisk22.asterisk.certificate)}
    with guarded(asterisk22, tmp_path, ami=ami) as guard:
        asterisk22.attack("guess", "--number", MANY, "--sources", "198.19.21.1")

        assert {"198.19.21.1"} == guard.banned()


def test_a_wrong_secret_is_named_and_not_shown(asterisk22: Lab, tmp_path: Path) -> None:
    """A refused login is a state with the mend in it; the secret is in no log and no report."""
    with guarded(asterisk22, tmp_path, ami={"secret": "not-this-one"}, listening=False) as guard:
        until(lambda: guard.ami_is("login refused"), "the refusal")

        status = guard.command("status", "--json").stdout
        assert "compare with manager.conf" in status
        assert "not-this-one" not in status + guard.log


def test_a_restarted_asterisk_is_heard_again(tmp_path: Path) -> None:
    """When Asterisk goes and comes back, the source is lost, then listens, and bans as before."""
    with Lab.made("22") as lab, guarded(lab, tmp_path) as guard:
        lab.asterisk.kill()
        until(lambda: not guard.ami_is("listening"), "the loss")
        lab.asterisk.start()
        until(lambda: guard.ami_is("listening"), "the return", 60)

        lab.attack("guess", "--number", MANY, "--sources", "198.19.22.1")

        assert {"198.19.22.1"} == guard.banned()


def test_a_user_without_the_security_class_is_deaf(tmp_path: Path) -> None:
    """Who logs in and is told no security events is called deaf, with the mend, within seconds."""
    user = "\n[deaf]\nsecret = abc\nread = system\npermit = 127.0.0.1/255.255.255.255\n"
    ami = {"username": "deaf", "secret": "abc"}
    with (
        Lab.made("22", {"manager.conf": user}) as lab,
        guarded(lab, tmp_path, ami=ami, listening=False) as guard,
    ):
        until(lambda: guard.ami_is("deaf"), "the state")

        assert "read = security,system" in guard.status()["sources"][0]["detail"]
        assert guard.command("check").returncode == 1


def test_a_frozen_asterisk_is_noticed(tmp_path: Path) -> None:
    """An Asterisk that answers no ping is named unresponsive, and heard again when it thaws."""
    with Lab.made("22") as lab, guarded(lab, tmp_path) as guard:
        os.kill(lab.asterisk.pid, signal.SIGSTOP)
        try:
            until(lambda: guard.ami_is("unresponsive"), "the missing answer", 30)
        finally:
            os.kill(lab.asterisk.pid, signal.SIGCONT)
        until(lambda: guard.ami_is("listening"), "the thaw", 60)


@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "unfiltered"])
def test_a_forger_over_http_is_filtered_at_the_source(tmp_path: Path, *, filtered: bool) -> None:
    """A login over HTTP with events in its name bans nobody under our filter; else status warns."""
    user = f"\n[{MANAGER_USER}](+)\n{EVENT_FILTER}\n" if filtered else ""
    extra = {
        "manager.conf": f"\n[general](+)\nwebenabled = yes\n{user}",
        "http.conf": "[general]\nenabled = yes\nbindaddr = 198.18.0.1\nbindport = 8088\n",
    }
    with Lab.made("22", extra) as lab, guarded(lab, tmp_path) as guard:
        _log_in_over_http(lab, "x" + FORGED_TAIL + FORGED_EVENT * 5)
        lab.attack("guess", "--number", MANY, "--sources", "198.19.23.1")

        assert {"198.19.23.1"} | (set() if filtered else {str(FORGED)}) == guard.banned()
        warned = any("eventfilter" in problem for problem in guard.status()["problems"])
        assert filtered is not warned


MANAGER_FRAGMENT = Path(__file__).parents[2] / "contrib/asterisk/ringfence.manager.conf"
EVENT_FILTER = next(
    line for line in MANAGER_FRAGMENT.read_text("utf-8").split("\n") if line.startswith("eventfilter")
)
FORGED_TAIL = (
    "\r\nSessionID: 0x1"
    "\r\nLocalAddress: IPV4/TCP/198.18.0.1/8088"
    f"\r\nRemoteAddress: IPV4/TCP/{FORGED}/1"
    "\r\n\r\n"
)
FORGED_EVENT = (
    "Event: ChallengeResponseFailed\r\nPrivilege: security,all\r\n"
    "EventTV: 2026-11-20T06:05:01.461+0000\r\nSeverity: Error\r\n"
    "Service: PJSIP\r\nEventVersion: 1\r\nAccountID: x"
    + FORGED_TAIL.removesuffix("\r\n\r\n")
    + "\r\nChallenge: a\r\nResponse: b\r\nExpectedResponse: \r\n\r\n"
)


def _log_in_over_http(lab: Lab, user: str) -> None:
    with socket_in(lab.network.attacker) as connection:
        connection.settimeout(10)
        connection.connect(("198.18.0.1", 8088))
        path = f"/rawman?action=login&username={quote(user, safe='')}&secret=x"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: pbx\r\nConnection: close\r\n\r\n".encode())
        while connection.recv(4096):
            pass
