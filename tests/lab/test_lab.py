"""The laboratory itself: its counts agree with Asterisk's, so that the numbers of other tests are right."""

import os
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.support.contention import contention
from tests.support.lab import Lab
from tests.support.network import socket_in, sweep
from tests.support.sip import expand

pytestmark = pytest.mark.asterisk

CAROL = """
[carol]
type = endpoint
auth = carol
aors = carol
[carol]
type = auth
auth_type = userpass
username = carol
password = correct-horse
[carol]
type = aor
max_contacts = 1
"""
PATIENT = ("--timeout", "20")
PJSIP_IPV6 = ("--target", "[fd00:18::1]:5060")


def test_the_releases_are_the_documented_ones(asterisk16: Lab, asterisk22: Lab) -> None:
    """One Asterisk has chan_sip, the other one is Debian's newest."""
    assert asterisk16.asterisk.version.startswith("Asterisk 16.")
    assert int(asterisk22.asterisk.version.split()[1].split(".")[0]) >= 22
    assert "chan_sip.so" in asterisk16.asterisk.cli("module show like chan_sip")


def test_the_process_is_asterisk_itself(each_asterisk: Lab) -> None:
    """The CPU time of the process id is that of Asterisk."""
    before = each_asterisk.asterisk.cpu_seconds()

    each_asterisk.attack("guess", "--number", "200", "--account", "nobody{}")

    assert Path("/proc", str(each_asterisk.asterisk.pid), "comm").read_text("ascii") == "asterisk\n"
    assert each_asterisk.asterisk.cpu_seconds() > before


def test_pjsip_reports_a_wrong_guess(asterisk22: Lab) -> None:
    """A guess on a known account causes events of a challenge and a failed response, with its address."""
    with asterisk22.listen() as listener:
        result = asterisk22.attack("guess", "--sources", "198.18.1.20")
        received = listener.read(b"Event: ChallengeResponseFailed")

    assert (result.sent, result.answered, result.statuses) == (1, 1, {"401": 1})
    assert received.count(b"Event: ChallengeSent") == 1
    assert b"AccountID: alice\r\n" in received
    assert b"RemoteAddress: IPV4/UDP/198.18.1.20/" in received


def test_chan_sip_reports_a_wrong_guess(asterisk16: Lab) -> None:
    """A guess on a known peer causes events of a challenge and an invalid password, with its address."""
    with asterisk16.listen() as listener:
        result = asterisk16.attack("guess", "--account", "bob", "--sources", "198.18.1.20")
        received = listener.read(b"Event: InvalidPassword")

    assert (result.sent, result.answered, result.statuses) == (1, 1, {"403": 1})
    assert received.count(b"Event: ChallengeSent") == 1
    assert b"RemoteAddress: IPV4/UDP/198.18.1.20/" in received


def test_a_via_parameter_forges_the_address_under_chan_sip(asterisk16: Lab) -> None:
    """Via ``maddr`` puts a stranger's address into the event, while the sender gets the answers."""
    with asterisk16.listen() as listener:
        result = asterisk16.attack("guess", "--account", "bob", "--via", ";rport;maddr=203.0.113.9")
        received = listener.read(b"Event: InvalidPassword")

    assert result.answered == 1
    assert b"RemoteAddress: IPV4/UDP/203.0.113.9/" in received


def test_a_byte_that_is_not_utf8_silences_the_events(asterisk22: Lab) -> None:
    """A raw byte in the Call-ID hides a guess from AMI: the client can send it and gets an answer."""
    with asterisk22.listen() as listener:
        hidden = asterisk22.attack("guess", "--call-id", r"a\xff{}", "--account", "hidden{}")
        asterisk22.attack("guess", "--account", "alice")
        received = listener.read(b"Event: ChallengeResponseFailed")

    assert hidden.answered == 1
    assert b"hidden1" not in received


@pytest.mark.parametrize("account", ["alice", "bob"])
def test_a_phone_registers(asterisk16: Lab, asterisk22: Lab, account: str) -> None:
    """The right password is answered with 200, by PJSIP and by chan_sip."""
    lab = asterisk22 if account == "alice" else asterisk16

    assert lab.attack("register", "--account", account, "--sources", "198.18.1.30").statuses == {"200": 1}


def test_every_guess_is_answered_without_a_guard(each_asterisk: Lab) -> None:
    """Without a guard all guesses are answered, and the client is fast enough to measure a ban."""
    account = "bob" if each_asterisk.asterisk.version.startswith("Asterisk 16.") else "alice"

    with contention() as busy:
        result = each_asterisk.attack("guess", "--number", "1000", "--account", account, *PATIENT)

    assert (result.sent, result.answered, result.stopped) == (1000, 1000, "number")
    assert result.per_second > 300 or busy.share > 0.3


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_ipv6_and_tcp_are_answered(asterisk22: Lab, transport: str) -> None:
    """The client guesses over IPv6 and over TCP, where one connection has every guess."""
    with asterisk22.listen() as listener:
        result = asterisk22.attack("guess", "--number", "20", "--transport", transport, *PJSIP_IPV6, *PATIENT)
        received = listener.read(b"Event: ChallengeResponseFailed", count=20)

    assert (result.sent, result.answered) == (20, 20)
    assert received.count(f"RemoteAddress: IPV6/{transport}/fd00:18::a/".encode()) >= 40


@pytest.mark.parametrize(
    ("sources", "target"),
    [("198.19.0.1-198.19.0.200", ()), ("fd00:19::1-fd00:19::c8", PJSIP_IPV6)],
)
def test_routed_sources_are_answered(asterisk22: Lab, sources: str, target: tuple[str, ...]) -> None:
    """Two hundred addresses behind the attacker's router guess, each with its own requests."""
    result = asterisk22.attack(
        "guess", "--number", "2", "--sources", sources, "--parallel", "20", *target, *PATIENT
    )

    assert dict.fromkeys(expand(sources), 2) == result.by_source


def test_pipelined_guesses_are_counted_one_by_one(asterisk22: Lab) -> None:
    """For guesses sent without waiting, the client counts as many answers as Asterisk reports failures."""
    with asterisk22.listen() as listener:
        result = asterisk22.attack("pipeline", "--number", "2000", "--window", "100", *PATIENT)
        received = listener.read(b"Event: ChallengeResponseFailed", count=2000)

    assert (result.sent, result.answered) == (2000, 2000)
    assert received.count(b"Event: ChallengeResponseFailed") == 2000


def test_ami_speaks_tls(each_asterisk: Lab) -> None:
    """AMI answers over TLS, with a certificate that is valid for 127.0.0.1."""
    context = ssl.create_default_context(cafile=each_asterisk.asterisk.certificate)
    with socket_in(each_asterisk.network.pbx) as plain:
        plain.connect(("127.0.0.1", 5039))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            assert secure.recv(64).startswith(b"Asterisk Call Manager/")


@pytest.mark.parametrize(
    ("tool", "source", "target"),
    [("iptables", "198.19.9.9", ()), ("ip6tables", "fd00:19::9", PJSIP_IPV6)],
)
def test_a_banned_source_is_seen_as_banned(
    asterisk22: Lab, tool: str, source: str, target: tuple[str, ...]
) -> None:
    """A rule in the PBX's namespace stops the client; the guesses before the rule are answered."""
    rule = ("-t", "raw", "PREROUTING", "-s", source, "-j", "DROP")
    with asterisk22.listen() as listener:
        attack = asterisk22.start_attack(
            "guess", "--number", "5000", "--pause", "0.01", "--sources", source, *target
        )
        listener.read(b"Event: ChallengeResponseFailed", count=2, seconds=60)
    asterisk22.run(tool, rule[0], rule[1], "-I", *rule[2:])
    try:
        stopped = attack.result()
    finally:
        asterisk22.run(tool, rule[0], rule[1], "-D", *rule[2:])
    again = asterisk22.attack("guess", "--number", "3", "--sources", source, *target, *PATIENT)

    assert stopped.stopped == "silence"
    assert 0 < stopped.answered < 5000
    assert (again.answered, again.stopped) == (3, "number")


def test_a_silent_pbx_stops_the_client(asterisk22: Lab) -> None:
    """If no answer comes, the client stops at the second silence and has counted nothing."""
    result = asterisk22.attack("guess", "--number", "50", "--target", "198.18.0.1:5999", "--timeout", "0.1")

    assert (result.sent, result.answered, result.challenges_sent, result.stopped) == (0, 0, 2, "silence")


def test_two_instances_share_a_tree_and_leave_nothing(asterisk22: Lab) -> None:
    """A second Asterisk runs from the same tree, also after a crash; afterwards nothing of it is left."""
    with Lab.made("22", extra={"pjsip.conf": CAROL}) as second:
        folder, network, first = second.asterisk.folder, second.network, second.asterisk.pid
        second.asterisk.kill()
        second.asterisk.start()
        assert second.asterisk.pid != first
        assert second.attack("register", "--account", "carol").statuses == {"200": 1}
        assert asterisk22.attack("register").statuses == {"200": 1}

    assert not folder.exists()
    assert (
        network.pbx not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    )
    assert str(folder) not in Path("/proc/self/mounts").read_text("utf-8")


def test_a_killed_run_is_swept_up() -> None:
    """A namespace whose test run has ended is removed; one whose run is active stays."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, alive = f"rf-{gone.pid}-1-pbx", f"rf-{os.getpid()}-99999-pbx"
    for name in (dead, alive):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        sweep()

        left = {entry.name for entry in Path("/run/netns").iterdir()}
        assert alive in left
        assert dead not in left
    finally:
        subprocess.run(["ip", "netns", "delete", alive], check=True)
