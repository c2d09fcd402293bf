"""An interrupted run of all parts goes on where it was; the counting parts run in other processes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bench import __main__ as bench
from tests.bench import kept
from tests.bench.figures import Figure


class Parts:
    """Two parts: the first one yields a row; what the second one does after its row can be set."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.error: BaseException | None = None

    def first(self, _: Path | None) -> Iterator[Figure]:
        """Yield a row."""
        self.measured.append("first")
        yield Figure("one", "1", reached=True)

    def second(self, _: Path | None) -> Iterator[Figure]:
        """Yield a row, then fail if it is to fail."""
        self.measured.append("second")
        yield Figure("two", "2", reached=True)
        if self.error is not None:
            raise self.error

    def run(self, *arguments: str) -> int:
        """Run the program with these parts."""
        self.measured.clear()
        return bench.main(arguments)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Parts:
    """Return the parts of a program that needs no Asterisk and writes into the test's folder."""
    made = Parts()
    monkeypatch.setattr(bench, "PARTS", {"first": made.first, "second": made.second})
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(kept, "KEPT", tmp_path / "build" / "bench.json")
    monkeypatch.setattr(kept, "sources", lambda: "these files")
    monkeypatch.setattr(bench, "why_no_asterisk", lambda: "")
    monkeypatch.setattr(bench, "_fail2ban", lambda: None)
    monkeypatch.setattr(bench, "_head", lambda: "A machine.")
    return made


def test_an_interrupted_run_measures_only_what_is_missing(parts: Parts, tmp_path: Path) -> None:
    """The part that ended stays, the interrupted one is measured again, and the page mentions it."""
    parts.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        parts.run()
    assert not (tmp_path / "RESULTS.md").exists()
    parts.error = None
    assert parts.run("--resume") == 0
    assert parts.measured == ["second"]
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "interrupted and resumed" in page
    assert page.index("| one |") < page.index("| two |") < page.index("| first |") < page.index("| second |")


def test_a_failed_part_is_a_row_and_is_measured_again(parts: Parts, tmp_path: Path) -> None:
    """The run with the failed part has its page, with a row that is not reached."""
    parts.error = ValueError("no network")
    assert parts.run() == 1
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "| the rest of part `second` | not measured: no network | measured | NO |" in page
    parts.error = None
    assert parts.run("--resume") == 0
    assert parts.measured == ["second"]
    assert "the rest of part" not in (tmp_path / "RESULTS.md").read_text("utf-8")


def test_a_run_of_other_files_is_not_resumed(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured, and the error names both."""
    parts.run()
    monkeypatch.setattr(kept, "sources", lambda: "other files")
    with pytest.raises(SystemExit):
        parts.run("--resume")
    assert parts.measured == []
    assert "measured these files, and this one would measure other files" in capsys.readouterr().err


def test_chosen_parts_and_a_new_run_do_not_take_up_the_last_one(parts: Parts, tmp_path: Path) -> None:
    """Chosen parts neither change what is kept nor write the page; a new run measures everything."""
    parts.run()
    before = kept.KEPT.read_bytes()
    (tmp_path / "RESULTS.md").unlink()
    assert parts.run("second") == 0
    assert kept.KEPT.read_bytes() == before
    assert not (tmp_path / "RESULTS.md").exists()
    parts.run()
    assert parts.measured == ["first", "second"]


def test_counting_parts_are_measured_in_other_processes_and_kept(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A counting part that fails is a row, and is measured again when the run is resumed."""
    monkeypatch.setattr(bench, "COUNTING", ("second", "first"))
    parts.error = ValueError("no network")
    assert parts.run() == 1
    assert parts.measured == []
    assert "not measured: no network" in (tmp_path / "RESULTS.md").read_text("utf-8")
    assert list(kept.read("these files")) == ["first"]
    parts.error = None
    assert parts.run("--resume") == 0
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert page.index("| one |") < page.index("| two |")


def test_the_name_of_the_files_changes_with_a_file(tmp_path: Path) -> None:
    """Files are named alike twice, and otherwise with one more; files outside Git are never alike."""
    outside = kept.sources(tmp_path)
    assert kept.sources(tmp_path) != outside
    as_somebody = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["git", "init", "-q"], [*as_somebody, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "one.py").write_text("", "utf-8")
    before = kept.sources(tmp_path)
    assert kept.sources(tmp_path) == before
    (tmp_path / "other.py").write_text("", "utf-8")
    assert kept.sources(tmp_path) != before
