"""The whole path on a real Asterisk: packets of an attacker, AMI, attempts, and drops by the kernel.

Every test has its own sources. Tests with the same settings share a daemon on the common Asterisk. The
benchmark measures how few guesses are answered; here they only have to end.
"""

import os
import re
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER
from tests.support.captures import FORGED
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_LOGS, NO_WIRE, guarded, shared
from tests.support.lab import Lab
from tests.support.sip import Result

from ringfence.alarm_codes import is_about_setup
from ringfence.detect.confirmation import PATIENCE

pytestmark = pytest.mark.asterisk

ENDLESS = ("--number", "20000", "--silences", "3")  # one late answer is no ban
PATIENT = ("--timeout", "5")  # for attacks that get every answer
IPV6 = ("--target", "[fd00:18::1]:5060")
AIMED = f";rport;maddr={FORGED}"
VEIL = r'"x\x1b" '
BLAMING = rf"m\" <sip:a@h>' failed for '{FORGED}:5060' (callid: zz{{}}"
SILENT_DIGEST = (
    r'Authorization: Digest username="alice", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
)
ELSEWHERE = f';rport;maddr=198.19.26.2;x=";received={FORGED}"'
ALLOWED = {"allow": {"networks": ["198.19.13.0/24"]}}
"""The settings of the daemon that most tests share."""


def source_of(request: pytest.FixtureRequest) -> str:
    """Return a source that no other test has, made from the test's name."""
    number = zlib.crc32(request.node.name.encode())
    return f"198.19.{128 + number % 100}.{1 + number // 100 % 250}"


def attacked(lab: Lab, guard: Guard, *options: str) -> Result:
    """Guess until there is silence, and again if no ban caused it: a busy Asterisk is silent too."""
    result = lab.attack("guess", *ENDLESS, *options)
    for _ in range(2):
        if result.stopped == "silence" and not guard.bans():
            result = lab.attack("guess", *ENDLESS, *options)
    return result


def alarms(guard: Guard) -> list[tuple[str, str]]:
    """Return the code and the subject of each active alarm."""
    return [(alarm["code"], alarm["subject"]) for alarm in guard.status()["alarms"]]


def lines_read(guard: Guard) -> int:
    """Return the number of lines with events that the log has shown, also those that AMI delivers too."""
    log = guard.status()["sources"][1]
    return int(log["events"] + log["skipped"])


@pytest.mark.parametrize(
    ("source", "options", "banned"),
    [
        ("198.19.1.1", (), "198.19.1.1"),
        ("198.19.2.1", ("--account", "nobody"), "198.19.2.1"),
        ("198.19.3.1", ("--transport", "TCP"), "198.19.3.1"),
        ("198.19.4.1", ("--method", "INVITE"), "198.19.4.1"),
        ("198.19.5.1", ("--account", "locked"), "198.19.5.1"),
        ("198.19.6.1", ("--call-id", "one-for-all"), "198.19.6.1"),
        ("fd00:19::a:1", IPV6, "fd00:19::/64"),
        ("fd00:18::b1", IPV6, "fd00:18::b1"),
    ],
    ids=["known", "unknown", "tcp", "invite", "acl", "one-call-id", "ipv6-64", "ipv6-beside-the-pbx"],
)
def test_a_guesser_is_stopped_and_banned(
    asterisk22: Lab, source: str, options: Sequence[str], banned: str
) -> None:
    """Each kind of guessing ends in silence, and only the guesser is banned, for five attempts."""
    with shared(asterisk22, **ALLOWED) as guard:
        result = attacked(asterisk22, guard, "--sources", source, *options)

        assert result.stopped == "silence"
        until(guard.bans, "the ban")
        rows = guard.bans()
        assert [(banned, "guess", 5)] == [(row["address"], row["rule"], row["attempts"]) for row in rows]


def test_the_addresses_of_one_prefix_are_one_guesser(asterisk22: Lab) -> None:
    """A few guesses from each of many addresses of a /64 end as early as those from one address."""
    with shared(asterisk22, **ALLOWED) as guard:
        guard.ask("unban", networks=["fd00:19::/64"])  # another test has a sender there too
        guard.begin()
        result = asterisk22.attack(
            *("guess", "--number", "4", "--sources", "fd00:19::b:1-fd00:19::b:14"),
            *("--timeout", "0.2", "--pause", "0.05", *IPV6),
        )

        assert result.challenges_answered < result.challenges_sent
        until(lambda: guard.banned() == {"fd00:19::/64"}, "the ban")


@pytest.mark.parametrize(
    "account",
    [
        "%0D%0ARemoteAddress%3A%20IPV4/UDP/203.0.113.9/5",
        "x%0D%0A%0D%0AEvent%3A%20SuccessfulAuth",
        "x%0D%0A%0D%0A%0D%0A%0D%0AEvent%3A%20Y",
    ],
)
def test_a_forged_header_counts_for_its_sender(asterisk22: Lab, account: str) -> None:
    """CR LF in a user name hides no sender, frames no other address, and is reported as tampering."""
    source = f"198.19.{len(account)}.11"
    with shared(asterisk22, **ALLOWED) as guard:
        before = guard.status()["tampered"]
        result = attacked(asterisk22, guard, "--sources", source, "--account", account)

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {source}, "the ban")
        assert guard.status()["tampered"] > before
        assert ("evidence.tampered", "pbx/ami") in alarms(guard)


def test_a_phone_is_left_alone(asterisk22: Lab) -> None:
    """A phone that registers, sends two wrong passwords and registers again is never banned."""
    source = "198.19.12.1"
    phone = ("--sources", source)
    with shared(asterisk22, **ALLOWED) as guard:
        statuses = [
            asterisk22.attack("register", *phone).statuses,
            asterisk22.attack("guess", "--number", "2", *phone, *PATIENT).statuses,
            asterisk22.attack("register", *phone).statuses,
        ]

        assert statuses == [{"200": 1}, {"401": 2}, {"200": 1}]
        until(lambda: len(guard.attempts_of(source)) == 2, "the attempts")
        assert guard.bans() == []


def test_an_allowed_network_is_never_banned(asterisk22: Lab) -> None:
    """All guesses from an allowed network are recorded and answered."""
    with shared(asterisk22, **ALLOWED) as guard:
        before = guard.status()["exempt"]
        result = asterisk22.attack("guess", "--number", "40", "--sources", "198.19.13.7", *PATIENT)

        assert result.answered == 40
        until(lambda: guard.status()["exempt"] == before + 40, "all attempts")
        assert guard.bans() == []


def test_an_attempt_of_three_sources_counts_once(asterisk22: Lab) -> None:
    """Four guesses that AMI, security lines, notices and the wire all report are four attempts."""
    with shared(asterisk22, **ALLOWED) as guard:
        source, before = "198.19.25.2", lines_read(guard)
        asterisk22.attack("guess", "--number", "4", "--sources", source, *PATIENT)
        until(lambda: lines_read(guard) >= before + 12, "the lines of the log")

        assert (len(guard.attempts_of(source)), guard.bans()) == (4, [])


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
def test_no_guess_is_hidden_and_no_other_address_is_banned(
    asterisk22: Lab, options: Sequence[str], request: pytest.FixtureRequest
) -> None:
    """Only the sender is banned, even if AMI and the log are silent or the log names a stranger."""
    source = source_of(request)
    with shared(asterisk22, **ALLOWED) as guard:
        result = attacked(asterisk22, guard, "--sources", source, *options)

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {source}, "the ban")


def test_a_challenge_that_is_sent_elsewhere_counts_for_its_sender(asterisk22: Lab) -> None:
    """PJSIP sends it to the address in a Via; the hidden sender is banned, and that address is not."""
    with shared(asterisk22, **ALLOWED) as guard:
        asterisk22.attack(
            *("probe", "--number", "20", "--silences", "20", "--timeout", "0.02"),
            *("--sources", "198.19.26.1", "--call-id", r"\xff{}", "--via", ELSEWHERE),
        )
        until(lambda: guard.banned() != set(), "a ban")

        assert guard.banned() == {"198.19.26.1"}


def test_phones_that_register_again_and_again_hide_nothing(asterisk22: Lab) -> None:
    """AMI reports each of their challenges, so none counts as hidden."""
    source = "198.19.25.4"
    with shared(asterisk22, **ALLOWED) as guard:
        for _ in range(5):
            asterisk22.attack("register", "--sources", source, "--call-id", "phone")
        time.sleep(2.0)

        assert (guard.attempts_of(source), guard.bans()) == ([], [])


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_leaves_no_gap(asterisk22: Lab, end: str) -> None:
    """While the daemon is stopped or killed, and after its restart, the ban holds."""
    source = {"stop": "198.19.17.1", "kill": "198.19.17.2"}[end]
    attack = ("guess", "--number", "1", "--sources", source)
    with shared(asterisk22, **ALLOWED) as guard:
        attacked(asterisk22, guard, "--sources", source)
        until(guard.bans, "the ban")
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


def test_off_ends_all_bans_and_on_restores_them(asterisk22: Lab) -> None:
    """`off` ends enforcement at once and survives a restart; `on` restores the bans that have time left."""
    attack = ("guess", "--number", "2", "--sources", "198.19.18.1")
    with shared(asterisk22, **ALLOWED) as guard:
        attacked(asterisk22, guard, "--sources", "198.19.18.1")
        until(guard.bans, "the ban")

        guard.must("off")
        assert asterisk22.attack(*attack, *PATIENT).answered == 2
        guard.stop()
        guard.start()
        assert asterisk22.attack(*attack, *PATIENT).answered == 2
        guard.must("on")
        assert asterisk22.attack(*attack).answered == 0


def test_unban_ends_one_ban(asterisk22: Lab) -> None:
    """`unban` ends the ban of one address, whose attempts are then counted from zero."""
    sources = ["198.19.19.1", "198.19.19.2"]
    with shared(asterisk22, **ALLOWED) as guard:
        for source in sources:
            attacked(asterisk22, guard, "--sources", source)
        until(lambda: guard.banned() == {*sources}, "the bans")

        guard.must("unban", sources[0])
        assert {sources[1]} == guard.banned()
        assert asterisk22.attack("guess", "--number", "4", "--sources", sources[0], *PATIENT).answered == 4
        assert {sources[1]} == guard.banned()


def test_a_manual_ban_works_and_expires(asterisk22: Lab) -> None:
    """`ban --for 8s` blocks an address, and the kernel ends that ban after eight seconds."""
    attack = ("register", "--sources", "198.19.20.1")
    with shared(asterisk22, **ALLOWED) as guard:
        guard.must("ban", "198.19.20.1", "--for", "8s", "--reason", "a test")
        assert asterisk22.attack(*attack).answered == 0
        until(lambda: not guard.bans(), "the end of the ban", pause=0.1)
        assert asterisk22.attack(*attack).statuses == {"200": 1}


def test_a_restarted_asterisk_is_read_again(asterisk22: Lab) -> None:
    """After a restart of Asterisk the source is lost, then listens, and leads to bans as before."""
    with shared(asterisk22, **ALLOWED) as guard:
        asterisk22.asterisk.kill()
        until(lambda: not guard.ami_is("listening"), "the loss")
        asterisk22.asterisk.start()
        until(lambda: guard.ami_is("listening"), "the return", 60, pause=0.1)

        attacked(asterisk22, guard, "--sources", "198.19.22.1")

        until(lambda: guard.banned() == {"198.19.22.1"}, "the ban")


def test_a_frozen_asterisk_is_noticed(asterisk22: Lab) -> None:
    """An Asterisk that answers no ping is reported as unresponsive, and read again once it continues."""
    with shared(asterisk22, **ALLOWED) as guard:
        os.kill(asterisk22.asterisk.pid, signal.SIGSTOP)
        try:
            until(lambda: guard.ami_is("unresponsive"), "the missing answer", 30, pause=0.2)
        finally:
            os.kill(asterisk22.asterisk.pid, signal.SIGCONT)
        until(lambda: guard.ami_is("listening"), "the thaw", 60, pause=0.1)


def test_with_ami_alone_attempts_at_chan_sip_are_only_listed(asterisk16: Lab, tmp_path: Path) -> None:
    """Without the wire and the log its attempts are claimed and unconfirmed: they cause no ban."""
    with guarded(asterisk16, tmp_path, logs=NO_LOGS, wire=NO_WIRE) as guard:
        asterisk16.attack("guess", "--number", "20", "--sources", "198.19.14.1", "--account", "bob", *PATIENT)
        asterisk16.attack(
            *("guess", "--number", "20", "--sources", "198.19.14.2", "--account", "bob"),
            *("--via", AIMED, *PATIENT),
        )

        until(lambda: guard.status()["unconfirmed"] == 40, "all attempts")
        assert guard.bans() == []
        watched = {(row["address"], row["standing"], row["proof"]) for row in guard.status()["watched"]}
        assert {("198.19.14.1", "unconfirmed", "claimed"), (str(FORGED), "unconfirmed", "claimed")} == watched


@pytest.mark.parametrize("via", [";rport", AIMED], ids=["honest", "aimed"])
@pytest.mark.parametrize(
    "options",
    [("--account", "bob"), ("--account", "nobody{}"), ("--account", "bob", "--method", "INVITE")],
    ids=["known", "unknown", "invite"],
)
def test_the_wire_shows_the_guesser_at_chan_sip(
    asterisk16: Lab, options: Sequence[str], via: str, request: pytest.FixtureRequest
) -> None:
    """With AMI and the wire only the sender is banned, whatever address its Via contains."""
    source = source_of(request)
    with shared(asterisk16, logs=NO_LOGS) as guard:
        result = attacked(asterisk16, guard, "--sources", source, *options, "--via", via)

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {source}, "the ban")
        active = alarms(guard)
        assert (("evidence.forged_by", source) in active) is (via == AIMED)
        assert [code for code, _ in active if is_about_setup(code)] == []


@pytest.mark.parametrize("account", ["bob", "nobody{}"])
def test_the_notices_stop_a_guesser_at_chan_sip_without_the_wire(
    asterisk16: Lab, account: str, request: pytest.FixtureRequest
) -> None:
    """Without the wire a notice is a claim, and causes a ban of UDP."""
    source = source_of(request)
    with shared(asterisk16, wire=NO_WIRE) as guard:
        result = asterisk16.attack(
            *("guess", *ENDLESS, "--sources", source, "--account", account, "--via", ";rport")
        )

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {source}, "the ban")


def test_without_the_wire_a_via_with_another_address_causes_no_ban_of_it(asterisk16: Lab) -> None:
    """AMI names a stranger and the log the sender: only the sender is banned."""
    with shared(asterisk16, wire=NO_WIRE) as guard:
        asterisk16.attack(
            *("guess", "--number", "50", "--sources", "198.19.14.8", "--account", "bob", "--via", AIMED)
        )
        until(lambda: guard.banned() != set(), "the ban")
        time.sleep(2 * PATIENCE)
        assert guard.banned() == {"198.19.14.8"}


@pytest.mark.parametrize(
    ("ami", "method"), [({"enabled": False}, "REGISTER"), ({"port": 1}, "INVITE")], ids=["off", "away"]
)
def test_with_the_log_alone_a_via_with_another_address_causes_no_ban_of_it(
    asterisk16: Lab, tmp_path: Path, ami: dict[str, object], method: str, request: pytest.FixtureRequest
) -> None:
    """The security lines name a stranger, and the notices the sender: only the sender may be banned."""
    source = source_of(request)
    with guarded(asterisk16, tmp_path, ami=ami, wire=NO_WIRE, listening=False) as guard:
        until(lambda: "listening" in guard.states().values(), "the log")
        asterisk16.attack(
            *("guess", "--number", "20", "--sources", source, "--account", "bob", "--method", method),
            *("--via", AIMED, *(PATIENT if method == "INVITE" else ("--timeout", "0.3", "--silences", "9"))),
        )
        until(lambda: guard.status()["attempts"] >= 5, "the attempts")
        time.sleep(2 * PATIENCE)

        assert guard.banned() == ({source} if method == "REGISTER" else set())


def test_an_escape_in_a_header_of_chan_sip_causes_no_ban(asterisk16: Lab, tmp_path: Path) -> None:
    """The log's line names a stranger, and the event does so by a Via: neither leads to a ban of it."""
    tail = rf";x=' failed for '{FORGED}:5060' - Usernam\x1b"
    with guarded(asterisk16, tmp_path, wire=NO_WIRE) as guard:
        asterisk16.attack(
            *("guess", "--number", "20", "--sources", "198.19.14.9", "--account", "bob"),
            *("--to-tail", tail, "--username", "another", "--via", AIMED, *PATIENT),
        )
        until(lambda: guard.status()["unconfirmed"] >= 20, "all attempts")

        assert guard.bans() == []
        assert {row["address"] for row in guard.status()["watched"]} == {str(FORGED)}


def test_the_log_continues_without_ami(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the manager interface, the security lines of the log stop a guesser as well."""
    with guarded(asterisk22, tmp_path, ami={"port": 1}, wire=NO_WIRE, listening=False) as guard:
        until(lambda: "listening" in guard.states().values(), "the log")
        result = attacked(asterisk22, guard, "--sources", "198.19.25.1")

        assert result.stopped == "silence"
        until(lambda: guard.banned() == {"198.19.25.1"}, "the ban")


def test_ami_may_go_and_come_back(asterisk22: Lab, tmp_path: Path) -> None:
    """While AMI is away the log counts, and attempts that both report count once."""
    lab, guess = asterisk22, ("guess", *PATIENT, "--sources", "198.19.25.7", "--number")
    with guarded(lab, tmp_path, wire=NO_WIRE) as guard:
        lab.attack(*guess, "2")
        until(lambda: guard.status()["attempts"] == 2, "two attempts")

        with closed(lab, MANAGER_PORT):
            sessions = lab.asterisk.cli("manager show connected")
            [descriptor] = re.findall(rf"(?m)^ *{MANAGER_USER} .* (\d+) +\d+ +\d+ +\d+ *$", sessions)
            lab.asterisk.cli(f"manager kick session {descriptor}")
            until(lambda: not guard.ami_is("listening"), "the end of AMI")
            lab.attack(*guess, "1")
            until(lambda: guard.status()["attempts"] == 3, "a third by the log")

        until(lambda: guard.ami_is("listening"), "AMI again", 40, pause=0.1)
        before = lines_read(guard)
        lab.attack(*guess, "1")
        until(lambda: lines_read(guard) >= before + 3, "the three lines of the log")
        assert (guard.status()["attempts"], guard.bans()) == (4, [])
        lab.attack(*guess, "1")
        until(lambda: guard.banned() == {"198.19.25.7"}, "the ban")


@contextmanager
def closed(lab: Lab, port: int) -> Iterator[None]:
    """Refuse TCP connections to a port of the PBX while the block runs."""
    rule = f"INPUT -p tcp --dport {port} -j REJECT --reject-with tcp-reset".split()
    lab.run("iptables", "-I", *rule)
    try:
        yield
    finally:
        lab.run("iptables", "-D", *rule)


def test_the_log_alone_guards(asterisk22: Lab, tmp_path: Path) -> None:
    """Without a manager user, the log and the wire stop a guesser, also one that the log does not show."""
    with guarded(asterisk22, tmp_path, ami={"enabled": False}) as guard:
        for source, call_id in (("198.19.25.5", "{}"), ("198.19.25.6", r"\xff{}")):
            result = attacked(asterisk22, guard, "--sources", source, "--call-id", call_id)
            assert result.stopped == "silence"

        until(lambda: guard.banned() == {"198.19.25.5", "198.19.25.6"}, "both bans")
        assert {name.partition(":")[0] for name in guard.states()} == {"pbx/log", "wire"}


def test_a_forgeable_notice_is_only_listed_without_the_wire(asterisk22: Lab, tmp_path: Path) -> None:
    """Without the wire a notice of PJSIP, which can be forged, lists a hidden guesser and causes no ban."""
    source = "198.19.25.3"
    with guarded(asterisk22, tmp_path, wire=NO_WIRE) as guard:
        asterisk22.attack("guess", "--number", "20", "--sources", source, "--call-id", r"\xff{}", *PATIENT)
        until(lambda: guard.status()["unconfirmed"] == 20, "the notices")

        watched = {(row["address"], row["standing"]) for row in guard.status()["watched"]}
        assert (watched, guard.bans()) == ({(source, "unconfirmed")}, [])


def test_check_finds_nothing_wrong(each_asterisk: Lab, tmp_path: Path) -> None:
    """`check` beside a working daemon finds nothing to fix and exits with 0."""
    with guarded(each_asterisk, tmp_path) as guard:
        guard.config.chmod(0o600)
        done = guard.command("check")

        assert (done.returncode, done.stderr) == (0, "")
        assert "NO" not in {line.split()[0] for line in done.stdout.strip().split("\n")}


def test_events_arrive_over_tls(asterisk22: Lab, tmp_path: Path) -> None:
    """Over TLS, with a check of the server's certificate, attempts arrive as over TCP."""
    ami = {"port": 5039, "tls": True, "tls_ca": str(asterisk22.asterisk.certificate)}
    with guarded(asterisk22, tmp_path, ami=ami) as guard:
        attacked(asterisk22, guard, "--sources", "198.19.21.1")

        until(lambda: guard.banned() == {"198.19.21.1"}, "the ban")


def test_a_wrong_secret_is_named_and_not_shown(asterisk22: Lab, tmp_path: Path) -> None:
    """A refused login is a state with the fix in its text; the secret is in no log and no report."""
    with guarded(asterisk22, tmp_path, ami={"secret": "not-this-one"}, listening=False) as guard:
        until(lambda: guard.ami_is("login refused"), "the refusal")

        status = guard.command("status", "--json").stdout
        assert "compare with manager.conf" in status
        assert "not-this-one" not in status + guard.log


def test_a_user_without_the_security_class_gets_no_events(asterisk22: Lab, tmp_path: Path) -> None:
    """A source without security events has the state `no events`, with the fix, within seconds."""
    user = "\n[deaf]\nsecret = abc\nread = system\npermit = 127.0.0.1/255.255.255.255\n"
    ami = {"username": "deaf", "secret": "abc"}
    with (
        asterisk22.manager_conf(user),
        guarded(asterisk22, tmp_path, ami=ami, listening=False) as guard,
    ):
        until(lambda: guard.ami_is("no events"), "the state", pause=0.1)

        assert "read = security,system" in guard.status()["sources"][0]["detail"]
        assert guard.command("check").returncode == 1
