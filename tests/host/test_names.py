"""Host names that are followed, against a small DNS server on loopback."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path

import dns.asyncresolver
import pytest
from tests.support.nameserver import NameServer, Zone, name_server

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.host import names
from ringfence.host.names import KEPT_FOR, MOST_ADDRESSES, MOST_NAMES, Answers, Names, ResolvedNames
from ringfence.values.network import Network

PATIENCE = 20.0
SHORT = 0.3
CARRIER = "sip.carrier.example"


def nets(*texts: str) -> frozenset[Network]:
    """Return the networks of these texts."""
    return frozenset(ip_network(text) for text in texts)


def aged(text: str, age: float = 0.0) -> dict[Network, float]:
    """Return the network of this text with its age."""
    return {ip_network(text): age}


class Followed:
    """A running ``Names`` with its DNS server, and the answers that it reported."""

    def __init__(self, server: NameServer, known: Answers | None, patience: float) -> None:
        self.server = server
        self.seen: list[Answers] = []
        self.names = Names(
            {name: dict.fromkeys(networks, 0.0) for name, networks in (known or {}).items()},
            nameservers=["127.0.0.1"],
            port=server.port,
            patience=patience,
            shortest=0.05,
        )

    async def record(self) -> None:
        """Record the answers after each change."""
        while True:
            await self.names.changed.wait()
            self.names.changed.clear()
            self.seen.append(self.names.answers)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():  # noqa: ASYNC110 - what is waited for is a condition, not an event
                await asyncio.sleep(0.01)

    async def until_asked(self, times: int = 1) -> None:
        """Wait until ``times`` more rounds of queries are complete."""
        before = self.server.asked.count((CARRIER, "AAAA"))
        await self.until(lambda: self.server.asked.count((CARRIER, "AAAA")) >= before + times + 1)


def follow(
    zone: Zone,
    script: Callable[[Followed], Awaitable[None]],
    *,
    known: Answers | None = None,
    ttl: int = 0,
    prepare: Callable[[NameServer], None] = lambda _server: None,
    patience: float = PATIENCE,
) -> Followed:
    """Follow the carrier's name while the script runs.

    Tests use a short ``patience`` if they expect no answer.
    """

    async def all_of_it() -> Followed:
        async with name_server(zone, ttl) as server, asyncio.TaskGroup() as group:
            prepare(server)
            followed = Followed(server, known, patience)
            followed.names.want([CARRIER])
            tasks = [group.create_task(one) for one in (followed.names.run(), followed.record())]
            try:
                await script(followed)
                await asyncio.sleep(0)  # if the answers have just changed, they are recorded
            finally:
                for task in tasks:
                    task.cancel()
        return followed

    return asyncio.run(all_of_it())


def _silence(server: NameServer) -> None:
    server.silent = True


@pytest.fixture(autouse=True)
def _no_hosts_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replace the hosts file of this machine with a missing one."""
    monkeypatch.setattr(names, "HOSTS_FILE", tmp_path / "hosts")
    monkeypatch.setattr(names, "FIRST_RETRY", 0.05)


@pytest.fixture
def _no_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """End an address with the first answer that lacks it, and not a day later."""
    monkeypatch.setattr(names, "KEPT_FOR", 0.0)


def test_a_name_leads_to_its_addresses() -> None:
    """A and AAAA records are found, mapped addresses become IPv4, and the result is reported once."""
    zone: Zone = {
        (CARRIER, "A"): ["192.0.2.1", "192.0.2.2"],
        (CARRIER, "AAAA"): ["2001:db8::1", "::ffff:192.0.2.3"],
    }

    async def script(followed: Followed) -> None:
        await followed.until_asked(2)

    followed = follow(zone, script)

    assert followed.seen == [{CARRIER: nets("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")}]
    assert followed.names.alarms == []


def test_a_name_may_have_sip_services_only() -> None:
    """The hosts of a name's SRV records provide its addresses; a lone dot is not a host."""
    zone: Zone = {
        (f"_sip._udp.{CARRIER}", "SRV"): ["10 5 5060 a.carrier.example.", "20 5 5060 b.carrier.example."],
        (f"_sip._tcp.{CARRIER}", "SRV"): ["0 0 0 ."],
        ("a.carrier.example", "A"): ["192.0.2.1"],
        ("b.carrier.example", "AAAA"): ["2001:db8::2"],
    }

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)

    followed = follow(zone, script)

    assert followed.seen[0] == {CARRIER: nets("192.0.2.1", "2001:db8::2")}
    assert (".", "A") not in followed.server.asked


def test_answers_are_followed() -> None:
    """A later DNS answer adds its addresses to those of the earlier one."""
    zone: Zone = {(CARRIER, "A"): ["192.0.2.1"]}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        zone[CARRIER, "A"] = ["192.0.2.9"]
        await followed.until(lambda: len(followed.seen) == 2)

    both = nets("192.0.2.1", "192.0.2.9")
    assert follow(zone, script).seen == [{CARRIER: nets("192.0.2.1")}, {CARRIER: both}]


def test_an_answer_with_some_addresses_ends_no_other() -> None:
    """If the answers rotate, an address stays for a day after the last one that contained it."""
    names = Names()
    names.want([CARRIER])
    one, other = (ResolvedNames(nets(text)) for text in ("192.0.2.1", "192.0.2.2"))
    for now in range(0, 600, 60):
        names._take(CARRIER, one, now)
        names._take(CARRIER, other, now + 30.0)
        assert names.changed.is_set() is (now == 0)
        names.changed.clear()
    for now in range(600, 86_700, 300):  # the address was last in the answer of the second 540
        names._take(CARRIER, other, now)
    assert names.answers == {CARRIER: nets("192.0.2.1", "192.0.2.2")}
    assert not names.changed.is_set()
    for now in (86_700, 87_000):
        names._take(CARRIER, other, now)
    assert names.answers == {CARRIER: nets("192.0.2.2")}
    assert names.changed.is_set()


def test_an_outage_ends_no_address() -> None:
    """However long the DNS is silent, or has no address, this counts as five minutes."""
    names = Names({CARRIER: aged("192.0.2.1", KEPT_FOR - 700.0)})
    names.want([CARRIER])
    silent, present = ResolvedNames(frozenset(), trouble="silent"), ResolvedNames(nets("192.0.2.2"))
    for day in (1, 2, 3):
        names._take(CARRIER, silent, day * KEPT_FOR)
    assert names.answers == {CARRIER: nets("192.0.2.1")}
    for day in (4, 5):
        names._take(CARRIER, present, day * KEPT_FOR)
    assert names.ages == {CARRIER: aged("192.0.2.2") | aged("192.0.2.1", KEPT_FOR - 100.0)}
    names._take(CARRIER, present, 6 * KEPT_FOR)
    assert names.answers == {CARRIER: nets("192.0.2.2")}


def test_names_that_no_part_wants_yet_are_saved_for_a_day() -> None:
    """AMI may be down from the start: then the names of its trunks are not wanted, but saved for a day."""
    names = Names({CARRIER: aged("192.0.2.1", 60.0)})
    names.want(["other.example"], by="lists")
    names._take("other.example", ResolvedNames(nets("192.0.2.9")), 0.0)
    assert names.saved.keys() == {CARRIER, "other.example"}
    assert names.saved[CARRIER].keys() == nets("192.0.2.1")
    names._began -= KEPT_FOR
    assert names.saved == {"other.example": aged("192.0.2.9")}
    names.want([CARRIER], by="friends")
    assert names.saved == {"other.example": aged("192.0.2.9"), CARRIER: aged("192.0.2.1", 60.0)}


def test_the_last_answer_stays_while_the_dns_is_down() -> None:
    """A silent DNS server removes no address, and the alarm lasts until the server answers again."""
    zone: Zone = {(CARRIER, "A"): ["192.0.2.1"]}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        followed.server.silent = True
        await followed.until(lambda: followed.names.alarms)
        assert followed.names.alarms == [
            Alarm(AlarmCode.NAME_UNRESOLVED, CARRIER, "the DNS does not answer; its last addresses stay")
        ]
        assert followed.names.answers == {CARRIER: nets("192.0.2.1")}
        zone[CARRIER, "A"] = ["192.0.2.2"]
        followed.server.silent = False
        await followed.until(lambda: not followed.names.alarms)

    followed = follow(zone, script, patience=SHORT)

    assert followed.seen[0] == {CARRIER: nets("192.0.2.1")}
    assert followed.seen[-1] == {CARRIER: nets("192.0.2.1", "192.0.2.2")}


def test_stored_answers_apply_while_the_dns_is_down() -> None:
    """After a restart with a silent DNS server, the stored answers apply, and nothing is reported."""
    known = {CARRIER: nets("192.0.2.1"), "trunk.example": nets("192.0.2.2")}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.names.alarms)
        assert followed.names.answers == known

    followed = follow({}, script, known=known, prepare=_silence, patience=SHORT)

    assert followed.seen == []


def test_stored_answers_wait_for_the_part_that_wants_them() -> None:
    """At the start the lists want their names before the trunks are known: a trunk keeps its addresses."""
    names = Names({CARRIER: aged("192.0.2.1")})
    for wanted, part in (("other.example", "lists"), (CARRIER, "friends")):
        names.want([wanted], by=part)
        assert names.answers == {CARRIER: nets("192.0.2.1")}
    names.want([], by="friends")
    names.want([CARRIER], by="friends")
    assert names.answers == {}


@pytest.mark.usefixtures("_no_day")
def test_a_query_that_fails_keeps_its_last_addresses() -> None:
    """If one of the queries fails, its last addresses stay; those of the others are replaced."""
    zone: Zone = {(CARRIER, "A"): ["192.0.2.1"], (CARRIER, "AAAA"): ["2001:db8::1"]}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        followed.server.failing = {"AAAA"}
        zone[CARRIER, "A"] = ["192.0.2.2"]
        await followed.until(lambda: len(followed.seen) == 2)
        zone[CARRIER, "A"] = ["192.0.2.3"]
        await followed.until(lambda: len(followed.seen) == 3)

    followed = follow(zone, script)

    assert followed.seen[1] == {CARRIER: nets("192.0.2.2", "2001:db8::1")}
    assert followed.seen[2] == {CARRIER: nets("192.0.2.3", "2001:db8::1")}
    [alarm] = followed.names.alarms
    assert (alarm.code, alarm.subject) == ("name.unresolved", CARRIER)
    assert alarm.text.startswith("the DNS gives no answer to AAAA")


@pytest.mark.usefixtures("_no_day")
def test_a_failed_search_for_servers_keeps_the_last_ones() -> None:
    """While the SRV query fails, the addresses of its last servers are still followed."""
    server = "proxy.carrier.example"
    zone: Zone = {(f"_sip._udp.{CARRIER}", "SRV"): [f"0 0 5060 {server}."], (server, "A"): ["192.0.2.1"]}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        followed.server.failing = {"SRV"}
        zone[server, "A"] = ["192.0.2.2"]
        await followed.until(lambda: len(followed.seen) == 2)

    assert follow(zone, script).seen[1] == {CARRIER: nets("192.0.2.2")}


def test_present_addresses_precede_those_of_an_earlier_run() -> None:
    """Stored addresses stay beside those of the answers; if there are too many, the latest ones count."""
    earlier = nets(*(f"192.0.2.{n}" for n in range(MOST_ADDRESSES)))
    zone: Zone = {(CARRIER, "A"): ["198.51.100.1"]}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: nets("198.51.100.1") <= followed.names.answers[CARRIER])
        assert len(followed.names.answers[CARRIER]) == MOST_ADDRESSES
        zone[CARRIER, "A"] = ["198.51.100.2"]
        await followed.until(lambda: nets("198.51.100.2") <= followed.names.answers[CARRIER])
        assert nets("198.51.100.1") <= followed.names.answers[CARRIER]
        assert len(followed.names.answers[CARRIER]) == MOST_ADDRESSES

    follow(zone, script, known={CARRIER: earlier})


def test_a_name_without_addresses_keeps_its_last_ones() -> None:
    """A name without addresses keeps its last ones, because an outage of a zone must not ban a carrier."""
    zone: Zone = {(CARRIER, "A"): ["192.0.2.1"]}

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        zone.clear()
        await followed.until(lambda: followed.names.alarms)
        assert [(alarm.subject, alarm.text) for alarm in followed.names.alarms] == [
            (CARRIER, "the DNS knows no address of it; its last addresses stay")
        ]
        assert followed.names.answers == {CARRIER: nets("192.0.2.1")}

    follow(zone, script)


@pytest.mark.parametrize("junk", [b"\0", b"\xff" * 600, bytes(12)])
def test_junk_is_no_answer(junk: bytes) -> None:
    """Invalid packets are skipped; they are reported as no answer and change nothing."""

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.names.alarms)

    def rave(server: NameServer) -> None:
        server.junk = junk

    followed = follow({}, script, prepare=rave, patience=SHORT)

    assert followed.seen == []


def test_addresses_that_cannot_send_are_left_out() -> None:
    """Unspecified, loopback and multicast addresses are left out."""
    zone: Zone = {
        (CARRIER, "A"): ["0.0.0.0", "127.0.0.1", "224.0.0.1", "192.0.2.1"],
        (CARRIER, "AAAA"): ["::", "::1", "ff02::1", "::ffff:127.0.0.1"],
    }

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)

    assert follow(zone, script).seen[0] == {CARRIER: nets("192.0.2.1")}


def test_a_name_has_so_many_addresses_and_no_more() -> None:
    """Only the first addresses of a name count, up to the limit, and the excess is reported."""
    zone: Zone = {
        (CARRIER, "A"): [f"192.0.2.{n}" for n in range(50)],
        (CARRIER, "AAAA"): [f"2001:db8::{n:x}" for n in range(1, 16)],
    }

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)

    followed = follow(zone, script)

    assert len(followed.seen[0][CARRIER]) == MOST_ADDRESSES
    assert followed.names.alarms == [
        Alarm(AlarmCode.NAME_TOO_MANY_ADDRESSES, CARRIER, "has 65 addresses; 64 of them count")
    ]


def test_the_hosts_file_precedes_the_dns(tmp_path: Path) -> None:
    """A name in /etc/hosts resolves to the addresses of that file."""
    (tmp_path / "hosts").write_text(f"# a\n192.0.2.7 pbx {CARRIER.upper()} # ours\nnothing\n", "utf-8")

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)

    assert follow({(CARRIER, "A"): ["192.0.2.1"]}, script).seen[0] == {CARRIER: nets("192.0.2.7")}


def test_an_address_that_the_hosts_file_lacks_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of the file do not rotate, so no other address of the name stays for a day."""
    monkeypatch.setattr(names, "LONGEST", 0.05)

    def write(address: str) -> None:
        (tmp_path / "hosts").write_text(f"{address} {CARRIER}\n", "utf-8")

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        write("192.0.2.77")
        await followed.until(lambda: len(followed.seen) == 2)

    write("192.0.2.7")
    followed = follow({}, script, known={CARRIER: nets("192.0.2.1")})

    assert followed.seen == [{CARRIER: nets("192.0.2.7")}, {CARRIER: nets("192.0.2.77")}]


def test_names_that_are_wanted_no_more_are_forgotten() -> None:
    """Only wanted names are followed, and their number is limited."""

    async def script(followed: Followed) -> None:
        await followed.until(lambda: followed.seen)
        followed.names.want(["other.example"])
        assert followed.names.answers == {}
        await followed.until(lambda: ("other.example", "A") in followed.server.asked)

    followed = follow({(CARRIER, "A"): ["192.0.2.1"]}, script)
    followed.names.want(f"n{n}.example" for n in range(MOST_NAMES + 5))

    assert followed.names.alarms == [
        Alarm(AlarmCode.NAME_LEFT_OUT, "", f"5 names are not followed: {MOST_NAMES} are")
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"nameserver 127.0.0.1\nsearch .lan\n",
        b"nameserver 127.0.0.1\nnameserver 192.168.1\n",
        b"# \xe9\nnameserver 127.0.0.1\n",
    ],
    ids=["an empty label", "half an address", "no UTF-8"],
)
def test_a_list_of_servers_that_the_library_refuses_is_an_alarm(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The C library ignores such lines, so any host may have them; all known addresses stay."""
    (tmp_path / "resolv.conf").write_bytes(text)
    made = dns.asyncresolver.Resolver
    file = str(tmp_path / "resolv.conf")
    monkeypatch.setattr("dns.asyncresolver.Resolver", lambda *, configure: made(file, configure))
    followed = Names({CARRIER: aged("192.0.2.1")})
    followed.want([CARRIER])

    async def script() -> None:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            running = group.create_task(followed.run())
            while not followed.alarms:  # noqa: ASYNC110 - a condition, not an event
                await asyncio.sleep(0.01)
            running.cancel()

    asyncio.run(script())

    [alarm] = followed.alarms
    assert "/etc/resolv.conf" in alarm.text
    assert followed.answers == {CARRIER: nets("192.0.2.1")}


def test_a_library_that_cannot_be_loaded_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the DNS library cannot be loaded, there is an alarm; once it can be, the name is resolved."""

    async def script(followed: Followed) -> None:
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, "dns.asyncresolver", None)  # as an import that fails
            await followed.until(lambda: followed.names.alarms)
            [alarm] = followed.names.alarms
        assert alarm.text.startswith("the DNS library cannot be loaded: ")
        await followed.until(lambda: followed.seen)

    followed = follow({(CARRIER, "A"): ["192.0.2.1"]}, script)

    assert followed.seen == [{CARRIER: nets("192.0.2.1")}]
