"""Which questions count: by their methods and accounts, their sources, and the bounds."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SECURITY, event

from ringfence.detect.judgement import Pinging
from ringfence.detect.questions import (
    DAILY_ACCOUNTS,
    FEW_ACCOUNTS,
    MANY_ACCOUNTS,
    MOST_ACCOUNTS,
    WITHIN,
    Questions,
    trust_in,
    weight_of,
)
from ringfence.detect.rules import DAY
from ringfence.values.event import EventKind, SecurityEvent, Transport

OPTIONS, REGISTER = weight_of("OPTIONS"), weight_of("REGISTER")


def asked(account: str = "s", address: str = "192.0.2.7") -> SecurityEvent:
    """Return AMI's report of a question."""
    return event(EventKind.INVALID_ACCOUNT_ID, account=account, address=address)


def by_tcp(account: str = "s", address: str = "192.0.2.7") -> SecurityEvent:
    """Return AMI's report of a question whose address a handshake proves."""
    one = asked(account, address)
    return evolve(one, remote=evolve(one.remote, transport=Transport.TCP))


def counted(questions: Questions, one: SecurityEvent, weight: int = OPTIONS, now: float = 0.0) -> list[str]:
    """Return the accounts of which questions count because of ``one``."""
    return [each.account for each, _ in questions.counting(one, weight, now)]


@pytest.mark.parametrize(
    ("method", "number"), [("OPTIONS", MANY_ACCOUNTS), ("", MANY_ACCOUNTS), ("REGISTER", FEW_ACCOUNTS)]
)
def test_many_accounts_count_each_once(method: str, number: int) -> None:
    """All accounts count with the last one that is missing, then each new one, and none again."""
    questions, weight = Questions(), weight_of(method)
    accounts = [str(one) for one in range(number)]
    for account in accounts[:-1]:
        assert counted(questions, asked(account), weight) == []
        assert counted(questions, asked(account), weight) == []
    assert counted(questions, asked(accounts[-1]), weight) == accounts
    assert counted(questions, asked("new"), weight) == ["new"]
    assert counted(questions, asked("new"), weight) == []


def test_a_host_of_ipv6_asks_with_all_addresses_of_its_64() -> None:
    """Three accounts from three addresses of a /64 are those of one host."""
    questions = Questions()
    found = [counted(questions, asked(f"{n}", f"2001:db8::{n}"), REGISTER) for n in (1, 2, 3)]
    assert found == [[], [], ["1", "2", "3"]]


def test_an_account_is_forgotten_after_its_time() -> None:
    """Three accounts in more than ten minutes are too few; a host is forgotten after a day of silence."""
    questions = Questions()
    for account, now in (("1", 0.0), ("2", 1.0), ("3", WITHIN)):
        assert counted(questions, asked(account), REGISTER, now) == []
    questions.expire(WITHIN + DAY - 1)
    assert len(questions) == 1
    questions.expire(WITHIN + DAY)
    assert len(questions) == 0


@pytest.mark.parametrize("weight", [OPTIONS, REGISTER])
def test_twenty_accounts_in_a_day_count(weight: int) -> None:
    """However slowly a host asks for its accounts, the twentieth within a day makes all of them count."""
    questions, accounts, pause = Questions(), [str(one) for one in range(DAILY_ACCOUNTS)], 4_000.0
    for number, account in enumerate(accounts[:-1]):
        assert counted(questions, asked(account), weight, number * pause) == []
    assert counted(questions, asked(accounts[-1]), weight, 19 * pause) == accounts
    assert counted(questions, asked("new"), weight, DAY + pause) == []


def test_a_decoy_counts_at_once() -> None:
    """A question for a decoy counts, and one for another account does not."""
    questions = Questions()
    questions.decoys = frozenset({b"admin"})
    assert counted(questions, asked("s")) == []
    assert counted(questions, asked("admin")) == ["admin"]


def test_the_best_report_counts() -> None:
    """AMI is better than a security line, and that is better than a notice, in any order."""
    ami = asked("admin")
    line, notice = evolve(ami, source=SECURITY), evolve(ami, source=NOTICES, forgeable=True)
    assert [trust_in(one) for one in (notice, line, ami, by_tcp())] == [0, 1, 2, 3]
    assert trust_in(evolve(by_tcp(), tampered=True)) == 0
    assert trust_in(evolve(by_tcp(), relayed=True)) == 2
    questions = Questions()
    for one in (notice, line, notice):
        assert counted(questions, one) == []
    questions.decoys = frozenset({b"admin"})
    assert [each for each, _ in questions.counting(notice, 0, 1.0)] == [line]
    assert [each for each, _ in questions.counting(ami, 0, 1.0)] == [ami]
    assert counted(questions, ami) == counted(questions, notice) == []


def test_a_guess_settles_its_question() -> None:
    """The question of a guess counts no more; a guess without a question changes nothing."""
    questions = Questions()
    questions.settle(asked("1"), "1", 0.0)
    counted(questions, asked("1"), REGISTER)
    questions.settle(asked("1"), "1", 0.0)
    questions.settle(asked("1"), "other", 0.0)
    counted(questions, asked("2"), REGISTER)
    assert counted(questions, asked("3"), REGISTER) == ["2", "3"]


def test_a_settled_question_is_as_new_as_its_guess() -> None:
    """A guess renews its account, and those that became older than ten minutes meanwhile do not count."""
    questions = Questions()
    counted(questions, asked("1"), REGISTER, 0.0)
    counted(questions, asked("2"), REGISTER, 1.0)
    questions.settle(asked("1"), "1", 599.0)
    assert counted(questions, asked("3"), REGISTER, 1_100.0) == []


def test_weak_reports_make_no_better_ones_count() -> None:
    """Reports that anyone can forge count among themselves, and show no weight of a better one."""
    for number, others in ((9, 1), (3, 17)):
        questions = Questions()
        proven = {f"{one}" for one in range(number)}
        for account in proven:
            assert counted(questions, by_tcp(account)) == []
        for other in range(others):
            assert not proven & {*counted(questions, asked(f"x{other}"))}
    questions = Questions()
    for account in ("1", "2", "3"):
        counted(questions, by_tcp(account))
    for account in ("1", "2", "3"):
        notice = evolve(asked(account), source=NOTICES, forgeable=True)
        assert counted(questions, notice, REGISTER) == []


def test_better_reports_make_weak_ones_count() -> None:
    """Nine accounts by TCP and a tenth by UDP: only the tenth counts."""
    questions = Questions()
    for account in range(9):
        counted(questions, by_tcp(f"{account}"))
    assert counted(questions, asked("9")) == ["9"]
    assert len(counted(questions, by_tcp("10"))) == MANY_ACCOUNTS


def test_the_bounds() -> None:
    """The host used longest ago is forgotten, and of one host the account asked for longest ago."""
    questions = Questions(most=2)
    for number in range(3):
        counted(questions, asked(address=f"192.0.2.{number}"))
    assert len(questions) == 2
    for number in range(MOST_ACCOUNTS + 1):
        counted(questions, asked(f"{number}"))
    assert counted(questions, asked("0")) == ["0"]


def test_forged_reports_displace_no_proven_ones() -> None:
    """A host that a handshake proves is kept among any number of others, with its accounts."""
    questions = Questions(most=2)
    for number in range(9):
        assert counted(questions, by_tcp(f"{number}")) == []
    for number in range(MOST_ACCOUNTS):
        counted(questions, asked(address=f"198.51.100.{number}"))
        counted(questions, evolve(asked(f"x{number}"), source=NOTICES, forgeable=True))
    assert len(counted(questions, by_tcp("9"))) == MANY_ACCOUNTS


def test_who_asks_again_and_again_is_named() -> None:
    """A host with five questions for one account is perhaps a carrier, and one that enumerates is not."""
    questions = Questions()
    for number in range(6):
        one = evolve(asked(), time=float(number))
        questions.record(one, "OPTIONS" if number == 0 else "", float(number))
        counted(questions, one, now=float(number))
        other = asked(f"{number}", "192.0.2.8")
        questions.record(other, "REGISTER", float(number))
        counted(questions, other, REGISTER, float(number))
    questions.expire(5.0)
    carrier = Pinging(ip_address("192.0.2.7"), 6, 0.0, 5.0, "OPTIONS", "s")
    assert questions.pinging() == [carrier]
    assert carrier.sentence.startswith(
        "sends OPTIONS that no identify matches (6 since 1970-01-01T00:00:00Z for s)"
    )
    assert evolve(carrier, method="", account="").sentence.startswith(
        "sends requests without credentials that"
    )
    assert questions.pinging(ip_address("192.0.2.7")) == [carrier]
    assert questions.pinging(ip_address("192.0.2.8")) == questions.pinging(ip_address("192.0.2.9")) == []


def test_who_asks_no_more_is_not_named() -> None:
    """A carrier that has been silent for ten minutes is not named, and is then counted from the start."""
    questions = Questions()
    for number in range(5):
        questions.record(evolve(asked(), time=float(number)), "OPTIONS", float(number))
    questions.expire(4.0 + WITHIN)
    assert questions.pinging() == []
    for number in range(5):
        questions.record(evolve(asked(), time=DAY / 2 + number), "OPTIONS", DAY / 2 + number)
    questions.expire(DAY / 2 + 5)
    assert [(one.number, one.began) for one in questions.pinging()] == [(5, DAY / 2)]
