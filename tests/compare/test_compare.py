"""The comparison: its cells, the two texts that it writes, and that each guard runs."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from attrs import evolve
from tests.bench.attacks import UDP
from tests.compare import __main__ as comparing
from tests.compare import rows as measures
from tests.compare.guards import ALL_PORTS, Guard, guards
from tests.compare.page import BEGIN, END, README, Compared, page, readme
from tests.compare.rows import (
    PACED,
    RELEASE,
    ROWS,
    TRIALS,
    Row,
    _against,
    _hidden,
    _reached,
    _start,
    guarded,
)
from tests.docs import pages
from tests.support import open_pbx
from tests.support.daemon import until

MOST_LINES = 200
GUESSES = 60
"""More than any guard needs to see, and few enough for the slowest one to be waited for."""


def _no_guard() -> Guard:
    return guards()[-1]


def _fails(_: Guard) -> str:
    raise RuntimeError("it does not start")


def _here() -> Sequence[Guard]:
    """Return all guards as if their programs were here: this machine may lack some."""
    return [evolve(guard, missing="") for guard in guards()]


def _compared(rows: Sequence[Row], cell: str) -> Compared:
    of = _here()
    cells = {row.what: (cell,) * len(of) for row in rows}
    return Compared(datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "of commit 0", 60.0, of, rows, cells)


@pytest.fixture(autouse=True)
def _described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no Asterisk only for its version."""
    monkeypatch.setattr(comparing, "described", lambda _: "a machine")


def test_a_guard_that_fails_or_is_missing_leaves_its_reason() -> None:
    """The cell states why it was not measured, and the next cell is measured."""
    absent = Guard("absent", "1", "", _no_guard().prepare, "it is not here")
    row = Row("a row", lambda guard: _fails(guard) if guard.name == "bad" else "7")
    bad = Guard("bad", "2", "", _no_guard().prepare)

    found = comparing.compare([row], [absent, bad, _no_guard()])

    assert found.cells == {"a row": ("not measured: it is not here", "not measured: it does not start", "7")}


def test_guards_take_turns_and_each_time_has_its_median() -> None:
    """Each guard has a trial before any has its next one; the cell has the median and the range."""
    asked: list[str] = []

    def measure(guard: Guard) -> tuple[float, float]:
        asked.append(guard.name)
        return float(len(asked)), 0.5

    of = [evolve(_no_guard(), name="one"), evolve(_no_guard(), name="two")]
    found = comparing.compare([Row("a row", measure, turns=3)], of)

    assert asked == ["one", "two"] * 3
    rest = "median 0.50 s (0.50 to 0.50, n=3)"
    assert found.cells["a row"] == (f"median 3 s (1 to 5, n=3); {rest}", f"median 4 s (2 to 6, n=3); {rest}")


def test_a_turn_that_fails_leaves_its_reason() -> None:
    """A guard that fails in one of its turns has no figure of the others."""
    asked: list[str] = []

    def measure(guard: Guard) -> tuple[float, ...]:
        asked.append(guard.name)
        if len(asked) == 2:
            raise RuntimeError("it has ended")
        return (1.0,)

    found = comparing.compare([Row("a row", measure, turns=3)], [_no_guard()])

    assert found.cells["a row"] == ("not measured: it has ended",)


def test_two_guards_of_one_title_have_cells_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is measured together has each guard, also if Debian's fail2ban is the newest one."""
    of = [evolve(_no_guard(), settings="Debian's"), evolve(_no_guard(), settings="the newest")]
    monkeypatch.setattr(comparing, "guards", lambda: of)
    monkeypatch.setattr(comparing, "ROWS", [Row("a row", lambda guard: guard.settings, together=True)])

    assert [comparing.cell("a row", at) for at in range(2)] == ["Debian's", "the newest"]


def test_the_speed_of_the_machine_is_no_cost_of_a_guard() -> None:
    """The time of a packet is compared with that without a guard in the same round, however slow it was."""
    bare = [1e-6, 1e-6, 3e-6, 3e-6, 3e-6]
    times = [2e-6, 2e-6, 6e-6, 6e-6, 6e-6]

    assert _against(times, bare) == "2.00 times (+3.00 µs)"
    assert _against(bare, bare) == "1.00 times (+0.00 µs)"


@pytest.mark.asterisk
def test_a_kernel_that_cannot_be_listed_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of the kernel's bans that fails is an error, and not the count of the list before."""

    def fail(*_: object) -> int:
        raise RuntimeError("the list failed")

    monkeypatch.setattr(measures, "in_kernel", fail)
    with pytest.raises(RuntimeError, match="the list failed"):
        _start(evolve(_no_guard(), version="1"))


def test_an_attack_that_reaches_nothing_is_no_figure() -> None:
    """A count of no answers at all is an error, and not the best figure of the table."""
    assert _reached(1) == 1
    with pytest.raises(RuntimeError):
        _reached(0)


def test_rows_are_chosen_by_their_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only rows with every text are measured; they are printed, and no file is written."""
    monkeypatch.setattr(comparing, "write", _fails)
    monkeypatch.setattr(comparing, "why_no_asterisk", lambda _: "")
    monkeypatch.setattr(comparing, "guards", _here)
    monkeypatch.setattr(comparing, "ROWS", [Row("one row", lambda _: "1"), Row("another", lambda _: "2")])

    assert comparing.main(["one"]) == 0
    printed = capsys.readouterr().out
    assert "| one row | 1 | 1 |" in printed
    assert "another" not in printed
    assert comparing.main(["a row that is not there"]) == 2


def test_the_page_has_every_row_and_every_setting() -> None:
    """The page has the date, each row with each guard, and the settings of each guard."""
    text = page(_compared(ROWS, "a|b"))

    assert "on 2026-01-02 03:04 UTC, of commit 0" in text
    assert [row[0] for row in pages.rows_of(text)] == [row.what for row in ROWS]
    assert all(row[1:] == ["a|b"] * len(guards()) for row in pages.rows_of(text))
    assert all(guard.settings in text for guard in guards())
    assert all(f"{name} by its source" in text for name in ("sipcheck", "sipban"))


def test_the_readme_gets_the_brief_rows_between_the_marks() -> None:
    """The README has the brief rows, the date and a link; the rest stays, and it stays short."""
    before = README.read_text("utf-8")
    found = _compared(ROWS, "median 3 (3 to 3, n=3)")
    after = readme(before, found)

    middle = after.partition(BEGIN)[2].partition(END)[0]
    assert [row[0] for row in pages.rows_of(middle)] == [row.what for row in ROWS if row.brief]
    assert {len(row) for row in pages.rows_of(middle)} == {len(guards())}  # a name, and all but no guard
    assert "2026-01-02" in middle
    assert "](tests/compare/RESULTS.md)" in middle
    assert after.partition(BEGIN)[0] == before.partition(BEGIN)[0]
    assert after.partition(END)[2] == before.partition(END)[2]
    assert len(after.splitlines()) <= MOST_LINES
    assert readme(after, found) == after


@pytest.mark.long
@pytest.mark.asterisk
@pytest.mark.parametrize("guard", guards()[:-1], ids=lambda guard: f"{guard.name}-{guard.version}")
def test_each_guard_stops_a_guesser(guard: Guard) -> None:
    """Every guard runs with its settings, and bans the sender of many guesses or stops it earlier."""
    if guard.missing:
        pytest.skip(guard.missing)
    source = UDP.source(TRIALS)
    with guarded(guard) as (lab, running):
        answered = lab.attack("guess", "--number", str(GUESSES), "--sources", source).answered
        running.settle()
        until(lambda: source in running.banned(), "the ban")

        assert running.pids
        assert answered < GUESSES or running.banned()[source] == ALL_PORTS


@pytest.mark.long
@pytest.mark.asterisk
@pytest.mark.parametrize("guard", guards()[1:3], ids=lambda guard: f"{guard.name}-{guard.version}")
def test_a_guard_that_reads_notices_has_the_time_to_stop_hidden_guesses(guard: Guard) -> None:
    """fail2ban reads the notices of guesses that cause no security event, and bans before the last one."""
    if guard.missing:
        pytest.skip(guard.missing)
    with guarded(guard, open_pbx.configured(RELEASE)) as (lab, running):
        assert 0 < _hidden(lab, 1) < PACED
        assert UDP.source(1) in running.banned()
