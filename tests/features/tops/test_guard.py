"""The accounts and addresses with the most attempts."""

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT
from tests.support.kept import PHONE, kept, settings

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import SHOWN
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.features.tops import guard as module
from ringfence.features.tops.guard import Tops
from ringfence.features.tops.table import TopTable
from ringfence.values.event import SETUP_ACCOUNT

HERE = ip_network("192.0.2.1")
HOSTILE = "2\x1b[2J\u202e04\ud800" + "x" * 100


def judged(account: str, how: Disposition = Disposition.COUNTED) -> Judgement:
    """Return a judgement on an attempt."""
    return Judgement(evolve(ATTEMPT, account=account), HERE, how)


def test_the_tops_of_a_period(tmp_path: Path) -> None:
    """Names are escaped, marked as known or banned, and counted in memory and in the database."""
    with kept(tmp_path, settings()) as made:
        side = made.side
        side.start()
        counts = Tops(side)
        for account in (HOSTILE, "204", "204", ""):
            counts.on_judgement(judged(account))
        counts.on_judgement(judged("204", Disposition.FORGED))
        side.kernel.enforcer.ban([HERE], 60.0, "by hand")
        handlers = counts.handlers()

        def ask(**request: object) -> Any:  # noqa: ANN401 - any JSON value
            answer: Any = handlers["tops"](request)
            return asyncio.run(answer)

        accounts, addresses = ask(kind="accounts"), ask(kind="addresses", seconds=60)
        top: Any = handlers["top"]({})
        view = asyncio.run(top)

    assert [(one["name"][:4], one["attempts"]) for one in accounts] == [("204", 2), ("2\\x1", 1)]
    assert all(one["name"].isprintable() for one in accounts)
    assert [(one["name"], one["attempts"], one["banned"]) for one in addresses] == [("192.0.2.1", 4, True)]
    assert view["latest_bans"][0]["address"] == "192.0.2.1"
    assert (view["bans"], len(view["minutes"])) == (1, 60)


def test_attempts_are_counted_by_minute(tmp_path: Path) -> None:
    """The graph of the last hour has the attempts that the lists have: no later proof and no forged name."""
    with kept(tmp_path, settings()) as made:
        counts = Tops(made.side)
        for how in (Disposition.COUNTED, Disposition.COUNTED_BEFORE, Disposition.FORGED):
            counts.on_judgement(judged("204", how))
        made.now += 120.0
        counts.on_judgement(judged("204"))
        counts.on_judgement(judged("205"))

        assert counts.minutes()[-3:] == [1, 0, 2]
        assert len(counts.minutes()) == module.MINUTES
        made.now += 3_600.0
        assert sum(counts.minutes()) == 0


def test_ipv6_is_counted_as_the_rules_count_it(tmp_path: Path) -> None:
    """All addresses of a /64 are one sender, which may have a friend."""
    with kept(tmp_path, settings()) as made:
        side = made.side
        side.exempt.friends.add([evolve(PHONE, address=ip_address("2001:db8::7"))])
        counts = Tops(side)
        for number in range(3):
            attempt = evolve(ATTEMPT, address=ip_address("2001:db8::") + number)
            counts.on_judgement(Judgement(attempt, ip_network("2001:db8::/64"), Disposition.COUNTED))
        answer: Any = counts.handlers()["tops"]({"kind": "addresses"})
        found = asyncio.run(answer)

    assert [(one["name"], one["attempts"], one["known"]) for one in found] == [("2001:db8::/64", 3, True)]


def test_setups_own_login_is_no_attack(tmp_path: Path) -> None:
    """From an exempt address it is left out. A stranger who uses the same account name is counted."""
    with kept(tmp_path, settings()) as made:
        side = made.side
        counts = Tops(side)
        for account, how in (
            (SETUP_ACCOUNT, Disposition.EXEMPT),
            ("204", Disposition.EXEMPT),
            (SETUP_ACCOUNT, Disposition.COUNTED),
        ):
            counts.on_judgement(judged(account, how))
        handlers: Any = counts.handlers()
        accounts = asyncio.run(handlers["tops"]({"kind": "accounts"}))

    assert {(one["name"], one["attempts"]) for one in accounts} == {("204", 1), (SETUP_ACCOUNT, 1)}


def test_names_are_short(tmp_path: Path) -> None:
    """A name of control characters takes no more room than another one."""
    with kept(tmp_path, settings()) as made:
        side = made.side
        counts = Tops(side)
        counts.on_judgement(judged("\U000e0001" * 128))
        counts.on_judgement(judged("\U0001f600" * 128))
        counts.save()
        found = TopTable(side.common.store.connection).top("accounts", 0.0, side.common.clock.wall(), 9)

    assert [len(one.name.encode()) for one in found] == [module.MAX_NAME] * 2


def test_names_with_few_attempts_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory is bounded, and a name with many attempts stays."""
    monkeypatch.setattr(module, "MOST", 10)
    with kept(tmp_path, settings()) as made:
        side = made.side
        counts = Tops(side)
        for number in range(100):
            counts.on_judgement(judged("204"))
            counts.on_judgement(judged(str(number)))
        counts.save()
        found = TopTable(side.common.store.connection).top("accounts", 0.0, side.common.clock.wall(), 99)

    assert found[0][:2] == ("204", 100)
    assert len(found) <= 10


def test_the_number_of_alarms_counts_those_that_are_left_out(tmp_path: Path) -> None:
    """At most twenty alarms of one code are shown; the number has the others too."""
    with kept(tmp_path, settings()) as made:
        made.side.start()
        for number in range(SHOWN + 10):
            made.alarms.activate(AlarmCode.PHONE_BROKEN, str(number), "fails")
        top: Any = Tops(made.side).handlers()["top"]({})
        view = asyncio.run(top)

    assert view["alarm_count"] - len(view["alarms"]) == 10


def test_days_of_a_full_disk_queue_one_save_an_hour(tmp_path: Path) -> None:
    """The counts of a day push no ban out of the queue; when there is room, no attempt is missing."""
    with kept(tmp_path, settings()) as made:
        counts, best_effort = Tops(made.side), made.store.best_effort
        writer = made.store.connection._writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(150):  # more than fit on a page
            counts.on_judgement(judged(f"{number:040}"))
        for _ in range(24 * 12):
            made.now += module.SAVE_EVERY
            counts.on_judgement(judged("204"))
            counts.save()
        assert "full" in best_effort.error
        assert best_effort.waiting <= 2 * 25

        writer.execute("PRAGMA max_page_count = 100000")
        counts.finish()
        found = TopTable(made.store.connection).top("accounts", 0.0, made.now, 1)

    assert (found[0][:2], best_effort.waiting) == (("204", 24 * 12), 0)
