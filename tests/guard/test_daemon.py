"""The daemon as a process: its messages to systemd, its reloads, its refusals, and what it leaves behind."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.amiserver import Fault, Script
from tests.support.asterisk import SECRET
from tests.support.captures import capture
from tests.support.daemon import GRANTED, Guard, ServedAmi, ami_server, until
from tests.support.netns import run
from tests.support.refused import WITHOUT_SOCK_DIAG

from ringfence import control
from ringfence.errors import DaemonUnreachableError

CLAIMED = capture("asterisk-22", "wrong-password-register").ami.read_bytes()  # 3 by 198.18.1.101
GUESSES = CLAIMED.replace(b"/UDP/", b"/TCP/")  # by TCP an address is proven
IPV6 = capture("asterisk-22", "wrong-password-register-ipv6").ami.read_bytes().replace(b"/UDP/", b"/TCP/")
FORGED = capture("asterisk-22", "user-carries-crlf-event")
THREE = {"guess": {"attempts": 3, "ban": ["1h", "6h"]}}


@pytest.fixture(name="pbx")
def _pbx() -> Iterator[ServedAmi]:
    """Return a PBX that sends the events of a test."""
    with ami_server() as pbx:
        yield pbx


def listening(guard: Guard, pbx: ServedAmi) -> None:
    """Wait until every source listens to its PBX, and the PBX has a client."""
    until(lambda: guard.source_is("listening"), "the source listens")
    until(lambda: pbx.server._listeners, "the PBX is listened to")


def sets() -> dict[str, int]:
    """Return the elements of the kernel's sets, with the seconds left."""
    scopes = ("", "-sip", "-64-", "-sip-64-")
    bans = tuple(f"add ringfence{scope}{version} " for scope in scopes for version in (4, 6))
    lines = (line.split() for line in run("ipset", "save").splitlines() if line.startswith(bans))
    return {words[2]: int(words[words.index("timeout") + 1]) for words in lines}


def refusal(guard: Guard) -> str:
    """Return the daemon's own alarm about a refused configuration, "" if there is none."""
    alarms = control.ask(tmp_socket(guard), "status")["alarms"]
    return "".join(alarm["text"] for alarm in alarms if alarm["code"] == "configuration.refused")


def ban(guard: Guard, *networks: str) -> None:
    """Ban networks by hand for ten minutes."""
    assert guard.ask("ban", networks=[*networks], seconds=600)["problems"] == []


def tmp_socket(guard: Guard) -> Path:
    """Return the path of the control socket of a guard's daemon."""
    return Path(guard.settings["control"]["socket"])


# -- life -------------------------------------------------------------------------------------------------


def test_systemd_is_notified(tmp_path: Path, pbx: ServedAmi) -> None:
    """The daemon sends READY, WATCHDOG repeatedly and STOPPING, exits with 0, and logs no secret."""
    with Guard(tmp_path, ami={"port": pbx.port}, environ={"WATCHDOG_USEC": "100000"}) as guard:
        until(lambda: guard.notified.count("WATCHDOG=1") >= 5, "the watchdog is fed")
        listening(guard, pbx)
        assert guard.stop() == 0

    told = [state for state in guard.notified if state != "WATCHDOG=1"]
    assert told == ["READY=1", "STOPPING=1"]
    assert guard.log.count("event=daemon.ready") == guard.log.count("event=daemon.stopped") == 1
    assert SECRET not in guard.log
    assert not (tmp_path / "control.sock").exists()


def test_the_start_does_not_wait_for_asterisk(tmp_path: Path) -> None:
    """READY does not wait for Asterisk, and the status reports the missing source; SIGINT ends that wait."""
    with Guard(tmp_path) as guard:
        until(lambda: guard.source_is("unreachable"), "the source is unreachable")
        [source] = guard.status()["sources"]
        guard.process.send_signal(signal.SIGINT)
        assert guard.wait() == 0

    assert source["name"] == "pbx/ami"
    assert source["detail"] == "127.0.0.1:1: Connection refused"


def test_a_daemon_that_ends_by_itself_is_a_failed_test(tmp_path: Path) -> None:
    """If a test does not expect the end, its bans cannot be listed, and the end of the block raises."""
    guard = Guard(tmp_path)
    guard.start()
    os.kill(guard.pid, signal.SIGKILL)
    until(lambda: not guard.running, "its end")
    with pytest.raises(DaemonUnreachableError):
        guard.bans()
    with pytest.raises(AssertionError, match="the daemon ended with -9"):
        guard.__exit__()


@pytest.fixture(name="guessed", scope="module")
def _guessed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guard, ServedAmi]]:
    """Return a daemon that bans after three guesses, and its PBX."""
    with (
        ami_server() as pbx,
        Guard(tmp_path_factory.mktemp("guessed"), ami={"port": pbx.port}, rules=THREE) as guard,
    ):
        listening(guard, pbx)
        yield guard, pbx


def test_attempts_become_a_ban(guessed: tuple[Guard, ServedAmi]) -> None:
    """Events of Asterisk become attempts, and enough attempts become a ban with its length and its count."""
    guard, pbx = guessed
    pbx.send(GUESSES)
    until(guard.bans, "a ban")
    [row] = guard.bans()
    status = guard.status()

    assert (row["address"], row["rule"], row["attempts"]) == ("198.18.1.101", "guess", 3)
    assert 3_590 <= row["timeout"] <= 3_600
    assert (status["attempts"], status["placed"], status["bans"], status["late"]) == (3, 1, 1, 0)
    assert "event=ban.placed address=198.18.1.101/32 seconds=3600 rule=guess attempts=3" in guard.log


def test_what_only_claims_to_be_somewhere_is_banned_for_less(guessed: tuple[Guard, ServedAmi]) -> None:
    """Guesses by UDP without proof ban their address from the SIP ports over UDP for ten minutes."""
    guard, pbx = guessed
    pbx.send(CLAIMED.replace(b"198.18.1.101", b"198.18.1.102"))
    until(lambda: "198.18.1.102" in guard.banned(), "a ban")
    [row] = [row for row in guard.bans() if row["address"] == "198.18.1.102"]

    assert (row["scope"], row["attempts"]) == ("sip-udp", 3)
    assert 590 <= row["timeout"] <= 600


def test_the_same_alarm_is_logged_once_a_minute(tmp_path: Path, pbx: ServedAmi) -> None:
    """An alarm about forged headers is logged once and counted every time, and the forger is banned."""
    with Guard(tmp_path, ami={"port": pbx.port}) as guard:
        listening(guard, pbx)
        pbx.send(FORGED.ami.read_bytes() * 3)
        until(lambda: guard.status()["tampered"] >= 2, "tampered events")

        assert guard.log.count("event=alarm.evidence.tampered") == 1
        assert "event=alarm.evidence.tampered subject=pbx/ami" in guard.log
        until(lambda: f"event=ban.placed address={FORGED.source}/32" in guard.log, "the forger's ban")


# -- the configuration ------------------------------------------------------------------------------------


def test_a_bad_configuration_starts_nothing(tmp_path: Path) -> None:
    """A bad configuration ends the start with exit code 2, names each problem's key, and creates nothing."""
    guard = Guard(tmp_path, firewall={"backend": "pf"}, ami={"port": 0}, colour=1)
    assert guard.ended() == 2

    assert guard.log.splitlines()[0] == f"{guard.config}:"
    assert sorted(guard.log.splitlines()[1:]) == [
        "  asterisk[0].ami.port: must be a whole number from 1 to 65535",
        "  colour: unknown key",
        '  firewall.backend: must be one of "auto", "ipset", "nftables", "memory"',
    ]
    assert guard.notified == []
    assert not (tmp_path / "ringfence.db").exists()


def test_sighup_takes_a_good_configuration(tmp_path: Path, pbx: ServedAmi) -> None:
    """SIGHUP applies rules, the allow list and PBXs at once, unbans allowed addresses, and names the rest."""
    with Guard(tmp_path, ami={"port": pbx.port}, rules=THREE) as guard, ami_server() as second:
        listening(guard, pbx)
        ban(guard, "203.0.113.1", "203.0.113.2")
        branch = {
            "name": "branch",
            "ami": {"port": second.port, "secret": SECRET},
            "logs": {"paths": []},
            "wire": {"enabled": False},
        }
        guard.configure(
            asterisk=[*guard.settings["asterisk"], branch],
            allow={"networks": ["203.0.113.1"]},
            rules={"guess": {"attempts": 2}},
            firewall={"backend": "auto"},
        )
        guard.reload()
        until(lambda: guard.banned() == {"203.0.113.2"}, "the friend is let in")
        until(lambda: len(guard.status()["sources"]) == 2, "a second source")
        listening(guard, second)
        pbx.send(GUESSES)
        until(lambda: guard.banned() == {"203.0.113.2", "198.18.1.101"}, "the new rule bans")
        status = guard.status()
        assert [row["attempts"] for row in guard.bans() if row["rule"] == "guess"] == [2]
        assert ("configuration.restart", "[firewall] backend") in {
            (alarm["code"], alarm["subject"]) for alarm in status["alarms"]
        }
        assert pbx.server.connections == 1

        guard.configure(asterisk=[branch], firewall={"backend": "memory"})
        guard.reload()
        until(lambda: [s["name"] for s in guard.status()["sources"]] == ["branch/ami"], "one source")
        until(lambda: not pbx.server._sessions, "the first PBX is let go")
        assert guard.stop() == 0


def test_sighup_refuses_a_bad_configuration(tmp_path: Path, pbx: ServedAmi) -> None:
    """SIGHUP refuses a bad file: log and status have its mistakes, and the old configuration stays active."""
    with Guard(tmp_path, ami={"port": pbx.port}, rules=THREE) as guard:
        listening(guard, pbx)
        guard.configure(rules={"guess": {"attempts": 0}})
        good = guard.settings | {"rules": THREE}
        line = "rules.guess.attempts: must be a whole number from 1 to 1000"
        told = guard.command("status")
        assert (told.returncode, line in told.stdout, line in told.stderr) == (0, False, True)
        guard.reload()
        until(lambda: line in refusal(guard), "the alarm is shown")
        told = guard.command("status")
        assert (told.returncode, line in told.stdout, told.stderr) == (0, True, "")
        pbx.send(GUESSES)
        until(lambda: "event=ban.placed address=198.18.1.101/32" in guard.log, "the old rule bans")
        assert guard.log.count("event=configuration.refused") == 1

        guard.configure(**good)
        guard.reload()
        until(lambda: not refusal(guard), "the alarm is gone")
        assert (guard.running, pbx.server.connections) == (True, 1)


def test_sighup_with_another_secret_logs_in_again(tmp_path: Path, pbx: ServedAmi) -> None:
    """A reload with a changed secret closes the old connection and logs in with the new secret."""
    with Guard(tmp_path, ami={"port": pbx.port}) as guard:
        listening(guard, pbx)
        guard.settings["asterisk"][0]["ami"]["secret"] = "wrong-now"
        guard.configure()
        guard.reload()
        until(lambda: guard.source_is("login refused"), "the new secret is used")

        assert "wrong-now" not in guard.log + json.dumps(guard.status())


def test_a_correction_at_the_pbx_needs_no_reload(tmp_path: Path) -> None:
    """If this host's own Asterisk refused the login, a corrected manager.conf counts within seconds."""
    with ami_server(Script(fault=Fault.REFUSES)) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.source_is("login refused"), "the refusal")
        pbx.server.script = Script(play=[GRANTED])
        listening(guard, pbx)


# -- two of them ------------------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_store_or_socket_refuses(tmp_path: Path) -> None:
    """A second daemon on a store or control socket in use exits with 1 and the reason; the first goes on."""
    for name in ("store", "socket"):
        (tmp_path / name).mkdir()
    with Guard(tmp_path) as first:
        second = Guard(tmp_path / "store", store={"path": str(tmp_path / "ringfence.db")})
        assert second.ended() == 1
        mend = "stop it first: systemctl stop ringfence"
        assert second.log == f"another ringfence is using {tmp_path / 'ringfence.db'}; {mend}\n"
        assert first.bans() == []

        second = Guard(tmp_path / "socket", control={"socket": str(tmp_path / "control.sock")})
        assert second.ended() == 1
        assert f"another daemon answers at {tmp_path / 'control.sock'}" in second.log
        assert first.bans() == []


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_second_daemon_on_the_same_sets_refuses(tmp_path: Path) -> None:
    """With two stores in one network namespace, the second daemon exits with 1, and the first's bans stay."""
    (tmp_path / "second").mkdir()
    with Guard(tmp_path, firewall={"backend": "ipset"}) as first:
        ban(first, "192.0.2.1")
        second = Guard(tmp_path / "second", firewall={"backend": "ipset"})
        assert second.ended() == 1

        assert second.log.splitlines()[-1].startswith("another ringfence guards this network namespace")
        assert set(sets()) == {"192.0.2.1"}


# -- the kernel -------------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("end", ["kill", pytest.param("stop", marks=pytest.mark.long)])
def test_bans_survive_the_daemon(tmp_path: Path, pbx: ServedAmi, end: str) -> None:
    """After a stop or a kill the sets keep their elements, and the next start takes them over unchanged."""
    with Guard(tmp_path, firewall={"backend": "auto"}, ami={"port": pbx.port}, rules=THREE) as guard:
        listening(guard, pbx)
        pbx.send(GUESSES + IPV6)
        until(lambda: len(guard.bans()) == 2, "two bans")
        firewall = guard.status()["firewall"]
        assert (firewall["backend"], firewall["why"]) == ("ipset", "it has everything it needs")
        assert (firewall["enforcing"], firewall["verified"]) == (True, True)
        assert firewall["families"] == {"4": "guarded", "6": "guarded"}
        before = guard.bans()
        getattr(guard, end)()
        left = sets()
        assert set(left) == {"198.18.1.101", "fd00:18::/64"}
        assert "ringfence4" in run("iptables-save", "-t", "raw")
        run("ipset", "add", "ringfence4", "203.0.113.7", "timeout", "500")

        guard.start()
        rows = {row["address"]: row for row in guard.bans()}
        assert "kept=2 put_back=0 adopted=1" in guard.log
        assert rows["203.0.113.7"]["rule"] == "adopted"
        for row in before:
            again = rows[row["address"]]
            assert (again["since"], again["rule"], again["attempts"]) == (row["since"], "guess", 3)
            assert again["timeout"] <= row["timeout"]
        listening(guard, pbx)
        pbx.send(GUESSES)
        until(lambda: guard.status()["late"] >= 1, "what comes late is late")
        assert guard.status()["placed"] == 0


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("backend", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_a_bogon_filter_does_not_end_the_guard(tmp_path: Path, backend: str) -> None:
    """If a foreign rule drops the probe's packets first, the daemon runs, and `status` reports it."""
    run("nft", "add table ip6 bogons")
    run("nft", "add chain ip6 bogons pre { type filter hook prerouting priority -310; }")
    run("nft", "add rule ip6 bogons pre ip6 saddr 2001:db8::/32 drop")
    why = "not tried: another rule drops it first (from 2001:db8:5246::1)"
    with Guard(tmp_path, firewall={"backend": backend}) as guard:
        firewall = guard.status()["firewall"]
        shown = guard.command("status").stdout

        assert (firewall["enforcing"], firewall["verified"]) == (True, True)
        assert {"version": 6, "direction": "from", "why": why} in firewall["untried"]
        assert f"probe     IPv6 from banned addresses: {why}" in shown.splitlines()
        assert "event=probe.untried" in guard.log


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_reboot_brings_the_bans_back(tmp_path: Path) -> None:
    """A stop leaves the bans; those that the kernel lost in a reboot return for their remaining time."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        ban(guard, "192.0.2.1", "2001:db8::/64", "198.51.100.0/24")
        assert guard.stop() == 0
        assert set(sets()) == {"192.0.2.1", "2001:db8::/64", "198.51.100.0/24"}
        run("iptables", "-t", "raw", "-F")
        run("ip6tables", "-t", "raw", "-F")
        run("ipset", "flush")
        guard.start()

        assert set(sets()) == {"192.0.2.1", "2001:db8::/64", "198.51.100.0/24"}
        assert all(500 < left <= 600 for left in sets().values())
        assert guard.status()["firewall"]["verified"] is True


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_firewall_that_cannot_be_tried_is_named_and_guards(tmp_path: Path) -> None:
    """If no test packet can pass even without a ban, the guard starts and names the missing tests."""
    run("ip", "link", "set", "lo", "down")
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        until(lambda: "probe.untried" in guard.log, "what is not tried")
        assert guard.notified


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("lack", ["net_admin", "net_raw"])
def test_what_is_missing_is_named_before_anything_is_changed(tmp_path: Path, lack: str) -> None:
    """Without a capability the daemon exits with 1, names the missing capability, and leaves no set."""
    without = ["setpriv", f"--bounding-set=-{lack}"]
    guard = Guard(tmp_path, firewall={"backend": "ipset"}, prefix=without)
    assert guard.ended() == 1

    assert f"CAP_{lack.upper()}" in guard.log
    assert len(guard.log.splitlines()) == 1
    assert guard.notified == []
    assert run("ipset", "list", "-name") == ""


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_missing_reports_of_closed_connections_are_an_alarm(tmp_path: Path) -> None:
    """Without reports of closed connections, `status` has an alarm that names the fix; with them, none."""
    with Guard(tmp_path, firewall={"backend": "ipset"}, prefix=WITHOUT_SOCK_DIAG) as guard:
        [text] = [alarm["text"] for alarm in guard.status()["alarms"] if alarm["subject"] == "connections"]
        assert "; fix: `modprobe inet_diag tcp_diag`" in text
        assert guard.running
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        assert "closed TCP" not in str(guard.status())


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_hosts_own_addresses_are_never_banned(tmp_path: Path) -> None:
    """The host's own address cannot be banned; an address that becomes its own is unbanned at once."""
    run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        refused = guard.command("ban", "192.0.2.1")
        why = "192.0.2.1: is never banned: an address of this host; --force bans it anyway\n"
        assert (refused.returncode, refused.stderr) == (1, why)
        ban(guard, "192.0.2.2", "192.0.2.3")
        run("ip", "address", "add", "192.0.2.2/32", "dev", "lo")
        until(lambda: set(sets()) == {"192.0.2.3"}, "the own address is let in")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_off_outlasts_the_daemon(tmp_path: Path) -> None:
    """After `off`, a restart changes nothing; `on` restores bans that have time left."""
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        ban(guard, "192.0.2.1")
        guard.ask("off")
        assert run("ipset", "list", "-name") == ""
        guard.stop()
        guard.start()
        assert run("ipset", "list", "-name") == ""
        assert guard.status()["firewall"]["enforcing"] is False
        guard.ask("on")
        assert set(sets()) == {"192.0.2.1"}


def test_a_pbx_that_talks_nonsense_ends_nothing(tmp_path: Path) -> None:
    """Random bytes from a PBX are counted, and the daemon continues."""
    noise = [GRANTED, bytes(range(256)) * 4_096, b"\r\n\r\n", GUESSES]
    with ami_server(Script(play=noise)) as pbx, Guard(tmp_path, ami={"port": pbx.port}) as guard:
        until(lambda: guard.status()["attempts"] == 3, "what follows is heard")
        assert guard.source_is("listening")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_dry_run_drops_nothing_of_before(tmp_path: Path) -> None:
    """A change to the memory backend removes all rules; beside a running daemon, a dry run removes none."""
    (tmp_path / "second").mkdir()
    with Guard(tmp_path, firewall={"backend": "ipset"}) as guard:
        ban(guard, "192.0.2.1")
        with Guard(tmp_path / "second"):
            assert set(sets()) == {"192.0.2.1"}
        guard.stop()
        guard.configure(firewall={"backend": "memory"})
        guard.start()

        assert run("ipset", "list", "-name") == ""
        assert guard.banned() == {"192.0.2.1"}
