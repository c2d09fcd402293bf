"""From decisions to bans: what is placed, what is pending, what comes back, and what the store knows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts, ban_of

from ringfence import enforce
from ringfence.detect.detector import Decision, Detector, Standing
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import DAY, HOUR, RETURN_WITHIN, RULES
from ringfence.enforce import ALWAYS_ALLOWED, Clock, Enforcer, listed
from ringfence.errors import ControlError, FirewallError, ProbeError, SetFullError, StoreError
from ringfence.firewall.contract import Add, Change, Element, Opened, Outcome
from ringfence.firewall.memory import MemoryBackend
from ringfence.model import Ban, Network, Origin, Scope
from ringfence.store import Store

START = 1_700_000_000.0
SUBJECT = ip_network("192.0.2.1")
OTHER = ip_network("192.0.2.2")
RULE = RULES[0]


class Faulty(MemoryBackend):
    """The memory backend with faults: what ``refuses`` holds is refused, ``cap`` is the longest timeout."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self.refuses: dict[Network, FirewallError] = {}
        self.gone: FirewallError | None = None
        self.cap = float("inf")
        self.batches: list[Sequence[Change]] = []
        self.lacks: Mapping[int, str | None] = {}

    def open(self) -> Opened:
        """Open, or not."""
        if self.gone is not None:
            raise self.gone
        return evolve(super().open(), families={4: None, 6: None, **self.lacks})

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out what is not refused."""
        self.batches.append(batch)
        if self.gone is not None:
            raise self.gone
        return [self._one(change) for change in batch]

    def _one(self, change: Change) -> Outcome:
        error = self.refuses.get(change.network)
        if error is not None:
            return Outcome(change, error=error)
        asked = evolve(change, timeout=min(change.timeout, self.cap)) if isinstance(change, Add) else change
        return evolve(super().apply([asked])[0], change=change)

    def flush(self) -> None:
        """Flush, or not."""
        if self.gone is not None:
            raise self.gone
        super().flush()


class World:
    """An enforcer with its store and firewall, and the time."""

    def __init__(self, path: Path) -> None:
        self.now = START
        self.backend = Faulty(lambda: self.now)
        self.path = path
        self.start()

    def start(self, never: Sequence[Network] = ()) -> None:
        """Begin, or begin anew over the same store and the same kernel."""
        self.store = Store.open(self.path, owner=True)
        self.detector = Detector(RULES, NetworkSet([*ALWAYS_ALLOWED, *never]))
        clock = Clock(wall=lambda: self.now, mono=lambda: self.now - START)
        self.enforcer = Enforcer(self.backend, self.store, self.detector, clock)
        self.enforcer.start()

    def restart(self, *, reboot: bool = False) -> None:
        """End and begin anew; a reboot empties the kernel."""
        self.store.close()
        if reboot:
            self.backend._ends.clear()
        self.start()

    def decide(self, subject: Network = SUBJECT) -> None:
        """Let the rule decide on ``subject``."""
        made = attempts(5, str(subject.network_address))
        self.enforcer.carry_out(Decision(subject, RULE, made))

    def wait(self, seconds: float) -> None:
        """Let time pass, with the daemon at work."""
        self.now += seconds
        self.enforcer.tend()

    def in_kernel(self) -> dict[str, int]:
        """Give what is banned, and the seconds left."""
        return {str(element.network): round(element.timeout) for element in self.backend.list()}

    def in_store(self) -> dict[str, int]:
        """Give what the store says is running, and the seconds left."""
        return {str(ban.network): round(ban.expires - self.now) for ban in self.store.running(self.now)}

    def held(self, subject: Network = SUBJECT) -> bool:
        """Say whether what comes from ``subject`` now is taken for late."""
        [attempt] = attempts(1, str(subject.network_address))
        standing = self.detector.judge(attempt, self.now - START).standing
        self.detector.forget(subject)
        return standing is Standing.LATE


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    """Give a world, at its beginning."""
    with capture_logs():
        world = World(tmp_path / "ringfence.db")
        yield world
        world.store.close()


@contextmanager
def said() -> Iterator[list[str]]:
    """Give the names of what is logged meanwhile."""
    names: list[str] = []
    with capture_logs() as entries:
        yield names
    names += [str(entry["event"]) for entry in entries]


# -- a ban ------------------------------------------------------------------------------------------------


def test_a_decision_becomes_a_ban(world: World) -> None:
    """The kernel has it, then the store, with its attempts; the subject is held; one line is logged."""
    with capture_logs() as logs:
        world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": 3_600}
    assert world.store.running(START) == [
        Ban(SUBJECT, START, START + HOUR, "guess", RULE.meaning, Origin.RULE, attempts(5))
    ]
    assert world.held()
    assert logs == [
        {
            "event": "ban.placed",
            "log_level": "warning",
            "address": "192.0.2.1/32",
            "seconds": 3_600,
            "rule": "guess",
            "attempts": 5,
            "accounts": ["alice"],
        }
    ]
    assert (world.enforcer.counts.placed, world.enforcer.counts.failed) == (1, 0)


def test_a_hostile_account_is_made_printable_in_the_log(world: World) -> None:
    """What a sender called itself cannot write lines or colours into the log."""
    with capture_logs() as logs:
        made = attempts(5, account="a\n\x1b[31m")
        world.enforcer.carry_out(Decision(SUBJECT, RULE, made))

    assert logs[0]["accounts"] == ["a\\n\\x1b[31m"]


def test_who_comes_back_stays_out_longer(world: World) -> None:
    """Each return within thirty days earns the next length; the last one stays; then it is forgotten."""
    lengths = []
    for _ in range(5):
        world.decide()
        lengths += [world.in_kernel()["192.0.2.1/32"]]
        world.wait(lengths[-1] + 1)
        assert world.in_kernel() == {}
    world.wait(RETURN_WITHIN)
    world.decide()

    assert lengths == [HOUR, 6 * HOUR, DAY, 7 * DAY, 7 * DAY]
    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


def test_the_kernel_is_asked_before_the_database(world: World) -> None:
    """The first exchange of a ban needs no look-up: it is placed at once, and made longer afterwards."""
    world.decide()
    world.wait(HOUR + 1)
    world.backend.batches.clear()
    world.decide()

    assert world.backend.batches == [[Add(SUBJECT, HOUR)], [Add(SUBJECT, 6 * HOUR)]]


# -- a ban that fails -------------------------------------------------------------------------------------


def test_a_refused_ban_is_pending_and_tried_until_it_is_done(world: World) -> None:
    """Said once and loudly, held, never in the store before the kernel has it, recorded once it has."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    with said() as names:
        world.decide()
        world.wait(5)
        world.wait(5)

    assert names == ["ban.failed"]
    assert (world.in_kernel(), world.in_store(), world.enforcer.pending) == ({}, {}, 1)
    assert world.enforcer.firewall_error == "the set is full"
    assert (world.enforcer.counts.placed, world.enforcer.counts.failed) == (0, 1)
    assert world.held()

    world.backend.refuses.clear()
    with said() as names:
        world.wait(5)

    assert names == ["ban.placed"]
    left = {"192.0.2.1/32": round(HOUR) - 15}
    assert (world.in_kernel(), world.in_store(), world.enforcer.pending) == (left, left, 0)
    assert world.enforcer.firewall_error == ""
    assert world.enforcer.counts.placed == 1


def test_a_firewall_that_cannot_speak_is_a_refusal_of_all(world: World) -> None:
    """Where the conversation itself is broken, nothing raises, and every ban is pending."""
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.decide(OTHER)

    assert (world.enforcer.pending, world.in_store()) == (2, {})
    world.backend.gone = None
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.2/32"}


def test_what_is_pending_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a refused ban is dropped, and its sender counted anew instead of held."""
    monkeypatch.setattr(enforce, "MOST_PENDING", 1)
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.decide(OTHER)

    assert (world.enforcer.pending, world.enforcer.counts.failed) == (1, 2)
    assert (world.held(), world.held(OTHER)) == (True, False)


def test_a_pending_ban_ends_with_its_time(world: World) -> None:
    """What could never be placed is given up when it would be over, and so is the complaint."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.wait(HOUR)

    assert (world.enforcer.pending, world.enforcer.firewall_error) == (0, "")
    assert not world.held()


def test_one_success_does_not_hide_what_is_refused(world: World) -> None:
    """While a ban is pending the firewall's error stands, whatever else goes well."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.decide(OTHER)

    assert world.enforcer.firewall_error == "the set is full"


def test_a_refused_ban_that_was_restored_is_no_second_offence(world: World) -> None:
    """A ban of the store that goes back into the kernel late counts once when the length is decided."""
    world.decide()
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.restart(reboot=True)
    assert world.enforcer.pending == 1
    world.backend.refuses.clear()
    world.wait(5)

    assert set(world.in_kernel()) == {"192.0.2.1/32"}
    assert world.store.bans_before(SUBJECT, 0.0) == 1


# -- a store that fails -----------------------------------------------------------------------------------


def broken(world: World, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have methods of the store fail."""

    def fail(*_: Any) -> None:  # noqa: ANN401 - whatever it is called with
        raise StoreError("disk full")

    for name in names or ("record", "end", "bans_before", "purge"):
        monkeypatch.setattr(world.store, name, fail)


def test_a_broken_store_stops_no_ban(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops; that it is not recorded is shown, and said once."""
    broken(world, monkeypatch)
    with said() as names:
        world.decide()
        world.decide(OTHER)

    assert set(world.in_kernel()) == {"192.0.2.1/32", "192.0.2.2/32"}
    assert names == ["store.failed", "ban.placed", "ban.placed"]
    assert world.enforcer.store_error == "disk full"

    monkeypatch.undo()
    world.decide(ip_network("192.0.2.3"))
    assert world.enforcer.store_error == ""


def test_a_broken_store_does_not_keep_the_firewall_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off takes the bans out even where it cannot be remembered, and then says that it cannot."""
    world.decide()
    monkeypatch.setattr(Store, "switched_off", property(lambda _: False, _raise_store_error))
    with pytest.raises(StoreError, match="disk full"):
        world.enforcer.switch_off()

    assert (world.in_kernel(), world.enforcer.enforcing) == ({}, False)


def _raise_store_error(_store: Store, _value: object) -> None:
    raise StoreError("disk full")


def test_what_the_store_lost_is_adopted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ban that was placed and not recorded is found in the kernel at the next start and kept."""
    broken(world, monkeypatch)
    world.decide()
    monkeypatch.undo()
    world.now += 600
    world.restart()

    left = round(HOUR) - 600
    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": left}
    [ban] = world.store.running(world.now)
    assert (ban.origin, ban.rule, ban.attempts) == (Origin.ADOPTED, "adopted", ())
    assert world.held()


# -- start ------------------------------------------------------------------------------------------------


def test_a_restart_keeps_what_is_there(world: World) -> None:
    """Kernel and store agree: nothing is sent, nothing recorded, and the ban is known with its attempts."""
    world.decide()
    world.now += 10
    world.backend.batches.clear()
    with capture_logs() as logs:
        world.restart()

    assert world.backend.batches == []
    assert logs == [{"event": "bans.restored", "log_level": "info", "kept": 1, "put_back": 0, "adopted": 0}]
    [entry] = world.enforcer.listing(world.enforcer.backend.list())
    assert entry.ban is not None
    assert entry.ban.attempts == attempts(5)
    assert world.held()


def test_a_reboot_puts_everything_back_in_one_batch(world: World) -> None:
    """What has time left goes back for the time that it has, in one batch; what is over does not."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"))
    world.enforcer.ban([OTHER], 60.0, "")
    world.now += 600
    world.backend.batches.clear()
    world.restart(reboot=True)

    left = round(HOUR) - 600
    assert len(world.backend.batches) == 1
    assert world.in_kernel() == {"192.0.2.1/32": left, "2001:db8::/64": left}
    assert world.store.bans_before(SUBJECT, 0.0) == 1


def test_a_firewall_that_does_not_open_raises(world: World) -> None:
    """The start fails with the firewall's own word, and nothing is taken to be enforced."""
    world.store.close()
    world.backend.gone = ProbeError("it got through")
    with pytest.raises(ProbeError, match="it got through"):
        world.start()

    assert world.enforcer.enforcing is False


def test_an_element_without_an_end_is_adopted(world: World) -> None:
    """What somebody else put in for ever is listed as such and can be lifted."""
    world.backend._ends[SUBJECT, Scope.FULL] = float("inf")
    world.restart()
    world.wait(RETURN_WITHIN)

    [entry] = world.enforcer.listing(world.enforcer.backend.list())
    assert (entry.element.network, entry.expires) == (SUBJECT, float("inf"))
    assert world.enforcer.unban([SUBJECT]) == []
    assert world.in_kernel() == {}


# -- long bans --------------------------------------------------------------------------------------------


def test_a_ban_longer_than_the_kernel_counts_is_renewed(world: World) -> None:
    """Below half of what was granted it is asked for again, until the ban's own end, and no further."""
    world.backend.cap = 100.0
    world.decide()
    seen: list[int] = []
    while world.in_kernel() and len(seen) < 200:
        seen.append(world.in_kernel()["192.0.2.1/32"])
        world.wait(20.0)

    assert min(seen[:-5]) >= 40
    assert max(seen) <= 100
    assert world.now == START + HOUR
    assert world.store.bans_before(SUBJECT, 0.0) == 1
    assert world.enforcer.counts.placed == 1


def test_a_renewal_that_fails_is_tried_again(world: World) -> None:
    """A refused renewal is shown and repeated while the kernel still has the ban."""
    world.backend.cap = 100.0
    world.decide()
    world.backend.refuses[SUBJECT] = FirewallError("no memory")
    world.wait(60.0)
    assert world.enforcer.firewall_error == "no memory"
    world.backend.refuses.clear()
    world.wait(20.0)

    assert (world.in_kernel(), world.enforcer.firewall_error) == ({"192.0.2.1/32": 100}, "")


def test_a_listing_shows_the_bans_own_end(world: World) -> None:
    """What the kernel holds for less than the ban lasts is listed with the ban's end; the newest is first."""
    world.backend.cap = 100.0
    world.decide()
    world.now += 1
    world.decide(OTHER)

    assert [
        (entry.element.network, entry.expires)
        for entry in world.enforcer.listing(world.enforcer.backend.list())
    ] == [
        (OTHER, START + 1 + HOUR),
        (SUBJECT, START + HOUR),
    ]


def test_what_nobody_knows_is_listed_by_the_kernels_word() -> None:
    """An element without a record has the end that the kernel gives it, and stands last."""
    elements = [Element(OTHER, 50.0, 1, 40), Element(SUBJECT, 60.0, 3, 120)]
    ban = ban_of("192.0.2.1", 1_000.0)

    assert [(entry.ban, entry.expires) for entry in listed(elements, {SUBJECT: ban}, 1_000.0)] == [
        (ban, 4_600.0),
        (None, 1_050.0),
    ]


# -- off and on -------------------------------------------------------------------------------------------


def test_off_takes_everything_and_stays(world: World) -> None:
    """The kernel is empty, decisions are only said, a restart changes nothing, and commands are refused."""
    world.decide()
    world.enforcer.switch_off()
    assert world.in_kernel() == {}
    assert not world.held()
    with said() as names:
        world.decide(OTHER)
        world.wait(5)
    assert names == ["ban.not_enforced"]
    assert world.held(OTHER)

    world.restart()
    world.decide(ip_network("192.0.2.3"))
    assert (world.in_kernel(), world.enforcer.enforcing, world.enforcer.opened) == ({}, False, None)
    for refused in (
        lambda: world.enforcer.ban([OTHER], 60.0, ""),
        lambda: world.enforcer.unban([OTHER]),
        world.enforcer.unban_all,
    ):
        with pytest.raises(ControlError, match="switched off; switch it on with: ringfence on"):
            refused()


def test_on_brings_back_what_has_time_left(world: World) -> None:
    """Bans that were running are put back; who was only seen is counted from nothing."""
    world.decide()
    world.enforcer.switch_off()
    world.decide(OTHER)
    world.now += 600
    world.enforcer.switch_on()

    assert world.in_kernel() == {"192.0.2.1/32": round(HOUR) - 600}
    assert world.held()
    assert not world.held(OTHER)
    world.enforcer.switch_on()  # may be repeated
    assert world.store.switched_off is False


def test_off_is_remembered_even_if_the_kernel_will_not_let_go(world: World) -> None:
    """Where the firewall cannot be taken away whole, off says so, and stays off."""
    world.decide()
    world.backend.gone = FirewallError("a set is in use")
    with pytest.raises(FirewallError, match="a set is in use"):
        world.enforcer.switch_off()

    assert (world.store.switched_off, world.enforcer.enforcing) == (True, False)


# -- by hand ----------------------------------------------------------------------------------------------


def test_a_ban_by_hand(world: World) -> None:
    """An administrator's bans are placed and recorded as such, and are no offence of the address."""
    assert world.enforcer.ban([SUBJECT, ip_network("2001:db8::/32")], 90.0, "a reason") == []

    assert world.in_kernel() == {"192.0.2.1/32": 90, "2001:db8::/32": 90}
    assert world.store.running(START)[0] == Ban(
        SUBJECT, START, START + 90.0, "admin", "a reason", Origin.ADMIN
    )
    assert world.store.bans_before(SUBJECT, 0.0) == 0


def test_who_is_never_banned_is_not_banned_by_hand(world: World) -> None:
    """Loopback, and what touches the allowlist from within or around, is refused line by line."""
    world.enforcer.allow(NetworkSet([*ALWAYS_ALLOWED, ip_network("198.51.100.0/24")]))
    texts = ["127.0.0.1", "0.0.0.0/0", "::1", "198.51.100.7", "198.51.0.0/16", "192.0.2.1"]
    refused = world.enforcer.ban([ip_network(text) for text in texts], 60.0, "")

    assert refused == [f"{ip_network(text)}: is never banned" for text in texts[:-1]]
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


def test_a_ban_by_hand_that_fails_is_told_and_kept(world: World) -> None:
    """The administrator learns what the kernel said; the ban is tried again as any other."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")

    assert world.enforcer.ban([SUBJECT, OTHER], 60.0, "") == ["192.0.2.1/32: the set is full"]
    world.backend.refuses.clear()
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.2/32"}


def test_unban_lifts_the_bans_around(world: World) -> None:
    """An address within a banned /64 or prefix is let in by lifting that; others stay; strangers are told."""
    for text in ("2001:db8::/64", "192.0.2.0/24", "192.0.2.1", "192.0.2.2", "2001:db8:0:1::/64"):
        world.enforcer.ban([ip_network(text)], 60.0, "")
    with said() as names:
        problems = world.enforcer.unban([ip_network("2001:db8::5"), SUBJECT, ip_network("203.0.113.1")])

    assert problems == ["203.0.113.1/32: is not banned"]
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.2/32", "2001:db8:0:1::/64"}
    assert names == ["ban.lifted"]
    assert world.enforcer.counts.lifted == 3


def test_who_is_let_in_is_counted_from_nothing(world: World) -> None:
    """After an unban the subject is held no more, and its next offence earns the next length."""
    world.decide()
    world.enforcer.unban([SUBJECT])
    assert not world.held()
    world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": 6 * HOUR}


def test_unban_reaches_what_is_pending(world: World) -> None:
    """A ban that the kernel has not taken yet is given up by an unban."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.backend.refuses.clear()

    assert world.enforcer.unban([SUBJECT]) == []
    assert (world.enforcer.pending, world.enforcer.firewall_error) == (0, "")
    world.wait(5)
    assert world.in_kernel() == {}


def test_a_ban_that_the_kernel_does_not_let_go_is_told(world: World) -> None:
    """What could not be lifted is a line, and stays a ban in every book."""
    world.decide()
    world.decide(OTHER)
    world.backend.refuses[SUBJECT] = FirewallError("no answer")

    assert world.enforcer.unban([SUBJECT, OTHER]) == ["192.0.2.1/32: no answer"]
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}
    with pytest.raises(ControlError, match=r"192\.0\.2\.1/32: no answer"):
        world.enforcer.unban_all()


def test_everybody_is_let_in(world: World) -> None:
    """unban_all lifts every ban, also those that only the kernel knows, and says how many."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"))
    world.backend._ends[OTHER, Scope.FULL] = START + 60

    assert world.enforcer.unban_all() == 3
    assert (world.in_kernel(), world.in_store()) == ({}, {})
    assert world.enforcer.unban_all() == 0


# -- never banned -----------------------------------------------------------------------------------------


def test_to_be_allowed_is_to_be_let_in_at_once(world: World) -> None:
    """A network that comes onto the allowlist frees every ban that touches it, pending ones too."""
    for text in ("192.0.2.1", "2001:db8::/64", "203.0.113.0/24"):
        world.decide(ip_network(text))
    world.backend.refuses[OTHER] = SetFullError("the set is full")
    world.decide(OTHER)
    del world.backend.refuses[OTHER]
    allowed = [ip_network(text) for text in ("192.0.2.0/24", "2001:db8::7", "198.51.100.1")]
    world.enforcer.allow(NetworkSet([*ALWAYS_ALLOWED, *allowed]))

    assert set(world.in_kernel()) == set(world.in_store()) == {"203.0.113.0/24"}
    assert world.enforcer.pending == 0
    world.wait(5)
    assert set(world.in_kernel()) == {"203.0.113.0/24"}


def test_a_friend_whom_the_kernel_does_not_let_go_is_tried_again(world: World) -> None:
    """Where lifting fails, it is said once and repeated until the friend is in."""
    world.decide()
    world.backend.gone = FirewallError("no answer")
    with said() as names:
        world.enforcer.allow(NetworkSet([*ALWAYS_ALLOWED, SUBJECT]))
        world.wait(5)
        world.wait(5)
    assert names == ["unban.failed"]
    assert world.enforcer.firewall_error == "no answer"

    world.backend.gone = None
    world.wait(5)
    assert (world.in_kernel(), world.in_store(), world.enforcer.firewall_error) == ({}, {}, "")


def test_a_friend_is_not_put_back(world: World) -> None:
    """A ban of the store that touches the allowlist is lifted when the daemon starts."""
    world.decide()
    world.restart(reboot=True)
    world.enforcer.allow(NetworkSet([*ALWAYS_ALLOWED, SUBJECT]))

    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_purge_reaches_the_store(world: World) -> None:
    """What ended long ago is forgotten, and a failure of it is shown."""
    world.decide()
    world.now += 200 * DAY
    world.enforcer.purge()

    assert world.store.bans_before(SUBJECT, 0.0) == 0
