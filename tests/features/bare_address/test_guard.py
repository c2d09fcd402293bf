"""The rule ``bare_address`` in the daemon: whom it bans, and what it shows of friends."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.parse.test_answers import ipv4, udp
from tests.support.kept import PHONE, Kept, kept, settings
from tests.support.tables import with_tables

from ringfence.bans.unban import unban_claims, unban_friends
from ringfence.config.converters import HostName, PerMinute
from ringfence.config.schema import ClaimedSettings, Settings
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.features.bare_address.guard import BareAddress, CopySource, build
from ringfence.features.bare_address.settings import BareAddressSettings, problems
from ringfence.features.bare_address.target import Asked, Target
from ringfence.firewall.limits import LimitMode
from ringfence.guard.pipeline import EffectHandler
from ringfence.netlink.nflog import Logged
from ringfence.values.event import Endpoint, Transport
from ringfence.values.friend import FriendReason
from ringfence.values.network import Address

STRANGER, ALICE, TRUNK = map(ip_address, ("203.0.113.7", "192.0.2.1", "198.18.9.9"))
BARE, NAMED = Target("198.51.100.9", "198.51.100.9"), Target("198.51.100.9", "pbx.example.org")
ENFORCE, OBSERVE = LimitMode.ENFORCE, LimitMode.OBSERVE


def configured(mode: LimitMode, per_minute: int = 600) -> Settings:
    """Return a configuration with the rule in this mode, and so many claimed bans a minute."""
    table = BareAddressSettings(mode, (HostName("PBX.example.org."),))
    claimed = evolve(ClaimedSettings(), per_minute=PerMinute(per_minute))
    return with_tables(settings("198.51.100.0/24"), bare_address=table, claimed=claimed)


class Judging:
    """The rule with the daemon's parts; alice is a friend, and a trunk is."""

    def __init__(self, made: Kept, wanted: Settings) -> None:
        self.made = made
        self.judgements: list[Judgement] = []
        self.connected: set[Endpoint] = set()
        self.friends = made.side.exempt.friends
        effects = EffectHandler(made.enforcer, made.alarms, self.friends, [self])
        connections: Any = SimpleNamespace(
            refresh=lambda _: None, has=lambda remote, _: remote in self.connected
        )
        self.rule = BareAddress(made.side, effects, connections, wanted)
        self.friends.on_login(PHONE)
        self.friends.add(
            [evolve(PHONE, address=TRUNK, account="carrier", reason=FriendReason.TRUNK)],
        )

    def on_judgement(self, judgement: Judgement) -> None:
        """Keep a judgement."""
        self.judgements.append(judgement)

    def ask(
        self, address: Address = STRANGER, target: Target = BARE, transport: Transport = Transport.UDP
    ) -> list[Disposition]:
        """Send a request; return how its attempt was treated."""
        self.judgements.clear()
        self.rule.on_request(Asked(Endpoint(address, 5062, transport), target), self.made.clock.mono())
        return [one.disposition for one in self.judgements]

    @property
    def bans(self) -> list[tuple[str, str, str]]:
        """The address, the scope and the rule of each ban."""
        ledger = self.made.enforcer.ledger
        bans = [ledger.ban(key) for key in ledger.all_keys()]
        return [(str(ban.network), str(ban.scope), ban.rule) for ban in bans if ban is not None]

    @property
    def state(self) -> Any:  # noqa: ANN401 - any JSON value
        """What the status has of the rule."""
        return self.rule.section().as_json()["bare_address"]


@contextmanager
def judging(folder: Path, mode: LimitMode = ENFORCE, per_minute: int = 600) -> Iterator[Judging]:
    """Yield the rule in this mode."""
    wanted = configured(mode, per_minute)
    with kept(folder, wanted) as made:
        made.side.start()
        # ``kept`` has no wire.
        yield Judging(made, wanted)


def test_a_stranger_is_banned_at_once(tmp_path: Path) -> None:
    """Its later requests are late; the ban covers only UDP, and is longer on return."""
    with judging(tmp_path) as found:
        assert found.ask() == [Disposition.COUNTED]
        assert found.bans == [("203.0.113.7/32", "sip-udp", "bare_address")]
        assert found.ask() == [Disposition.LATE]
        [judgement] = found.judgements
        assert (str(judgement.attempt.kind), judgement.attempt.trusted) == ("bare address", True)


def test_by_tcp_a_connection_is_needed(tmp_path: Path) -> None:
    """A segment without a connection may be forged; with one, the ban covers TCP."""
    with judging(tmp_path) as found:
        assert found.ask(transport=Transport.TCP) == []
        found.connected.add(Endpoint(STRANGER, 5062, Transport.TCP))
        assert found.ask(transport=Transport.TCP) == [Disposition.COUNTED]
        assert found.bans == [("203.0.113.7/32", "sip-tcp", "bare_address")]


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::1"])
def test_who_asks_for_a_name_is_not_hit(tmp_path: Path, address: str) -> None:
    """The name of the PBX, and the host or address of a trunk count, in the request line or in To."""
    with judging(tmp_path) as found:
        found.made.side.exempt.names.want(["sip.carrier.example"], by="friends")
        found.rule._find_hosts()
        for host in ("pbx.example.org", "sip.carrier.example", str(TRUNK)):
            for target in (Target(host, "198.51.100.9"), Target("192.0.2.77", host)):
                assert found.ask(ip_address(address), target) == []
        assert found.bans == []
        assert found.ask(ip_address(address), Target(str(ALICE), "example.org")) == [Disposition.COUNTED]


def test_allowed_addresses_and_friends_are_not_hit(tmp_path: Path) -> None:
    """A friend is named, also if only its /64 has a phone."""
    with judging(tmp_path) as found:
        near = ip_address("2001:db8::7")
        found.friends.on_login(evolve(PHONE, address=ip_address("2001:db8::1")))
        assert found.ask(ip_address("198.51.100.7")) == []
        assert found.ask(ALICE) == []
        assert found.ask(TRUNK, NAMED) == []
        assert found.ask(near) == [Disposition.COUNTED]
        assert found.bans == []
        state = found.state
        [friend] = state["friends"]
        assert (state["without_name"], state["seen"]) == (1, 2)
        assert (friend["address"], friend["accounts"]) == (str(ALICE), ["alice"])
        assert friend["host"] == "198.51.100.9"


def test_observing(tmp_path: Path) -> None:
    """A stranger's request is an attempt that no rule counts, and nobody is banned."""
    with judging(tmp_path, OBSERVE) as found:
        assert found.ask() == [Disposition.NO_RULE]
        assert found.ask(target=NAMED) == []
        assert found.bans == []
        assert found.rule.section().as_json()["bare_requests"] == 1
        assert found.state["requests"] == 2


def test_bans_on_forged_requests_are_limited(tmp_path: Path) -> None:
    """Beyond the limit of ``[claimed]`` a new sender is not banned; a new configuration has a new limit."""
    with judging(tmp_path, per_minute=2) as found:
        for number in range(4):
            assert found.ask(ip_network("203.0.113.0/24")[number]) == [Disposition.COUNTED]
        assert len(found.bans) == 2
        assert [alarm.code for alarm in found.made.alarms.active] == ["attack.spoofing"]
        found.rule.on_fact(configured(ENFORCE, 2))
        found.ask(ip_address("203.0.113.99"))
        assert len(found.bans) == 2
        found.rule.on_fact(configured(ENFORCE, 3))
        found.ask(ip_address("203.0.113.99"))
        assert len(found.bans) == 3


def test_friends_are_remembered(tmp_path: Path) -> None:
    """A later start of the daemon knows since when friends are watched, and what they asked for."""
    with judging(tmp_path, OBSERVE) as found:
        found.ask(ALICE)
        since = found.state["since"]
        found.rule._tick()
        found.made.store.best_effort.write_kept()
        found.made.now += 3_600
        again = Judging(found.made, configured(OBSERVE))
        assert (again.state["since"], again.state["without_name"]) == (since, 1)
        assert again.state["watched"] == 3_600
        [job] = again.rule.jobs()
        job.close()


def test_a_full_disk_gets_one_write_about_friends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one waits, no other is queued, so days of a full disk push no ban out; then all is written."""
    with judging(tmp_path, OBSERVE) as found:
        best_effort = found.made.store.best_effort
        monkeypatch.setattr(best_effort, "_later", lambda _: None)
        for address in (ALICE, TRUNK, ALICE):
            found.ask(address)
            found.rule._tick()
        assert len(best_effort.waiting_calls(found.rule._table.save)) == 1

        best_effort.write_kept()
        found.rule._tick()
        best_effort.write_kept()
        assert Judging(found.made, configured(OBSERVE)).state["seen"] == 2


@pytest.mark.parametrize("step", [-86_400.0, 30 * 86_400.0])
def test_a_set_clock_leaves_what_friends_asked_for(tmp_path: Path, step: float) -> None:
    """When the clock is set, the time since then stays, also for a later start of the daemon."""
    with judging(tmp_path, OBSERVE) as found:
        found.made.side.common.listeners.append(found.rule)
        found.ask(ALICE)
        found.made.now += 3_600
        found.made.ahead = step
        assert found.state["watched"] == 3_600
        assert found.state["without_name"] == 1
        found.rule._tick()
        found.made.store.best_effort.write_kept()
        again = Judging(found.made, configured(OBSERVE))
        assert (again.state["watched"], again.state["without_name"]) == (3_600, 1)
        found.made.now += 7 * 86_400
        assert found.state["without_name"] == 0


def test_a_friend_is_no_longer_named_when_its_host_is_a_domain(tmp_path: Path) -> None:
    """An administrator who adds the host that ``ringfence check`` names is not told it again for a week."""
    with judging(tmp_path, OBSERVE) as found:
        found.ask(ALICE, Target("voip.example.org", "voip.example.org"))
        assert found.state["without_name"] == 1
        found.rule._tick()
        found.made.store.best_effort.write_kept()
        table = BareAddressSettings(OBSERVE, (HostName("voip.example.org"),))
        again = Judging(found.made, with_tables(configured(OBSERVE), bare_address=table))
        assert (again.state["seen"], again.state["without_name"]) == (1, 0)


def test_copies_are_passed_on() -> None:
    """What is no request that counts is left out."""
    found: list[Asked] = []
    source = CopySource("copies", 1, lambda asked, _: found.append(asked))
    request = b"OPTIONS sip:1@198.51.100.9 SIP/2.0\r\nTo: <sip:1@198.51.100.9>\r\n\r\n"
    for text in (request, request.replace(b"OPTIONS", b"BYE")):
        source.on_packet(Logged(None, ipv4(udp(text)), own=False, prefix=b"", user=None), 0.0)
    assert [one.target for one in found] == [BARE]
    assert (source.numbers["events"], source.id) == (1, "copies")


def test_it_is_built_if_it_is_on(tmp_path: Path) -> None:
    """It is off by default, and without the wire: the kernel copies nothing then."""
    with kept(tmp_path) as made:
        added: list[CopySource] = []
        given: Any = SimpleNamespace(
            side=made.side, effects=None, connections=None, sources=SimpleNamespace(add=added.append)
        )
        for wanted in (settings(), configured(ENFORCE).without_wire()):
            given.reloader = SimpleNamespace(settings=wanted)
            assert build(given) is None
        given.reloader = SimpleNamespace(settings=configured(OBSERVE))
        assert build(given) is not None
        given.reloader = SimpleNamespace(settings=configured(ENFORCE))
        assert build(given) is not None
        assert [source.id for source in added] == ["bare_address", "bare_address_friends"] * 2
        assert [source._gathers for source in added] == [True, True, False, True]


def test_a_mode_needs_domains() -> None:
    """Without any, each stranger would ask for a bare address."""
    assert problems(BareAddressSettings(), {}) == []
    assert problems(BareAddressSettings(ENFORCE, (HostName("pbx.example.org"),)), {}) == []
    [problem] = problems(BareAddressSettings(OBSERVE), {})
    assert problem.startswith("bare_address.domains: ")


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
@pytest.mark.parametrize("by_login", [True, False])
def test_a_new_friend_is_not_hit_any_more(
    tmp_path: Path,
    transport: Transport,
    by_login: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The first login of a phone at a banned address, and its contact, end the ban, as other claimed ones."""
    with judging(tmp_path) as found:
        found.connected.add(Endpoint(STRANGER, 5062, Transport.TCP))
        assert found.ask(transport=transport) == [Disposition.COUNTED]
        assert len(found.bans) == 1
        friend = evolve(PHONE, address=STRANGER)
        found.friends.on_login(friend)
        if by_login:
            unban_claims(found.made.enforcer, friend)
        else:
            unban_friends(found.made.enforcer, [STRANGER])
        assert found.bans == []
