"""The judge finds what a wrong guard does, and shares no code with ringfence."""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.judge.asterisk import Act, Report
from tests.judge.guard import Guard, guarding
from tests.judge.oracle import EXCEPTIONS, FULL, KEPT_OF_A_REQUEST, SIP_TCP, SIP_UDP, Judge, Sent, View
from tests.judge.worlds import ATTACKERS, PHONES, VICTIM, Failure, Site, play, shrunk

HERE = Path(__file__).parent
ATTACKER = ATTACKERS[0]
GUESSES = tuple(Act("guesses", ATTACKER) for _ in range(6))
GUESS = Sent(0.0, ATTACKER, ATTACKER, "UDP", "one", "204", known=True, credentials="wrong")
PHONE = (Act("logs in", PHONES[0]), Act("logs in", PHONES[0]))

Change = Callable[[View], View]


class _Wrong:
    """The real guard, with another view of it."""

    def __init__(self, guard: Guard, change: Change) -> None:
        self._guard = guard
        self._change = change

    @property
    def now(self) -> float:
        return self._guard.now

    def connected(self, address: str, port: int, here: str) -> None:
        self._guard.connected(address, port, here)

    def copies(self, address: str) -> bool:
        """Return True: every sender is a stranger."""
        return True

    def report(self, report: Report) -> None:
        self._guard.report(report)

    def wait(self, until: float) -> None:
        self._guard.wait(until)

    def view(self, *, whole: bool) -> View:
        return self._change(self._guard.view(whole=whole))


def judged(change: Change, acts: tuple[Act, ...]) -> Failure | None:
    """Play a world to a guard that is wrong in one way."""

    @contextmanager
    def wrong(site: Site) -> Iterator[_Wrong]:
        with guarding(site) as guard:
            yield _Wrong(guard, change)

    return play(acts, wrong)


def also_bans(network: str, scope: str = FULL) -> Change:
    """Return a change by which a network is banned too, in all four places, from the first attempt on."""
    ban = (network, scope)

    def change(view: View) -> View:
        if not view.counted:
            return view
        kernel, ledger, store, listed = (
            bans | {ban} for bans in (view.kernel, view.ledger, view.store, view.listed)
        )
        return View(kernel, ledger, store, listed, view.counted)

    return change


def counts(number: int) -> Change:
    """Return a change by which the attacker's attempts are ``number`` more."""

    def change(view: View) -> View:
        found = view.counted.get(ATTACKER)
        return view if found is None else replace(view, counted={**view.counted, ATTACKER: found + number})

    return change


def loses(place: str) -> Change:
    """Return a change by which one of the four places has no bans."""
    return lambda view: replace(view, **{place: frozenset()})  # type: ignore[arg-type]  # a name of its field


@pytest.mark.parametrize(
    ("change", "acts", "invariant"),
    [
        (also_bans(VICTIM), GUESSES, "F"),
        (also_bans("198.51.100.0/24"), GUESSES, "F"),
        (also_bans(VICTIM, SIP_UDP), GUESSES, "F"),
        (also_bans(VICTIM), tuple(Act("forges a guess", ATTACKER, VICTIM) for _ in range(3)), "F"),
        (counts(1), GUESSES, "C"),
        (counts(-1), GUESSES, "C"),
        (loses("kernel"), (*GUESSES,), "C"),
        (also_bans("198.51.100.1"), GUESSES, "P"),
        (also_bans(PHONES[0], SIP_UDP), (*PHONE, Act("guesses", PHONES[0], account="205")), "P"),
        (loses("ledger"), GUESSES, "E"),
        (loses("store"), GUESSES, "E"),
        (loses("listed"), GUESSES, "E"),
    ],
)
def test_a_wrong_guard_is_found(change: Change, acts: tuple[Act, ...], invariant: str) -> None:
    """A guard that bans a victim, a phone or a trunk, counts wrongly or loses a ban is found."""
    failure = judged(change, acts)

    assert failure is not None
    assert invariant in {one.invariant for one in failure.violations}


def test_a_right_guard_is_not_found() -> None:
    """Without a change, neither the attacker's bans nor the phone's logins violate an invariant."""
    assert play((*GUESSES, *PHONE), guarding) is None


def test_a_failure_is_shrunk() -> None:
    """Actions without which the same invariant fails are left out."""
    change = counts(1)

    @contextmanager
    def wrong(site: Site) -> Iterator[_Wrong]:
        with guarding(site) as guard:
            yield _Wrong(guard, change)

    failure = play((*PHONE, *GUESSES), wrong)

    assert failure is not None
    assert len(shrunk(failure, wrong).acts) == 1


def test_the_judge_imports_the_standard_library_alone() -> None:
    """Neither the judge nor its Asterisk imports ringfence, so they cannot agree with it by construction."""
    for name in ("oracle", "asterisk", "others", "packets", "worlds"):
        tree = ast.parse((HERE / f"{name}.py").read_text("utf-8"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = [getattr(node, "module", None) or node.names[0].name for node in nodes]

        assert not [module for module in modules if module.startswith(("ringfence", "tests.s"))]


def test_the_documentation_names_each_exception() -> None:
    """Each guess that need not count is a sentence of docs/evidence.md."""
    page = " ".join((HERE.parent.parent / "docs" / "evidence.md").read_text("utf-8").split())

    assert [name for name, sentence in EXCEPTIONS.items() if sentence not in page] == []
    assert f"less than {KEPT_OF_A_REQUEST // 1_000} kB of memory each" in page


def test_a_true_report_that_is_called_forged_is_found() -> None:
    """An address in a sender's text may be called forged once for each request, and no other address may."""
    judge = Judge()
    judge.sent(replace(GUESS, blames=VICTIM))

    assert not judge.check(seen(forged={VICTIM: 1}), 0.0, quiet=False)
    assert [one.invariant for one in judge.check(seen(forged={VICTIM: 2}), 0.0, quiet=False)] == ["F"]
    assert [one.invariant for one in judge.check(seen(forged={ATTACKER: 1}), 0.0, quiet=False)] == ["F"]


@pytest.mark.parametrize(
    ("after", "source", "answered", "least"),
    [
        (10.0, VICTIM, VICTIM, 1),
        (10.0, VICTIM, "", 0),
        (70.0, VICTIM, VICTIM, 0),
        (10.0, "198.51.100.1", "198.51.100.1", 0),
    ],
    ids=["a stranger is answered", "nobody is answered", "too late", "a trunk is answered"],
)
def test_a_blind_guess_must_count_if_a_stranger_is_answered_next(
    after: float, source: str, answered: str, least: int
) -> None:
    """A guess without an answer must count if a stranger asked within a minute and was answered."""
    judge = Judge(["198.51.100.1"])
    judge.sent(replace(GUESS, exception="blind"))
    other = replace(GUESS, time=after, sender=source, source=source, dialogue="two", credentials="none")
    judge.sent(replace(other, answered=answered))

    assert judge.attempts(ATTACKER) == (least, 1)


@pytest.mark.parametrize(
    ("sees_all", "credentials", "attempts"),
    [(True, "wrong", (1, 1)), (False, "wrong", (0, 1)), (True, "right", (0, 0)), (False, "right", (0, 1))],
)
def test_if_packets_are_lost_some_requests_may_count(
    credentials: str, attempts: tuple[int, int], *, sees_all: bool
) -> None:
    """Then a hidden guess need not count, and a refused call may count; otherwise neither is so."""
    judge = Judge(sees_all=sees_all)
    judge.sent(replace(GUESS, credentials=credentials, exception="lost"))

    assert judge.attempts(ATTACKER) == attempts


@pytest.mark.parametrize(("receivers", "full"), [([ATTACKER], True), ([ATTACKER, VICTIM], False)])
def test_proven_guesses_must_lead_to_a_full_ban(receivers: list[str], *, full: bool) -> None:
    """A claimed ban is not enough if each nonce went to the sender alone."""
    judge = Judge()
    for number in range(5):
        guess = replace(GUESS, dialogue=str(number), nonce="n")
        for receiver in receivers:
            judge.sent(replace(guess, credentials="none", answered=receiver))
        judge.sent(replace(guess, answered=ATTACKER))
    view = seen({(ATTACKER, SIP_UDP)}, counted={ATTACKER: 5})

    assert [one.invariant for one in judge.check(view, 0.0, quiet=True)] == ["C"] * full


@pytest.mark.parametrize(
    ("account", "every", "scope", "missing"),
    [
        ("205", 1.0, "", True),
        ("205", 1.0, SIP_TCP, True),
        ("205", 1.0, SIP_UDP, False),
        ("205", 2.0, "", False),
        ("204", 1.0, "", False),
    ],
    ids=["no ban", "a ban of TCP", "a ban of UDP", "a phone's pace", "its own account"],
)
def test_a_friend_that_guesses_like_a_program_must_be_banned(
    account: str, every: float, scope: str, *, missing: bool
) -> None:
    """22 guesses within 30 seconds at an account of others lead to a ban of the transport."""
    judge = Judge()
    judge.sent(replace(GUESS, credentials="right"))
    judge.sent(replace(GUESS, credentials="none", nonce="n", answered=ATTACKER))
    for number in range(22):
        judge.sent(replace(GUESS, time=1.0 + every * number, account=account, nonce="n"))
    view = seen({(ATTACKER, scope)} if scope else None, counted={ATTACKER: 22})

    assert [one.invariant for one in judge.check(view, 60.0, quiet=True)] == ["C"] * missing


def test_bounds_and_alarms_that_are_wrong_are_found() -> None:
    """Too much memory, too many claimed bans, and an alarm that lacks who hides most are found."""
    judge = Judge(claims=2)
    for number in range(102):
        sender = f"10.0.{number}.1"
        for _ in range(1 + (number == 0)):
            judge.sent(replace(GUESS, sender=sender, source=sender, hides=True))
    counted = {f"10.0.{number}.1": 1 + (number == 0) for number in range(102)}
    bans = {(f"10.0.{number}.0/24", SIP_UDP) for number in range(6)}

    found = judge.check(seen(bans, counted=counted, kept=1_000_000), 0.0, quiet=True)
    assert {one.invariant for one in found} >= {"A", "B"}
    assert sum(one.invariant == "B" for one in found) == 2
    shown = seen(bans, counted=counted, hiding=frozenset({"10.0.0.1"}))
    assert not {"A", "B"} & {one.invariant for one in judge.check(shown, 61.0, quiet=True)}


def seen(bans: set[tuple[str, str]] | None = None, **other: Any) -> View:  # noqa: ANN401 - fields of a view
    """Return a view in which all four places agree."""
    mine = frozenset(bans or ())
    return View(mine, mine, mine, mine, **{"counted": {}, **other})


@pytest.mark.parametrize(
    ("known", "credentials", "attempts"),
    [
        (True, ["none"], 0),
        (True, ["none", "right"], 0),
        (True, ["none", "wrong"], 1),
        (True, ["none", "wrong", "wrong", "right"], 2),
        (True, ["wrong"], 1),
        (False, ["none", "wrong"], 1),
        (False, ["none", "none", "wrong", "wrong"], 2),
        (False, ["wrong"], 1),
    ],
)
def test_attempts_follow_from_requests(known: object, credentials: list[str], attempts: int) -> None:
    """A wrong answer is an attempt, together with the question before it."""
    judge = Judge()
    for kind in credentials:
        judge.sent(Sent(0.0, ATTACKER, ATTACKER, "UDP", "one", "204", bool(known), kind))

    assert judge.attempts(ATTACKER) == (attempts, attempts)


def test_a_question_for_an_unknown_account_may_count() -> None:
    """It is an attempt if its sender asks for several accounts."""
    judge = Judge()
    judge.sent(Sent(0.0, ATTACKER, ATTACKER, "UDP", "one", "204", known=False, credentials="none"))

    assert judge.attempts(ATTACKER) == (0, 1)
