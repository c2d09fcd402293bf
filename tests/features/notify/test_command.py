"""``ringfence notify test``: the answer of each channel, sent by the daemon."""

from pathlib import Path
from typing import Any

from tests.support.daemon import Guard
from tests.support.programs import program_service


def channel(name: str, program: str) -> dict[str, Any]:
    """Return the table of a hook."""
    return {"name": name, "command": [program], "events": ["unban"]}


def test_each_channel_is_tested(tmp_path: Path) -> None:
    """A channel that works and one that fails have a line each; the exit code reports the failure."""
    hooks = [channel("good", "/bin/true"), channel("bad", "/bin/false")]
    with program_service(tmp_path) as path:
        for hook in hooks:
            hook["socket"] = path
        _test_both(tmp_path, hooks)


def _test_both(folder: Path, hooks: list[dict[str, Any]]) -> None:
    with Guard(folder, notify={"hook": hooks}) as guard:
        done = guard.command("notify", "test")
        assert done.stdout == (
            "ok  good: /bin/true ended with 0\n"
            "failed  bad: /bin/false ended with 1: no reason given\n"
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "")

        done = guard.command("notify", "test", "good")
        assert (done.returncode, done.stdout) == (0, "ok  good: /bin/true ended with 0\n")


def test_a_channel_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """The error names the channels; without the daemon the command cannot send."""
    with Guard(tmp_path, notify={"hook": [channel("good", "/bin/true")]}) as guard:
        done = guard.command("notify", "test", "none")
        assert (done.returncode, done.stderr) == (1, "there is no channel none; the channels are: good\n")
        guard.stop()
        assert guard.command("notify", "test").returncode == 3


def test_without_a_channel_it_is_an_error(tmp_path: Path) -> None:
    """The error names the table of the configuration."""
    with Guard(tmp_path) as guard:
        done = guard.command("notify", "test")

    assert done.returncode == 1
    assert "has none in [notify]; fix: add a channel, such as [[notify.mail]]" in done.stderr
