"""``ringfence feeds``, with the daemon up and down."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.fetch.server import Reply, publisher
from tests.support.daemon import Guard, until

LINES = "198.51.100.0/24\n10.0.0.1\n"


def guard_with(folder: Path, text: str = LINES) -> Guard:
    """Return a daemon's configuration with one feed, whose file has ``text``."""
    path = folder / "list.txt"
    path.write_text(text)
    os.utime(path, (1, 1))
    return Guard(folder, feeds=[{"name": "office", "file": str(path)}])


def test_the_whole_life_of_a_feed(tmp_path: Path) -> None:
    """The daemon denies what the file lists; `list`, `why` and `bans` name the feed; a reload removes it."""
    with guard_with(tmp_path) as guard:
        until(lambda: "in force" in guard.command("feeds", "list").stdout, "the feed is taken over")
        listed = guard.command("feeds", "list", "--json")
        [row] = json.loads(listed.stdout)
        assert (row["name"], row["networks"], row["left_out_named"]) == ("office", 1, ["10.0.0.1 (local)"])
        shown = guard.command("feeds", "refresh")
        assert re.search(r"office +in force +1 +1", shown.stdout)
        assert shown.stderr == "office leaves out: 10.0.0.1 (local)\n"
        status = guard.command("status").stdout
        assert re.search(
            r"(?m)^feed      office: in force, 1 network \(1 left out\), checked 1970-01-01", status
        )
        why = guard.command("why", "198.51.100.9").stdout
        assert "the feed office contains 198.51.100.0/24" in " ".join(why.split())
        assert "198.51.100.9 is denied by the feed office" in guard.command("bans", "198.51.100.9").stderr
        assert "Feeds deny 1 more networks: office" in guard.command("bans").stderr
        assert guard.command("feeds", "remove", "office").returncode == 0
        until(lambda: "There is no feed" in guard.command("feeds", "list").stdout, "the feed is removed")

    assert "feeds" not in guard.config.read_text()


def test_without_the_daemon_the_last_lists_are_shown(tmp_path: Path) -> None:
    """The list and `why` come from the daemon's copies."""
    guard = guard_with(tmp_path)
    with guard:
        until(lambda: "in force" in guard.command("feeds", "list").stdout, "the feed is taken over")

    done = guard.command("feeds", "list")

    assert re.search(r"office +in force +1 +1", done.stdout)
    assert "The daemon is not running" in done.stderr
    assert "feed office" in " ".join(guard.command("why", "198.51.100.9").stdout.split())
    [kept] = (tmp_path / "feeds").iterdir()
    before = kept.stat()
    (tmp_path / "list.txt").write_text("198.51.100.0/24\n203.0.113.1\n")
    os.utime(tmp_path / "list.txt", (2, 2))
    guard.command("allow", "add", "203.0.113.9")
    assert kept.stat() == before  # another user than the daemon's takes over no list


def test_a_known_feed_is_added_with_its_terms(tmp_path: Path) -> None:
    """The configuration gets the table of a known feed once; other names are refused."""
    guard = guard_with(tmp_path)

    done = guard.command("feeds", "add", "blocklist-de-sip")

    assert (done.returncode, done.stdout) == (
        3,
        "blocklist-de-sip: Terms of blocklist.de; ask at most every 30 minutes.\n",
    )
    assert "https://lists.blocklist.de/lists/sip.txt" in guard.config.read_text()
    assert "is already in" in guard.command("feeds", "add", "blocklist-de-sip").stderr
    assert "no feed is known by this name" in guard.command("feeds", "add", "x").stderr
    assert "has no feed x" in guard.command("feeds", "remove", "x").stderr
    assert "Terms of apiban.org" in guard.command("feeds", "add").stdout


def test_the_plan_of_the_fetcher(tmp_path: Path) -> None:
    """The plan has the feeds with a url and the publishers' keys, and only its owner can read it."""
    key, plan = tmp_path / "key", tmp_path / "run" / "plan.json"
    plan.parent.mkdir()
    key.write_text("abc\n")
    url = "https://lists.example/x"
    feeds = [
        {"name": "office", "file": "/list"},
        {"name": "a", "url": url, "format": "apiban", "key_file": str(key)},
    ]
    guard = Guard(tmp_path, feeds=feeds)

    assert guard.command("feeds", "plan", str(plan)).returncode == 0
    [row] = json.loads(plan.read_text())
    assert row == {
        "name": "a",
        "url": url,
        "path": "/var/lib/ringfence-feeds/a.list",
        "every": 3600.0,
        "format": "apiban",
        "key": "abc",
    }
    assert plan.stat().st_mode & 0o777 == 0o400
    assert "cannot be written" in guard.command("feeds", "plan", str(tmp_path / "absent" / "x")).stderr
    key.unlink()
    assert "feeds[1].key_file" in guard.command("feeds", "plan", str(plan)).stderr


def test_a_list_comes_from_its_server_into_the_firewall(tmp_path: Path) -> None:
    """The fetcher's process gets a list by HTTPS, and the daemon denies it."""
    (tmp_path / "server").mkdir()
    plan, path = tmp_path / "plan.json", tmp_path / "one.list"
    with publisher(tmp_path / "server", list=Reply(body=LINES.encode(), headers={"ETag": '"1"'})) as server:
        feeds = [{"name": "office", "url": server.url(), "file": str(path)}]
        with Guard(tmp_path, feeds=feeds) as guard:
            until(lambda: "there is no list yet" in guard.command("alarms").stdout, "an alarm")
            assert guard.command("feeds", "plan", str(plan)).returncode == 0
            fetcher = subprocess.Popen(
                [sys.executable, "-m", "ringfence", "feeds", "fetch", str(plan)],
                env={**os.environ, "SSL_CERT_FILE": str(server.certificate)},
            )
            try:
                until(lambda: "in force" in guard.command("feeds", "refresh").stdout, "the list is in force")
                fetcher.send_signal(signal.SIGHUP)
            finally:
                fetcher.terminate()
                assert fetcher.wait(30) == 0

    assert [path for path, _ in server.requests] == ["/list"]


def test_the_fetcher_needs_a_plan(tmp_path: Path) -> None:
    """Without a plan the fetcher ends with the reason."""
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "feeds", "fetch", str(tmp_path / "plan.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 1
    assert "cannot be read" in done.stderr


def test_a_refused_list_is_a_problem(tmp_path: Path) -> None:
    """`refresh` exits with an error if a list is not taken over, and --force needs a name."""
    with guard_with(tmp_path, "<html>\n") as guard:
        done = guard.command("feeds", "refresh")

        assert done.returncode == 1
        assert "lines are not of this format" in done.stderr
        assert guard.command("feeds", "refresh", "--force").returncode == 2
