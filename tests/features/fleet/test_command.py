"""``ringfence fleet``, with and without a local API."""

import json
from pathlib import Path

from tests.features.fleet.server import KEY, MACHINE, PASSWORD, Fault, fake_api
from tests.support.daemon import Guard, until


def test_the_status_of_the_fleet(tmp_path: Path) -> None:
    """The status names the API, the last requests, and the decisions by origin and node, in 80 columns."""
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "key").write_text(KEY)
    with fake_api() as server:
        server.add("198.51.100.7", origin="CAPI\x1b[2J")
        server.add("10.0.0.1")
        for number in range(60):
            server.add(f"198.51.100.{100 + number}", origin=f"ringfence:{'long-name-' * 6}{number}")
        files = {"password_file": str(tmp_path / "password"), "key_file": str(tmp_path / "key")}
        table = {"url": server.url, "machine": MACHINE, "interval": "1s", **files}
        with Guard(tmp_path, crowdsec=table) as guard:
            until(lambda: guard.ask("fleet")["in_force"] == 61, "the decisions")
            until(lambda: guard.ask("fleet")["push"]["last"], "a sign of life")
            shown = guard.must("fleet", "status")
            assert f"local API    {server.url}, as pbx-a\n" in shown
            assert "decisions    61, of which 61 are applied here\n" in shown
            left = "left out     1 decision that is not applied, such as 10.0.0.1 (a local network)\n"
            assert left in shown
            assert "lag          unknown" in shown
            assert "dry run      sends no bans; receives decisions, and drops nothing\n" in shown
            assert "ORIGIN" in shown
            assert "NODE" in shown
            assert "CAPI" in shown
            assert "long-name-" in shown
            assert "and 11 more: ringfence fleet status --json\n" in shown
            assert max(map(len, shown.split("\n"))) <= 80
            assert "\x1b" not in shown
            assert json.loads(guard.must("fleet", "status", "--json"))["machine"] == "pbx-a"

            server.always = Fault(status=503)
            until(lambda: guard.ask("fleet")["pull"]["problem"], "a failure")
            done = guard.command("fleet", "status")
            assert done.returncode == 1
            assert "now it fails: status 503" in done.stdout
            assert "the pull fails: status 503" in done.stderr


def test_without_a_local_api(tmp_path: Path) -> None:
    """The command reports that no ban is shared; without a daemon it cannot know anything."""
    with Guard(tmp_path) as guard:
        assert "No ban is shared" in guard.must("fleet", "status")
        assert "no [crowdsec] url" in guard.command("fleet", "test").stderr
    assert guard.command("fleet", "status").returncode == 3
