"""Banned, denied and allowed networks, and repeat bans, tested with packets and both backends."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import SECRET
from tests.support.daemon import ami_server, until
from tests.support.guarded import NO_LOGS, NO_WIRE
from tests.support.guarded_door import House, house_of
from tests.support.killing import guess
from tests.support.netns import inside

pytestmark = pytest.mark.kernel

NETWORK, ONE, OTHER = "198.19.7.0/24", "198.19.7.7", "198.19.7.8"
NETWORK6, ONE6, OTHER6 = "fd00:19::/64", "fd00:19::7:7", "fd00:19::7:8"
LINES = 5_000


@pytest.fixture(
    name="house", scope="module", params=[pytest.param("ipset", marks=pytest.mark.long), "nftables"]
)
def _house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Yield a host that is guarded by each backend; each test leaves it without a ban or an entry."""
    folder = tmp_path_factory.mktemp(request.param)
    with house_of(folder, firewall={"backend": request.param}) as house, house.guard:
        yield house


def test_one_address_of_a_banned_network_is_unbanned(house: House) -> None:
    """An address is listed as banned by its network; unban frees it, or its /64, and no other address."""
    guard, every = house.guard, (ONE, OTHER, ONE6, OTHER6)
    guard.must("ban", NETWORK, NETWORK6, "--for", "2h", "--reason", "all of them")
    guard.must("ban", ONE, "--for", "1h")
    assert house.door.passing(*every) == set()
    assert [line.split()[:2] for line in guard.must("bans", OTHER).split("\n")[1:2]] == [[NETWORK, "admin"]]
    [row] = json.loads(guard.must("bans", OTHER6, "--json"))
    assert (row["address"], row["reason"]) == (NETWORK6, "all of them")

    done = guard.command("unban", ONE, ONE6)
    lines = [
        f"{NETWORK}: the rest of it stays banned, in 8 parts",
        f"{NETWORK6}: unbanned as a whole, since one sender has all of it",
    ]
    assert (done.returncode, done.stderr.splitlines()) == (0, lines)
    allowed = {ONE, ONE6, OTHER6}
    assert house.door.passing(*every) == allowed
    assert f"{ONE} is not banned." in guard.must("bans", ONE)
    rows = guard.bans()
    assert {row["reason"] for row in rows} == {"all of them"}
    assert 7_000 < min(row["timeout"] for row in rows) <= 7_200
    guard.kill()
    guard.start()
    assert house.door.passing(*every) == allowed
    guard.must("unban", "--all")
    assert house.door.passing(*every) == set(every)


def test_a_block_list_with_the_daemon_up_and_down(house: House) -> None:
    """Thousands of lines are enforced and outlast a restart without their file; the allow list wins."""
    guard, here = house.guard, (ONE, OTHER)
    lines = [f"203.{n >> 7}.{n & 127}.{n & 254}" for n in range(LINES)]
    blocked = guard.folder / "blocked"

    def write(*last: str) -> None:
        new = guard.folder / "new"
        new.write_text("\n".join([*lines, *last]))
        new.replace(blocked)

    write(f"{NETWORK} ; SBL1", ONE6)
    output = guard.must("feeds", "add", "blocked", "--file", str(blocked))
    assert f"in force {LINES + 1} 1" in " ".join(output.split())
    until(lambda: house.door.passing(*here) == set(), "the block list in the kernel", pause=0.1)
    assert house.door.passing(ONE6) == {ONE6}  # left out: it is local
    guard.must("ban", OTHER)
    guard.must("allow", "add", OTHER, "--for", "3s")
    assert house.door.passing(*here) == {OTHER}
    assert guard.banned() == set()
    until(lambda: house.door.passing(*here) == set(), "the end of what was allowed", pause=0.1)

    guard.kill()
    write(ONE)
    assert house.door.passing(*here) == set()
    guard.start()
    until(lambda: house.door.passing(*here) == {OTHER}, "the changed block list", pause=0.1)
    blocked.unlink()
    guard.kill()
    guard.start()
    assert house.door.passing(*here) == {OTHER}
    guard.must("feeds", "remove", "blocked")
    until(lambda: house.door.passing(*here) == {*here}, "the end of the block list", pause=0.1)


def test_a_repeat_ban_is_longer(tmp_path: Path) -> None:
    """The second ban by a rule is longer than the first, `bans` shows its ordinal, and both really hold."""
    with house_of(tmp_path) as house, inside(house.network.pbx), ami_server() as pbx:
        guard = house.guard
        ami = {"port": pbx.port, "secret": SECRET}
        guard.configure(
            asterisk=[{"name": "pbx", "ami": ami, "logs": NO_LOGS, "wire": NO_WIRE}],
            firewall={"backend": "nftables"},
            rules={"guess": {"attempts": 3, "ban": ["6s", "2h"]}},
        )
        with guard:
            until(lambda: guard.source_is("listening"), "the manager interface")
            for number, seconds in ((1, 6), (2, 7_200)):
                pbx.send("".join(guess(f"{number}-{index}", ONE) for index in range(3)).encode())
                until(lambda: house.door.passing(ONE, OTHER) == {OTHER}, "the ban")
                [row] = guard.bans()
                assert (row["address"], row["rule"], row["offence"]) == (ONE, "guess", number)
                assert seconds - 60 < row["timeout"] <= seconds
                if number == 1:
                    until(
                        lambda: house.door.passing(ONE, OTHER) == {ONE, OTHER},
                        "the end of the ban",
                        pause=0.1,
                    )
            row_of_it = guard.must("bans").split("\n")[1].split()
            assert row_of_it[:8] == [ONE, "guess", "(sip)", "alice", "3", "of", "3", "2."]
