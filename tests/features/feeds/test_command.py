"""``ringfence feeds``, with the daemon up and down."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import _commands  # noqa: F401 - a fixture
from tests.features.feeds.server import Reply, publisher
from tests.support.daemon import Guard, until
from tests.support.lab import Lab

from ringfence.features.feeds.formats import STATE_SUFFIX

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
        assert "Feeds deny 1 more network: office" in guard.command("bans").stderr
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
    assert "The daemon does not answer" in done.stderr
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


def test_a_silent_server_does_not_keep_the_fetcher_from_ending(tmp_path: Path) -> None:
    """SIGTERM ends the fetcher while it waits for a server, and no part of a list is left."""
    (tmp_path / "server").mkdir()
    plan, path = tmp_path / "plan.json", tmp_path / "lists" / "one.list"
    path.parent.mkdir()
    with publisher(tmp_path / "server", list=Reply(body=LINES.encode() * 99, slow=0.2)) as server:
        feeds = [{"name": "office", "url": server.url(), "file": str(path)}]
        with Guard(tmp_path, feeds=feeds) as guard:
            assert guard.command("feeds", "plan", str(plan)).returncode == 0
        fetcher = subprocess.Popen(
            [sys.executable, "-m", "ringfence", "feeds", "fetch", str(plan)],
            env={**os.environ, "SSL_CERT_FILE": str(server.certificate)},
        )
        try:
            until(lambda: server.requests, "the request")
        finally:
            fetcher.terminate()
            assert fetcher.wait(30) == 0

    assert [file.name for file in path.parent.iterdir() if not file.name.endswith(STATE_SUFFIX)] == []


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
        assert "1 of 1 line is not of this format" in done.stderr
        assert guard.command("feeds", "refresh", "--force").returncode == 2


def added(guard: Guard, text: str, *options: str, name: str = "mine") -> tuple[int, str, str]:
    """Add the list ``text`` as a feed; return exit code, standard output and standard error."""
    path = guard.folder / f"{name}.txt"
    path.write_text(text, "utf-8")
    done = guard.command("feeds", "add", name, "--file", str(path), *options)
    return done.returncode, done.stdout, done.stderr


def test_a_file_becomes_a_feed(tmp_path: Path) -> None:
    """The list is in force when the command ends, after a restart too, and until the feed is removed."""
    with Guard(tmp_path) as guard:
        code, out, err = added(guard, "\ufeff# a list\r\n203.0.113.9 ; SBL1\r\n10.0.0.0/8\r\n")
        assert (code, err) == (0, "mine leaves out: 10.0.0.0/8 (local)\n")
        assert re.search(r"mine +in force +1 +1", out)
        assert "denied by the feed mine" in guard.command("bans", "203.0.113.9").stderr
        (tmp_path / "mine.txt").unlink()
        guard.stop()
        guard.start()
        assert "the feed mine contains 203.0.113.9" in " ".join(guard.must("why", "203.0.113.9").split())
        guard.must("feeds", "remove", "mine")
        until(lambda: "There is no feed" in guard.must("feeds", "list"), "the feed is removed")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('{"ip": "203.0.113.9"}\n', ("--format", "json", "--key", "ip")),
        ("seen,203.0.113.9\n", ("--format", "csv", "--key", "2")),
    ],
)
def test_a_file_of_another_format(tmp_path: Path, text: str, options: tuple[str, ...]) -> None:
    """The options name the format, and where a line has the address."""
    with Guard(tmp_path) as guard:
        code, out, _ = added(guard, text, *options)

    assert code == 0
    assert re.search(r"mine +in force +1 ", out)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    """A list with a bad line denies nothing; the corrected file is taken over without a command."""
    with Guard(tmp_path) as guard:
        code, _, err = added(guard, "203.0.113.9\nrubbish\n")
        assert code == 1
        assert "1 of 2 lines are not of this format: line 2: 'rubbish'" in err
        (tmp_path / "new").write_text("203.0.113.9\n")
        (tmp_path / "new").replace(tmp_path / "mine.txt")
        until(lambda: "in force" in guard.must("feeds", "list"), "the corrected list")


def test_without_the_daemon_a_file_is_added_for_later(tmp_path: Path) -> None:
    """The configuration has the feed, and the exit code shows that nothing is in force yet."""
    guard = Guard(tmp_path)

    code, out, err = added(guard, "203.0.113.9\n")

    assert (code, out) == (3, "")
    assert "this takes effect when the daemon starts" in err
    with guard:
        until(lambda: "in force" in guard.must("feeds", "list"), "the list is in force")


def test_what_is_no_feed_is_not_added(tmp_path: Path) -> None:
    """A missing file, a bad name or key, and a second feed of one file change nothing."""
    guard = guard_with(tmp_path)
    path, before = tmp_path / "list.txt", guard.config.read_bytes()
    (tmp_path / 'a "b"\\c').write_text("203.0.113.9\n")
    for arguments, reason in (
        (
            ["one", "--file", str(tmp_path / "absent")],
            "there is no such file; fix: write the list there first",
        ),
        (["one", "--file", str(tmp_path)], "there is no such file"),
        (["one", "--file", str(path)], "feeds[1].file: is the file of another feed too"),
        (["office", "--file", str(path)], "office is already in"),
        (['a"\\', "--file", str(path)], "must be a name of letters"),
        (["a\x7f", "--file", str(path)], "must be printable"),
        (["one", "--file", str(path), "--format", "xml"], 'must be one of "plain", "json"'),
        (["one", "--file", str(path), "--format", "json"], "key: is missing"),
        (["one", "--file", str(path), "--format", "apiban"], "key_file: is missing"),
    ):
        done = guard.command("feeds", "add", *arguments)
        assert done.returncode in {1, 2}, arguments
        assert reason in " ".join(done.stderr.split()), (arguments, done.stderr)
        assert guard.config.read_bytes() == before
    assert guard.command("feeds", "add", "--file", str(path)).returncode == 2
    assert guard.command("feeds", "add", "voipbl", "--format", "json").returncode == 2
    quoted = guard.command("feeds", "add", "one", "--file", str(tmp_path / 'a "b"\\c'))
    assert (quoted.returncode, quoted.stdout) == (3, "")


@pytest.mark.parametrize(
    ("head", "code", "reason"),
    [
        (b"feeds = []\n", 1, "writes the feeds in another way; fix: write [[feeds]] by hand"),
        (
            b"feeds = [{name = 'one', file = '/x'}]\n",
            1,
            "writes the feeds in another way; fix: write [[feeds]]",
        ),
        (b"# \xff\n", 2, "is not UTF-8; fix: save it as UTF-8"),
    ],
)
def test_a_configuration_of_another_form_stays(tmp_path: Path, head: bytes, code: int, reason: str) -> None:
    """A table cannot be added to a list in one line, nor to a file of another encoding."""
    guard = Guard(tmp_path)
    before = head + guard.config.read_bytes()
    guard.config.write_bytes(before)

    done = guard.command("feeds", "add", "voipbl")

    assert (done.returncode, done.stdout) == (code, "")
    assert reason in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert guard.config.read_bytes() == before


@pytest.mark.asterisk
def test_a_denied_trunk_known_by_its_address_is_named(tmp_path: Path) -> None:
    """A list with a part of its network names it, with the command that allows it; then nothing is left."""
    trunk = "[carrier]\ntype=endpoint\n[carrier]\ntype=identify\nendpoint=carrier\nmatch=203.0.113.0/28\n"
    with Lab.made("22", {"pjsip.conf": trunk}) as lab, Guard(tmp_path, prefix=lab.network.in_pbx()) as guard:
        for name, text, named in (
            ("a", "203.0.113.16\n203.0.112.255\n", False),
            ("b", "203.0.113.0/28\n", True),
            ("c", "203.0.112.0/20\n", True),
        ):
            code, _, err = added(guard, text, name=name)
            assert (code, "is a trunk" in err) == (0, named), (text, err)
        lines = guard.command("feeds", "refresh").stderr.splitlines()
        [line] = [
            line
            for line in lines
            if line.startswith("203.0.113.0/28 is a trunk (carrier) known by its address: denied unless")
        ]
        guard.command(*shlex.split(line.partition("to allow it: ")[2])[1:])
        again = guard.command("feeds", "refresh")
    assert "is a trunk" not in again.stderr
