"""A trial: what ends it, how it is confirmed, and that its end needs no daemon."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.copies import copy_without
from tests.support.daemon import Guard, until
from tests.support.netns import run

from ringfence.features.trial import guard as trial
from ringfence.guard import trial_end
from ringfence.store.database import Store

LASTS = 10
"""Seconds of a trial, in which a busy machine also runs a few commands."""
SHORT = f"{LASTS}s"
ADDRESS = "198.51.100.7"


def in_kernel() -> str:
    """Return everything of ringfence in the kernel's firewall."""
    return run("ipset", "list", "-n") + run("iptables-save") + run("nft", "list", "tables")


def is_gone() -> bool:
    """Whether the kernel has nothing of ringfence."""
    return "ringfence" not in in_kernel()


@pytest.fixture(params=["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def guard(request: pytest.FixtureRequest, netns: None, tmp_path: Path) -> Iterator[Guard]:
    """A daemon with each firewall, in its own namespace, which is not started yet."""
    with ExitStack() as stack:
        guard = Guard(tmp_path, firewall={"backend": request.param})
        stack.push(guard.__exit__)
        yield guard


def begin(guard: Guard, length: str = SHORT) -> None:
    """Start the daemon with a trial, and ban an address."""
    guard.start("--trial", length)
    assert guard.ask("ban", networks=[ADDRESS], seconds=3_600)["problems"] == []
    assert not is_gone()


@pytest.mark.kernel
def test_a_trial_ends_by_itself_and_stays_off(guard: Guard) -> None:
    """An unconfirmed trial removes every rule and set in time; status shows it, and a new start stays off."""
    begin(guard)
    [text] = [alarm["text"] for alarm in guard.status()["alarms"] if alarm["code"] == "trial.running"]
    until(lambda: "trial.ended" in guard.log, "word of it")
    until(is_gone, "the end of the trial", pause=1.0)

    assert "unless: ringfence confirm" in text
    guard.stop()
    guard.start()
    assert guard.status()["firewall"]["enforcing"] is False
    assert is_gone()
    guard.ask("on")
    assert guard.banned() == {ADDRESS}
    guard.ask("off")


@pytest.mark.kernel
def test_the_trial_of_a_fence_ends_although_the_daemon_was_killed(netns: None, tmp_path: Path) -> None:
    """Without a daemon, the fence and everything else is removed; the next start puts back the bans."""
    with Guard(tmp_path, firewall={"backend": "nftables"}, fence={"mode": "enforce"}) as guard:
        assert guard.ask("ban", networks=[ADDRESS], seconds=3_600)["problems"] == []
        done = guard.command("fence", "enforce", "--force", "--for", "3s")
        assert done.returncode == 0, done.stderr
        guard.kill()
        assert not is_gone()
        until(is_gone, "the end of the trial", pause=1.0)
        guard.start()
        assert guard.banned() == {ADDRESS}
        assert guard.ask("fence")["trial"] is None
        guard.ask("off")


@pytest.mark.kernel
def test_a_trial_ends_although_the_daemon_was_killed(guard: Guard) -> None:
    """A trial ends in time and removes every rule and set, even after kill -9 and without a restart."""
    begin(guard)
    guard.kill()
    assert not is_gone()
    until(is_gone, "the end of the trial", pause=1.0)

    with Store.open(guard.folder / "ringfence.db", owner=False) as store:
        until(lambda: trial.until(store.state) is None, "the end of its memory")
        assert store.state.switched_off() is True


@pytest.mark.kernel
def test_a_confirmed_trial_removes_nothing(guard: Guard) -> None:
    """After a confirmation, neither the daemon nor the process that ends trials removes anything."""
    begin(guard)
    said = [(done.stdout, done.returncode) for done in (guard.command("confirm") for _ in range(2))]
    time.sleep(LASTS + trial_end.GRACE + 1)

    assert said == [
        ("confirmed: rules and bans stay in place\n", 0),
        ("no trial is running: nothing to confirm\n", 1),
    ]
    assert guard.banned() == {ADDRESS}
    guard.ask("off")


@pytest.mark.kernel
def test_stopping_a_trial_ends_it(guard: Guard) -> None:
    """A stop during a trial removes everything; a daemon without a trial leaves the bans."""
    begin(guard, "1m")  # the process that ends trials waits as long
    guard.stop()

    assert is_gone()


def test_a_trial_is_confirmed_without_a_daemon(tmp_path: Path) -> None:
    """While the daemon is down, `confirm` writes to the database."""
    guard = Guard(tmp_path)
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        trial.begin(store.state, 4e9)
        done = guard.command("confirm")

        assert (done.returncode, done.stdout) == (0, "confirmed: rules and bans stay in place\n")
        assert trial.until(store.state) is None


def test_a_mistake_in_the_configuration_prevents_no_confirmation(tmp_path: Path) -> None:
    """A daemon that runs gets the request nevertheless, and the mistake is printed."""
    with Guard(tmp_path) as guard:
        guard.configure(colour=1)
        done = guard.command("confirm")

    assert (done.returncode, done.stdout) == (1, "no trial is running: nothing to confirm\n")
    assert "colour: unknown key" in done.stderr


def test_restore_puts_nothing_in_place_during_a_trial(tmp_path: Path) -> None:
    """At boot, `restore` puts back nothing of an unconfirmed trial, and prints the reason."""
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        trial.begin(store.state, time.time() + 60)
    done = Guard(tmp_path).command("restore")

    assert (done.returncode, done.stdout) == (0, "a trial was not confirmed: nothing was put in place\n")


@pytest.mark.usefixtures("cold")
def test_a_copy_without_the_feature_refuses_a_trial(tmp_path: Path) -> None:
    """`run --trial` starts nothing if nothing would end the trial."""
    copied = {"PYTHONPATH": str(copy_without(["trial"], tmp_path))}
    done = Guard(tmp_path, environ=copied).command("run", "--trial", "15m")

    assert done.returncode == 2
    assert "No such option: --trial" in done.stderr


def test_a_length_that_is_none_is_refused(tmp_path: Path) -> None:
    """`run --trial soon` is a usage error, and nothing is started."""
    done = Guard(tmp_path).command("run", "--trial", "soon")

    assert done.returncode == 2
    assert "--trial must be a duration" in done.stderr


def test_the_other_process_ends_only_its_own_trial(tmp_path: Path) -> None:
    """The process that ends trials leaves a trial alone that was confirmed or replaced by another one."""
    guard = Guard(tmp_path)
    end = time.time() - trial_end.GRACE
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        trial.begin(store.state, end + 3_600)
        assert trial_end.main(trial.__name__, str(guard.config), repr(end)) == 0
        assert trial.until(store.state) == end + 3_600
        assert store.state.switched_off() is False


def test_the_other_process_loads_its_code_before_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade may replace the files while it waits; a defect at the end of the trial reaches the log."""
    guard, end = Guard(tmp_path), time.time() + 60.0
    logged: list[str] = []
    monkeypatch.setattr("syslog.syslog", lambda _priority, text: logged.append(text))
    loaded: list[bool] = []

    def wait(_: float) -> None:
        loaded.append("later_trial" in sys.modules)
        monkeypatch.setattr("time.time", lambda: end + 2 * trial_end.GRACE)

    (tmp_path / "later_trial.py").write_text("def end(store, until):\n    1 / 0\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Store.open(tmp_path / "ringfence.db", owner=False):
        assert trial_end.main("later_trial", str(guard.config), repr(end), sleep=wait) == 1
    assert loaded == [True]
    assert logged == ["the trial's end: division by zero"]


def test_the_other_process_is_detached(tmp_path: Path) -> None:
    """It has its own session, so the terminal's Ctrl-C does not reach it, and no file of its caller.

    Otherwise `fence enforce | cat`, ssh and Ansible would wait until the trial ends.
    """
    guard = Guard(tmp_path)
    before = subprocess.run(["pgrep", "-f", str(guard.config)], capture_output=True, text=True, check=False)
    with Store.open(tmp_path / "ringfence.db", owner=False):
        trial_end.start_trial_end(trial.__name__, guard.config, time.time() + 10 - trial_end.GRACE)
    after = subprocess.run(["pgrep", "-f", str(guard.config)], capture_output=True, text=True, check=True)
    [pid] = set(after.stdout.split()) - set(before.stdout.split())
    until(lambda: os.getsid(int(pid)) == int(pid), "its own session")
    files = {Path(f"/proc/{pid}/fd/{number}").readlink() for number in range(3)}
    assert files == {Path(os.devnull)}
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or _is_dead(pid), "its end", seconds=60)


def _is_dead(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
