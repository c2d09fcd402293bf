"""``ringfence fence``, with the daemon up."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import Guard, ami_server, until
from tests.support.netns import run


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    """Yield a running daemon with a fence that shall enforce."""
    with Guard(tmp_path, fence={"mode": "enforce", "networks": ["198.51.100.0/24"]}) as made:
        until(lambda: "observe" in made.command("fence", "status").stdout, "the fence observes")
        yield made
        # The process that would end the trial in an hour.
        subprocess.run(["pkill", "-f", f"trial_end .* {made.config} "], check=False)


def test_the_life_of_a_fence(guard: Guard) -> None:
    """It is refused before a day, starts by force as a trial, and stays if it is confirmed."""
    refused = guard.command("fence", "enforce")
    assert refused.returncode == 1
    assert "must for a day" in refused.stderr
    confirmed = guard.command("fence", "confirm")
    assert (confirmed.returncode, "nothing to confirm" in confirmed.stdout) == (1, True)

    started = guard.command("fence", "enforce", "--force", "--for", "1h")
    assert started.returncode == 0
    said = " ".join(started.stdout.split())
    assert re.search(r" until [-\d]+ [:\d]+ UTC; to keep it: ringfence fence confirm", said), said
    status = " ".join(guard.command("fence", "status").stdout.split())
    assert ", 1h left; to keep it: ringfence fence confirm" in status
    assert "to keep it: ringfence fence confirm" in status
    assert "confirmed: the fence stays" in guard.command("fence", "confirm").stdout
    status = json.loads(guard.command("fence", "status", "--json").stdout)
    assert (status["confirmed"], status["trial"], status["networks"]) == (True, None, 1)


def test_a_person_is_admitted(guard: Guard) -> None:
    """An address is admitted until its time, and `status` shows it; a country is refused."""
    done = guard.command("fence", "admit", "192.0.2.7", "--for", "8h")
    assert re.fullmatch(r"192\.0\.2\.7 is admitted until [-\d]+ [:\d]+ UTC\n", done.stdout), done.stdout
    assert "admitted  192.0.2.7 until" in guard.command("fence", "status").stdout
    refused = guard.command("fence", "admit", "AS64496")
    assert refused.returncode == 1
    assert "name it in [fence]" in refused.stderr


def test_without_a_fence_nothing_starts(tmp_path: Path) -> None:
    """Without a fence in the configuration, `status` shows it, and `enforce` names the fix."""
    with Guard(tmp_path) as made:
        assert "mode      off" in made.command("fence", "status").stdout
        assert 'mode = "enforce"' in made.command("fence", "enforce").stderr


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_an_unban_without_the_daemon_starts_no_fence(tmp_path: Path) -> None:
    """The rest of a network needs new rules; a fence that was never started still drops nothing in them."""
    fence = {"mode": "enforce", "networks": ["198.51.100.0/24"]}
    with Guard(tmp_path, fence=fence, firewall={"backend": "nftables"}) as guard:
        until(lambda: guard.ask("fence")["mode"] == "observe", "the fence observes")
        guard.must("ban", "203.0.113.0/24")
        before = run("nft", "list", "table", "inet", "ringfence")
        guard.kill()
        guard.must("unban", "203.0.113.1")
        after = run("nft", "list", "table", "inet", "ringfence")
        fenced = run("nft", "list", "chain", "inet", "ringfence", "fence4")

    assert "203.0.113.128" not in before
    assert "203.0.113.128" in after
    assert "drop" not in fenced


def rules() -> list[str]:
    """Return the rules of both backends, without counters and banned networks."""
    saved = (run("iptables-save") + run("ip6tables-save")).splitlines()
    nftables = run("nft", "-s", "-t", "list", "ruleset").splitlines()
    return [*nftables, *(line for line in saved if line.startswith("-A"))]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
def test_an_unban_without_the_daemon_opens_no_fence(tmp_path: Path, backend: str) -> None:
    """No rule changes, so a confirmed fence still drops packets; the rest of a network only adds rules."""
    fence = {"mode": "enforce", "networks": ["198.51.100.0/24"]}
    with ami_server() as pbx:
        made = Guard(tmp_path, ami={"port": pbx.port}, fence=fence, firewall={"backend": backend})
        with made as guard:
            until(lambda: not guard.status()["limiter_waits"], "the friends are known")
            guard.ask("fence_enforce", seconds=3_600.0, force=True)
            assert guard.ask("fence_confirm") is True
            until(lambda: guard.ask("fence")["mode"] == "enforce", "the fence")
            guard.must("ban", "192.0.2.1", "203.0.113.0/24")
            guard.kill()
            before = rules()
            guard.must("unban", "192.0.2.1")
            assert rules() == before
            guard.must("unban", "203.0.113.1")
            assert set(before) <= set(rules())
            assert "203.0.113.128/25" in guard.banned()
