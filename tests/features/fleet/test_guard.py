"""The task that shares bans, with a local API that fails, and without a daemon around it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import define, evolve, field
from tests.features.fleet.server import KEY, MACHINE, PASSWORD, FakeApi, Fault, fake_api
from tests.support.attempts import attempts, ban_of

from ringfence.alarm_codes import Alarm
from ringfence.alarms import Alarms
from ringfence.ban_facts import Over, Placed, Restored
from ringfence.clock import Clock
from ringfence.config.converters import SetSize
from ringfence.config.schema import Settings
from ringfence.features.fleet import guard as module
from ringfence.features.fleet.alarms import FleetAlarmCode
from ringfence.features.fleet.denied import Decisions
from ringfence.features.fleet.guard import Fleet, refusal_of
from ringfence.features.fleet.lapi import parse_duration
from ringfence.features.fleet.settings import Access, Sharing
from ringfence.features.fleet.shared import SharedBans
from ringfence.ledger import Ledger, Record, key_of
from ringfence.store.database import Store
from ringfence.values.ban import Ban, BanEnd, Origin, Scope
from ringfence.values.network import pack, unpack
from ringfence.values.secret import Secret

OTHER = ("crowdsecurity/ssh-bf", "203.0.113.9")
MOST = 262_144  # decisions


@pytest.fixture(name="server")
def _server() -> Iterator[FakeApi]:
    """Return a server without faults."""
    with fake_api() as server:
        yield server


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    """Return a new database."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        yield store


def sharing(server: FakeApi) -> Sharing:
    """Return how bans are shared with a server, with the shortest pauses."""
    return Sharing(Access(server.url, MACHINE, lambda: Secret(PASSWORD), lambda: Secret(KEY)), 0.05)


def shared_of(store: Store) -> SharedBans:
    """Return the bans of a database that other hosts may have."""
    return SharedBans(store.connection, store.best_effort)


@define
class Host:
    """A host without a firewall: its task, its alarms, and the decisions that it applies."""

    fleet: Fleet = field(init=False)
    alarms: Alarms = field(factory=lambda: Alarms(Clock()))
    applied: set[str] = field(factory=set)
    applications: int = 0

    async def apply(self, decisions: Decisions) -> None:
        """Apply decisions."""
        self.applied = {str(unpack(int.from_bytes(one, "big")).network_address) for one, _ in decisions}
        self.applications += 1


@asynccontextmanager
async def host(
    server: FakeApi,
    store: Store,
    ledger: Ledger | None = None,
    *,
    enforces: bool = True,
    alarms: Alarms | None = None,
) -> AsyncIterator[Host]:
    """Run the task until the block ends. Without ``enforces``, the host only tries."""
    made, bans = Host(alarms=alarms or Alarms(Clock())), ledger or Ledger()
    made.fleet = Fleet(
        sharing(server), shared_of(store), bans, Clock(), made.alarms, made.apply, MOST, enforces=enforces
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.fleet.run())
        yield made
        task.cancel()


async def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - the server has a thread of its own
            await asyncio.sleep(0.01)


def ban(network: str, scope: Scope = Scope.FULL) -> Ban:
    """Return a ban that began now."""
    return evolve(ban_of(network, time.time(), made=attempts(5, network)), scope=scope)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon after a failure."""
    monkeypatch.setattr("ringfence.features.fleet.channel.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("ringfence.features.fleet.channel.LONGEST_PAUSE", 0.05)


@pytest.mark.parametrize("fact", [partial(Placed, announced=True), Restored], ids=["new", "returning"])
def test_an_unban_frees_what_another_host_banned_first(
    server: FakeApi, store: Store, fact: Callable[[list[Ban]], Placed | Restored]
) -> None:
    """A ban here takes the place of the same decision of another host; its unban leaves none of them.

    So does a ban that returns to the kernel after `ringfence off`, a restart and `ringfence on`.
    """
    mine = ban("198.51.100.7")

    async def play() -> None:
        async with host(server, store) as made:
            server.add("198.51.100.7", "ringfence/guess")
            await until(lambda: made.applied == {"198.51.100.7"})
            made.fleet.on_fact(fact([mine]))
            await until(lambda: made.applied == set())
            made.fleet.on_fact(Over(mine.network, mine.scope, BanEnd.REMOVED))
            await until(lambda: server.values() == set())
            assert made.applied == set()

    asyncio.run(play())


@pytest.mark.parametrize("version", ["1.4.6", "1.7"])
def test_bans_go_out_and_decisions_come_in(server: FakeApi, store: Store, version: str) -> None:
    """Proven bans and their ends reach the API, claimed ones do not; decisions of others are applied."""
    server.version = version

    async def play() -> None:
        async with host(server, store) as made:
            server.add(OTHER[1], OTHER[0], origin="CAPI")
            made.fleet.on_fact(
                Placed(
                    [ban("198.51.100.7"), ban("198.51.100.8", Scope.SIP_UDP), ban("198.51.100.9")],
                    announced=True,
                )
            )
            await until(lambda: len(server.alerts) == 2)
            await until(lambda: made.applied == {OTHER[1]})
            made.fleet.on_fact(Over(ip_network("198.51.100.8"), Scope.SIP_UDP, BanEnd.REMOVED))
            made.fleet.on_fact(Over(ip_network("198.51.100.9"), Scope.FULL, BanEnd.EXPIRED))
            made.fleet.on_fact(Over(ip_network("198.51.100.7"), Scope.FULL, BanEnd.REMOVED))
            await until(lambda: server.values() == {("ringfence/guess", "198.51.100.9"), OTHER})
            mine = {"origin": "ringfence", "node": MACHINE, "decisions": 1}
            await until(lambda: made.fleet.report()["origins"][1:] == [mine])
            report = made.fleet.report()
            assert report["in_force"] == 1
            assert report["origins"][0] == {"origin": "CAPI", "node": "", "decisions": 1}
            assert report["pull"]["last"]
            assert report["push"]["last"]
            assert report["lag"] >= 0.0
            assert made.fleet.alarms() == []

    asyncio.run(play())


def test_a_ban_that_gave_way_at_this_host_stays_at_the_others(server: FakeApi, store: Store) -> None:
    """A full set of this host ends no ban of other hosts, also after a restart; an unban does."""
    made = [ban("198.51.100.7"), ban("198.51.100.8")]
    kept, there = made[0].network, ("ringfence/guess", "198.51.100.7")
    store.records.ban(made)

    async def play() -> None:
        async with host(server, store) as one:
            one.fleet.on_fact(Placed(made, announced=True))
            await until(lambda: len(server.values()) == 2)
            for network, how in ((kept, BanEnd.DISPLACED), (made[1].network, BanEnd.REMOVED)):
                store.records.end([(network, Scope.FULL)], time.time(), how)
                one.fleet.on_fact(Over(network, Scope.FULL, how))
            await until(lambda: server.values() == {there})
            await until(lambda: [gone.network for gone in shared_of(store).ended(time.time())] == [kept])
        async with host(server, store) as again:
            await until(lambda: again.fleet.report()["push"]["last"])
            assert again.fleet.report()["waiting"] == 0
        assert server.values() == {there}

    asyncio.run(play())


def test_a_dry_run_sends_no_ban(server: FakeApi, store: Store) -> None:
    """It applies the decisions of others, and its own bans and their ends change nothing at the API."""
    ledger, running = Ledger(), ban("198.51.100.7")
    ledger.put(key_of(running.network), Record.of(running))
    store.records.ban([running])
    server.add("198.51.100.8")

    async def play() -> None:
        async with host(server, store, ledger, enforces=False) as made:
            tried = [ban("198.51.100.8"), ban("198.51.100.9")]
            made.fleet.on_fact(Restored([running]))
            made.fleet.on_fact(Placed(tried, announced=True))
            await until(lambda: made.fleet.report()["push"]["last"])
            await until(lambda: made.applied == {"198.51.100.8"})
            for one in (running, *tried):
                made.fleet.on_fact(Over(one.network, one.scope, BanEnd.REMOVED))
            await asyncio.sleep(0.3)
            assert not made.fleet.report()["sends"]
            assert made.fleet.report()["waiting"] == 0

    asyncio.run(play())
    assert server.alerts == []
    assert server.values() == {("ringfence/guess", "198.51.100.8")}


def test_an_unban_in_a_dry_run_ends_what_was_sent_before_it(server: FakeApi, store: Store) -> None:
    """A ban that was enforced and sent before the dry run stays at the API until its unban, unrepeated."""
    made, ledger = [ban("198.51.100.7"), ban("198.51.100.8")], Ledger()
    store.records.ban(made)
    for one in made:
        ledger.put(key_of(one.network), Record.of(one))

    async def play() -> None:
        async with host(server, store) as enforcing:
            enforcing.fleet.on_fact(Placed(made, announced=True))
            await until(lambda: len(server.values()) == 2)
        server.decisions = {n: row for n, row in server.decisions.items() if row["value"] != "198.51.100.8"}
        server.alerts.clear()
        await until(lambda: len(shared_of(store).running(time.time())) == 2)  # writes are queued
        async with host(server, store, ledger, enforces=False) as trying:
            await until(lambda: trying.fleet.report()["push"]["last"])
            assert trying.applied == set()
            trying.fleet.on_fact(Over(made[0].network, made[0].scope, BanEnd.REMOVED))
            await until(lambda: server.values() == set())
            await asyncio.sleep(0.2)

    asyncio.run(play())
    assert server.alerts == []


def test_bans_of_the_last_run_are_sent_if_the_api_lacks_them(server: FakeApi, store: Store) -> None:
    """At the start, proven bans of the ledger are compared with the API."""
    ledger, now = Ledger(), time.time()
    for number, scope in ((7, Scope.FULL), (8, Scope.SIP_TCP), (9, Scope.FULL)):
        made = ban(f"198.51.100.{number}", scope)
        ledger.put(key_of(made.network, scope), Record.of(evolve(made, since=now)))
    server.add("198.51.100.9")

    async def play() -> None:
        async with host(server, store, ledger):
            await until(lambda: server.alerts)
            await asyncio.sleep(0.2)

    asyncio.run(play())
    assert [alert["source"]["value"] for alert in server.alerts] == ["198.51.100.7"]


def test_a_restart_sends_no_ban_that_someone_has_deleted(server: FakeApi, store: Store) -> None:
    """At the start, a ban of the ledger that someone deleted at the API is not sent; a missing one is."""
    ledger, since = Ledger(), time.time() - 60.0
    for made in (ban("198.51.100.7"), ban("198.51.100.8")):
        ledger.put(key_of(made.network), Record.of(evolve(made, since=since)))
    server.add("198.51.100.7")
    server._delete("198.51.100.7", "ringfence/guess")

    async def play() -> None:
        async with host(server, store, ledger):
            await until(lambda: server.alerts)
            await asyncio.sleep(0.2)

    asyncio.run(play())
    assert [alert["source"]["value"] for alert in server.alerts] == ["198.51.100.8"]


def test_a_restart_loses_no_unban(server: FakeApi, store: Store) -> None:
    """Unbans that the API did not get are sent after a restart, and those made while it was stopped."""
    made = [ban(f"198.51.100.{number}") for number in range(7, 11)]
    store.records.ban(made)

    async def play() -> None:
        async with host(server, store) as one:
            one.fleet.on_fact(Placed(made, announced=True))
            await until(lambda: len(server.values()) == 4)
            server.always = Fault(status=500)
            for unbanned in made[:2]:
                store.records.end([(unbanned.network, unbanned.scope)], time.time())
                one.fleet.on_fact(Over(unbanned.network, Scope.FULL, BanEnd.REMOVED))
            await until(lambda: one.fleet.report()["push"]["problem"])
        server.forget_tokens()  # a request of this host may arrive late, and must end no ban any more
        server.always = None
        store.records.end([(made[2].network, made[2].scope)], time.time())
        store.records.end([(made[1].network, made[1].scope)], time.time())
        again = evolve(made[1], since=time.time(), expires=time.time() + 60)
        store.records.ban([again])
        ledger = Ledger()
        ledger.put(key_of(again.network, again.scope), Record.of(again))
        await until(lambda: len(shared_of(store).ended(time.time())) == 3)  # writes are queued
        async with host(server, store, ledger):
            there = {("ringfence/guess", "198.51.100.8"), ("ringfence/guess", "198.51.100.10")}
            await until(lambda: server.values() == there)
            # The host runs until it has the answers: otherwise the next one must send the unbans again.
            await until(lambda: shared_of(store).ended(time.time()) == [])
        server.requests.clear()
        async with host(server, store) as last:
            await until(lambda: last.fleet.report()["push"]["last"])
        assert not [one for one in server.requests if one.startswith("DELETE")]

    asyncio.run(play())


@pytest.mark.parametrize(("unbanned", "seconds"), [(True, 1_200.0), (True, 7_200.0), (False, 7_200.0)])
def test_a_restart_while_the_api_fails_loses_no_end(
    server: FakeApi, store: Store, *, unbanned: bool, seconds: float
) -> None:
    """The API gets the end of a ban that followed an unban, or that got longer, while the API failed."""
    first, ledger = ban("198.51.100.7"), Ledger()  # the first one lasts an hour

    def lengths() -> set[float]:
        return {round(parse_duration(row["duration"]), -2) for row in [*server.decisions.values()]}

    async def play() -> None:
        store.records.ban([first])
        async with host(server, store) as one:
            one.fleet.on_fact(Placed([first], announced=True))
            await until(lambda: lengths() == {3_600.0})
            server.always = Fault(status=500)
            if unbanned:
                store.records.end([(first.network, first.scope)], time.time())
                one.fleet.on_fact(Over(first.network, first.scope, BanEnd.REMOVED))
            now = time.time()
            second = evolve(first, since=now, expires=now + seconds)
            ledger.put(key_of(second.network, second.scope), Record.of(second))
            store.records.ban([second])
            one.fleet.on_fact(Placed([second], announced=True))
            await until(lambda: one.fleet.report()["push"]["problem"])
        server.forget_tokens()
        server.always = None
        async with host(server, store, ledger) as again:
            await until(lambda: again.fleet.report()["push"]["last"])
            await until(lambda: again.fleet.report()["waiting"] == 0)
            assert max(lengths()) == seconds

    asyncio.run(play())


@pytest.mark.parametrize("before", [True, False], ids=["before a restart", "after a restart"])
def test_an_unban_ends_a_ban_that_was_extended_by_hand(server: FakeApi, store: Store, before: bool) -> None:  # noqa: FBT001 - a case
    """An unban of a network also ends the rule's ban that another ban has replaced, also over a restart."""
    made = ban("198.51.100.7")
    by_hand = evolve(made, rule="admin", origin=Origin.ADMIN, expires=made.expires + 60)
    ledger = Ledger()
    ledger.put(key_of(made.network, made.scope), Record.of(by_hand))

    def unban(one: Host) -> None:
        store.records.end([(made.network, made.scope)], time.time())
        one.fleet.on_fact(Over(made.network, made.scope, BanEnd.REMOVED))

    async def play() -> None:
        store.records.ban([made])
        async with host(server, store) as one:
            one.fleet.on_fact(Placed([made], announced=True))
            await until(server.values)
            store.records.ban([by_hand])
            one.fleet.on_fact(Placed([by_hand], announced=True))
            server.always = Fault(status=500)
            if before:
                unban(one)
            await until(lambda: one.fleet.report()["pull"]["problem"])
        server.forget_tokens()
        server.always = None
        await until(lambda: [ended.removed for ended in shared_of(store).ended(time.time())] == [before])
        async with host(server, store, Ledger() if before else ledger) as one:
            await until(lambda: one.fleet.report()["pull"]["last"])
            assert one.applied == set()
            if not before:
                unban(one)
            await until(lambda: server.values() == set())

    asyncio.run(play())


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=500), Fault()] * 20,
        [Fault(cut=cut) for cut in range(0, 2_000, 100)],
        [Fault(status=429, pause="0"), Fault(status=403), Fault(status=401), Fault(status=503)] * 3,
    ],
    ids=["500 and 200", "cut", "statuses"],
)
def test_faults_lose_nothing(server: FakeApi, store: Store, faults: list[Fault]) -> None:
    """While the API fails again and again, no decision ends, and in the end every ban has arrived."""
    for number in range(20):
        server.add(f"203.0.113.{number}", "other")

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: len(made.applied) == 20)
            server.faults = [*faults]
            for number in range(30):
                made.fleet.on_fact(Placed([ban(f"198.51.100.{number}")], announced=True))
                await asyncio.sleep(0.01)
                assert len(made.applied) == 20
            await until(lambda: not server.faults and len(server.values()) == 50)
            assert len(made.applied) == 20
            assert made.applications == 1

    asyncio.run(play())


def test_an_answer_without_some_decisions_ends_nothing(server: FakeApi, store: Store) -> None:
    """A well-formed answer that lacks decisions, as 1.7 sends it if its database fails, ends none of them."""
    server.version = "1.7"
    for number in range(20):
        server.add(f"203.0.113.{number}", "other")

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: len(made.applied) == 20)
            stream = "/v1/decisions/stream"
            server.faults = [Fault(status=500, only=stream), Fault(rows=5, only=stream)]
            await until(lambda: not server.faults)
            server.add("203.0.113.20", "other")
            await until(lambda: "203.0.113.20" in made.applied)
            assert len(made.applied) == 21

    asyncio.run(play())


def test_what_an_answer_left_out_comes_soon_after_news(
    server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision that an answer lost is applied soon after another one has come, and nothing is twice."""
    monkeypatch.setattr("ringfence.features.fleet.sync.AGAIN_AFTER", 0.3)

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: made.fleet.report()["pull"]["last"])
            server.faults = [Fault(rows=0, only="/v1/decisions/stream")]
            server.add("203.0.113.1", "other")
            await until(lambda: not server.faults)
            server.add("203.0.113.2", "other")
            await until(lambda: made.applied == {"203.0.113.1", "203.0.113.2"})
            assert made.applications == 2

    asyncio.run(play())


def test_decisions_that_end_one_after_the_other_are_applied_together(
    server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gets a long list whole before the next one, although a decision ends nearly always."""
    monkeypatch.setattr(module, "APPLIED_A_SECOND", 20)
    for number in range(40):
        server.add(f"203.0.113.{number}", "other", f"{1_000 + 50 * number}ms")

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: len(made.applied) == 40)
            await until(lambda: not made.applied)
            assert made.applications < 10

    asyncio.run(play())


def seconds_to_place(made: Host, address: str) -> float:
    """Report a ban to the task; return how long that took."""
    began = time.monotonic()
    made.fleet.on_fact(Placed([ban(address)], announced=True))
    return time.monotonic() - began


def test_a_hanging_api_delays_nothing(server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a request hangs, the event loop goes on, there is an alarm, and the task ends at once."""
    monkeypatch.setattr(module, "QUIET_FOR", 0.1)
    monkeypatch.setattr("ringfence.features.fleet.api.SECONDS", 0.2)
    server.always = Fault(silent=True)

    async def play() -> float:
        async with host(server, store) as made:
            await until(lambda: server.requests)
            took = [seconds_to_place(made, f"198.51.100.{last}") for last in range(7, 12)]
            assert min(took) < 0.1  # a busy machine may stand still during one of them
            server.always = Fault(status=500)
            await until(lambda: len(made.fleet.alarms()) == 2)
            assert {alarm.code for alarm in made.fleet.alarms()} == {FleetAlarmCode.FLEET_FAILED}
            server.always = Fault(silent=True)
            await asyncio.sleep(0.1)
            began = time.monotonic()
        return time.monotonic() - began

    assert asyncio.run(play()) < 20.0


def test_a_request_that_hangs_is_an_alarm_while_it_hangs(
    server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm does not wait for the end of the request, and ends with the next one that succeeds."""
    monkeypatch.setattr(module, "QUIET_FOR", 0.2)
    monkeypatch.setattr("ringfence.features.fleet.api.SECONDS", 1.5)

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: made.fleet.report()["pull"]["last"])
            server.always = Fault(silent=True)
            await until(made.fleet.alarms)
            [alarm] = made.fleet.alarms()
            assert (alarm.code, alarm.text) == (FleetAlarmCode.FLEET_FAILED, "no answer yet")
            assert made.fleet.report()[alarm.subject]["problem"] == "no answer yet"
            server.always = None
            await until(lambda: not made.fleet.alarms())

    asyncio.run(play())


@pytest.mark.parametrize("status", [400, 500])
def test_an_unban_that_always_fails_stops_nothing(
    server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """While the API answers 500 to one unban, bans and other unbans arrive, and an alarm reports it."""
    monkeypatch.setattr(module, "QUIET_FOR", 0.2)

    async def play() -> None:
        async with host(server, store) as made:
            first = [ban(f"198.51.100.{number}") for number in (7, 8)]
            made.fleet.on_fact(Placed(first, announced=True))
            await until(lambda: len(server.values()) == 2)
            server.always = Fault(status=status, only="/v1/decisions?value=198.51.100.7")
            for one in first:
                made.fleet.on_fact(Over(one.network, Scope.FULL, BanEnd.REMOVED))
            made.fleet.on_fact(
                Placed([ban(f"198.51.100.{number}") for number in range(20, 40)], announced=True)
            )
            await until(lambda: len(server.values()) == 21)
            if status == 400:
                await until(
                    lambda: [alarm.code for alarm in made.alarms.active] == [FleetAlarmCode.FLEET_FULL]
                )
                await until(lambda: made.fleet.report()["waiting"] == 0)
                assert made.fleet.report()["lost"] == 1
                return
            text = "1 ban or unban fails again and again: status 500: Internal Server Error"
            alarm = Alarm(FleetAlarmCode.FLEET_FAILED, "retry", text)
            await until(lambda: made.fleet.alarms() == [alarm])
            report = made.fleet.report()
            assert (report["waiting"], report["failing"]) == (1, 1)
            server.always = None
            await until(lambda: len(server.values()) == 20)
            await until(lambda: not made.fleet.alarms())

    asyncio.run(play())


@pytest.mark.parametrize("fresh", [True, False])
def test_an_api_that_refuses_everything_loses_nothing(server: FakeApi, store: Store, *, fresh: bool) -> None:
    """A port that was switched to TLS answers 400 to each request, also to logins; bans and unbans wait."""
    server.expires = 30.0 if fresh else 3_600.0  # seconds; a token of 30 s is replaced for each request

    async def play() -> None:
        async with host(server, store) as made:
            first = ban("198.51.100.7")
            made.fleet.on_fact(Placed([first], announced=True))
            await until(lambda: len(server.values()) == 1)
            server.always = Fault(status=400)
            await until(lambda: made.fleet.report()["pull"]["problem"])
            made.fleet.on_fact(Over(first.network, Scope.FULL, BanEnd.REMOVED))
            made.fleet.on_fact(Placed([ban("198.51.100.8")], announced=True))
            await until(lambda: made.fleet.report()["failing"] == 2)
            server.always = None
            await until(lambda: {value for _, value in server.values()} == {"198.51.100.8"})
            assert made.fleet.report()["lost"] == 0

    asyncio.run(play())


def test_a_token_that_ends_is_replaced(server: FakeApi, store: Store) -> None:
    """Bans are sent on, with one more login, when the API accepts the token no longer."""

    async def play() -> None:
        async with host(server, store) as made:
            for number in range(3):
                made.fleet.on_fact(Placed([ban(f"198.51.100.{number}")], announced=True))
                await until(lambda: len(server.alerts) == number + 1)  # noqa: B023 - it is awaited here
                server.forget_tokens()
            assert server.logins == 3
            assert made.fleet.report()["push"]["problem"] == ""

    asyncio.run(play())


@pytest.mark.parametrize("path", ["/v1/decisions/stream", "/v1/alerts"])
def test_a_pause_that_the_api_asks_for_is_kept(
    server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """After a 429, no request of that direction is sent before the time that it names is over."""
    monkeypatch.setattr("ringfence.features.fleet.channel.LONGEST_PAUSE", 1.0)

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: made.fleet.report()["push"]["last"])
            server.faults = [Fault(status=429, pause="1", only=path)]
            made.fleet.on_fact(Placed([ban("198.51.100.7")], announced=True))
            await until(lambda: not server.faults)
            began, number = time.monotonic(), sum(path in one for one in server.requests)
            await until(lambda: sum(path in one for one in server.requests) > number)
            assert time.monotonic() - began > 0.9
            await until(lambda: len(server.alerts) == 1)

    asyncio.run(play())


def test_decisions_that_cover_too_much_are_an_alarm(server: FakeApi, store: Store) -> None:
    """No API can deny most of the internet: wide networks beyond a limit are left out, and named."""
    for first in (11, 12, 13, 14, 15):
        server.add(f"{first}.0.0.0/8", "other")

    async def play() -> None:
        async with host(server, store) as made:
            await until(made.fleet.alarms)
            [alarm] = made.fleet.alarms()
            assert (alarm.code, alarm.subject) == (FleetAlarmCode.FLEET_FULL, "decisions")
            assert alarm.text.endswith("among others: 15.0.0.0/8 (no room)")
            await until(lambda: len(made.applied) == 4)

    asyncio.run(play())


def crowded(made: Host) -> list[str]:
    """Update the alarms as the daemon does; return the texts of those about others' decisions."""
    made.alarms.hold(made.fleet.alarms())
    return [one.text for one in made.alarms.active if one.subject == "decisions"]


def test_the_alarm_about_decisions_without_room_follows_them(
    server: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dismissed one returns when another decision finds no room; it ends soon after all have room."""
    monkeypatch.setattr("ringfence.features.fleet.sync.AGAIN_AFTER", 0.1)
    for first in (11, 12, 13, 14, 15):
        server.add(f"{first}.0.0.0/8", "other")

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: crowded(made))
            [alarm] = made.alarms.active
            made.alarms.dismiss(alarm.number, "alice")
            server.requests.clear()
            server.add("203.0.113.9", "other")  # news, so that everything is requested again
            await until(lambda: "203.0.113.9" in made.applied)
            await until(lambda: "startup=true" in "".join(server.requests[:-1]))
            assert crowded(made) == []

            server.add("16.0.0.0/8", "other")
            await until(lambda: crowded(made))
            assert [one.number for one in made.alarms.active] == [alarm.number]
            for first in (11, 12):
                server._delete(f"{first}.0.0.0/8", "other")
            await until(lambda: not crowded(made))
            assert made.alarms.records() == []
            fitting = {"203.0.113.9", *(f"{first}.0.0.0" for first in (13, 14, 15, 16))}
            await until(lambda: made.applied == fitting)

    asyncio.run(play())


def test_a_restart_neither_shows_a_dismissed_alarm_nor_keeps_one_that_is_over(
    server: FakeApi, store: Store
) -> None:
    """The alarm about decisions without room waits for the first answer, which decides whether it goes on."""
    for first in (11, 12, 13, 14, 15):
        server.add(f"{first}.0.0.0/8", "other")

    def restored(made: Host) -> Alarms:
        alarms = Alarms(Clock())
        alarms.restore(made.alarms.records(), None)
        return alarms

    async def play() -> None:
        async with host(server, store) as made:
            await until(lambda: crowded(made))
            made.alarms.dismiss(made.alarms.active[0].number, "alice")
        server.always = Fault(status=500)
        async with host(server, store, alarms=restored(made)) as again:
            await until(lambda: again.fleet.report()["pull"]["problem"])
            assert crowded(again) == []
            server.always = None
            await until(again.fleet.alarms)
            assert crowded(again) == []
            assert len(again.alarms.records()) == 1
        server._delete("11.0.0.0/8", "other")
        async with host(server, store, alarms=restored(again)) as last:
            await until(lambda: last.applied)
            await until(lambda: not crowded(last) and not last.alarms.records())

    asyncio.run(play())


def test_a_reload_makes_room_for_decisions(server: FakeApi, store: Store) -> None:
    """What found no room is applied, and its alarm ends, when a reload raises `max_bans`."""
    for number in range(1_030):
        server.add(f"198.51.{number >> 8}.{number & 255}", "other")
    few, more = (
        evolve(Settings(), firewall=evolve(Settings().firewall, max_bans=SetSize(most)))
        for most in (1_024, 2_048)
    )

    async def play() -> None:
        async with host(server, store) as made:
            made.fleet.on_fact(few)
            await until(lambda: len(made.applied) == 1_024)
            assert made.fleet.alarms()
            made.fleet.on_fact(more)
            await until(lambda: len(made.applied) == 1_030)
            assert made.fleet.alarms() == []

    asyncio.run(play())


def test_without_an_api_nothing_happens(store: Store) -> None:
    """Without the table in the configuration there is no request, no alarm, and no report."""
    made = Host()
    fleet = Fleet(None, shared_of(store), Ledger(), Clock(), made.alarms, made.apply, MOST)
    fleet.on_fact(Placed([ban("198.51.100.7")], announced=True))
    fleet.on_fact(Over(ip_network("198.51.100.7"), Scope.FULL, BanEnd.REMOVED))
    asyncio.run(fleet.run())

    assert (fleet.threads(), fleet.alarms(), fleet.report()) == ([], [], {})


def test_each_ban_that_is_not_shared_activates_an_alarm(server: FakeApi, store: Store) -> None:
    """A ban that the API refuses for good is an alarm; the next one shows it again if it was dismissed."""
    server.always = Fault(status=400, only="/v1/alerts")

    async def play() -> None:
        async with host(server, store) as made:
            for times in (1, 2):
                made.fleet.on_fact(Placed([ban(f"198.51.100.{times}")], announced=True))
                await until(lambda: made.alarms.active)
                [alarm] = made.alarms.active
                assert (alarm.code, alarm.times) == (FleetAlarmCode.FLEET_FULL, times)
                made.alarms.dismiss(alarm.number, "alice")
                assert made.alarms.active == []

    asyncio.run(play())


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("203.0.113.0/24", ""),
        ("2001:db8:1::/48", ""),
        ("0.0.0.0/0", "wider than a /8"),
        ("128.0.0.0/7", "wider than a /8"),
        ("2000::/18", "wider than a /19"),
        ("10.1.2.3", "a local network"),
        ("127.0.0.1", "a local network"),
        ("fe80::1", "a local network"),
    ],
)
def test_which_networks_may_be_applied(network: str, reason: str) -> None:
    """Very wide networks and local ones are left out, no matter which host bans them."""
    assert refusal_of(pack(ip_network(network))) == reason
