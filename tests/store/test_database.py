"""The database: its content, its users, its versions, and a broken disk."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.attempts import ATTEMPT, attempts, ban_of
from tests.support.unprivileged import unprivileged

import ringfence
from ringfence.errors import StoreBusyError, StoreError
from ringfence.model import (
    AttemptCounts,
    Ban,
    EventKind,
    Friend,
    FriendReason,
    ListEntry,
    ListKind,
    Origin,
    Proof,
    Scope,
    Service,
    Transport,
)
from ringfence.store.database import KEEP, KEEP_FRIENDS, Store

NOBODY = 65_534
OLD = Path(__file__).parents[1] / "support" / "store-2.sql"


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Return the path of the database."""
    return tmp_path / "ringfence.db"


@pytest.fixture(name="store")
def _store(path: Path) -> Iterator[Store]:
    """Return an open store, as the daemon has it."""
    with Store.open(path, owner=True) as store:
        yield store


@contextmanager
def as_nobody() -> Iterator[None]:
    """Switch to an unprivileged user if this one is root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


# -- bans -------------------------------------------------------------------------------------------------


def test_a_ban_comes_back_as_it_was(store: Store, path: Path) -> None:
    """Every field of a ban and its attempts is kept in order, also after a restart."""
    bans = [
        ban_of("192.0.2.1", 1_000.5, made=attempts(5)),
        Ban(ip_network("2001:db8::/64"), 1_001.0, 9_999.0, "admin", "a reason\nof two lines", Origin.ADMIN),
        ban_of(
            "198.51.100.0/24",
            1_002.0,
            made=(
                evolve(
                    ATTEMPT,
                    address=ip_address("2001:db8::1"),
                    proof=Proof.HANDSHAKE,
                    service=Service.SIP,
                    transport=Transport.WSS,
                    event=EventKind.FAILED_ACL,
                    trusted=False,
                    tampered=True,
                ),
            ),
        ),
    ]
    store.record(bans)

    assert store.running(2_000.0) == bans
    store.close()
    with Store.open(path, owner=True) as again:
        assert again.running(2_000.0) == bans


@pytest.mark.parametrize(
    "account",
    ["", "'; DROP TABLE bans; --", "a\0b", "a\r\n\x1b[2J", "電話 \U0001f4de \u202e", "x" * 65_536, "\\xff"],
)
def test_hostile_accounts_are_only_text(store: Store, account: str) -> None:
    """Any account that a sender chooses is stored unchanged and has no side effect."""
    ban = ban_of("192.0.2.1", made=attempts(2, account=account))
    store.record([ban])

    assert store.running(1_000.0) == [ban]


def test_a_text_that_no_database_takes_is_an_error_of_the_store(store: Store) -> None:
    """Half a character raises StoreError and skips the whole ban, and later writes succeed."""
    with pytest.raises(StoreError):
        store.record([ban_of("192.0.2.1", made=(*attempts(1), *attempts(1, account="\ud800")))])
    store.record([ban_of("192.0.2.2")])

    assert [ban.network for ban in store.running(1_000.0)] == [ip_network("192.0.2.2")]


def test_running_is_what_has_time_left(store: Store) -> None:
    """A ban runs exactly until its end; the oldest comes first."""
    store.record([ban_of("192.0.2.2", 1_001.0, 10.0)])
    store.record([ban_of("192.0.2.1", 1_000.0, 20.0)])

    assert [str(ban.network) for ban in store.running(1_002.0)] == ["192.0.2.1/32", "192.0.2.2/32"]
    assert [str(ban.network) for ban in store.running(1_011.0)] == ["192.0.2.1/32"]
    assert store.running(1_020.0) == []


def test_a_ban_ends_when_it_is_lifted_or_followed(store: Store) -> None:
    """end() ends the bans of these networks; a new ban of a network replaces the old one."""
    for last in (1, 2, 3):
        store.record([ban_of(f"192.0.2.{last}")])
    store.end([(ip_network(text), Scope.FULL) for text in ("192.0.2.1", "203.0.113.1")], 1_100.0)
    longer = ban_of("192.0.2.2", 1_100.0, 7_200.0)
    store.record([longer])

    assert store.running(1_200.0) == [ban_of("192.0.2.3"), longer]


def test_the_same_ban_is_recorded_once(store: Store) -> None:
    """A restored ban is not a second offence."""
    ban = ban_of("192.0.2.1", made=attempts(2))
    store.record([ban])
    store.record([ban])

    assert store.bans_before(ban.network, 0.0) == 1
    assert store.running(1_000.0) == [ban]


def test_offences_are_counted(store: Store) -> None:
    """Bans by rules of exactly that network since that time count, whether or not they were ended early."""
    network = ip_network("192.0.2.1")
    for since in (1_000.0, 9_000.0, 20_000.0):
        store.record([ban_of("192.0.2.1", since)])
    store.end([(network, Scope.FULL)], 20_001.0)
    store.record([ban_of("192.0.2.2", 20_000.0)])
    store.record([Ban(network, 30_000.0, 31_000.0, "admin", origin=Origin.ADMIN)])
    store.record([Ban(network, 32_000.0, 33_000.0, "adopted", origin=Origin.ADOPTED)])

    assert [store.bans_before(network, since) for since in (0.0, 1_000.0, 1_000.1, 20_000.0, 20_000.1)] == [
        3,
        3,
        2,
        1,
        0,
    ]


def test_the_old_is_forgotten_with_its_attempts(store: Store, path: Path) -> None:
    """Purging deletes bans that ended long ago, with their attempts; the others stay."""
    store.record([ban_of("192.0.2.1", 1_000.0, 100.0, made=attempts(3))])
    store.record([ban_of("192.0.2.2", 1_000.0, 10 * KEEP, made=attempts(3))])
    store.record([ban_of("192.0.2.3", 1_000.0, 10 * KEEP, made=attempts(3))])
    store.end([(ip_network("192.0.2.2"), Scope.FULL)], 1_200.0)
    # A new ban does not change the end of the expired one.
    store.record([ban_of("192.0.2.1", 5_000.0, 100.0)])

    def kept() -> list[tuple[str, int]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(
                "SELECT network, count(attempts.ban) FROM bans LEFT JOIN attempts ON bans.id = ban"
                " GROUP BY bans.id ORDER BY bans.id"
            ).fetchall()

    everything = [("192.0.2.1/32", 3), ("192.0.2.2/32", 3), ("192.0.2.3/32", 3), ("192.0.2.1/32", 0)]
    store.purge(1_100.0 + KEEP)
    assert kept() == everything
    store.purge(1_101.0 + KEEP)
    assert kept() == everything[1:]
    store.purge(1_201.0 + KEEP)
    assert kept() == everything[2:]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (3,)


def test_scopes_are_bans_of_their_own(store: Store) -> None:
    """Bans of one address with different scopes end independently; a forgeable ban is no offence."""
    full = ban_of("192.0.2.1")
    narrow = evolve(full, rule="flood", scope=Scope.SIP_UDP, offence=2, expires=9_000.0)
    store.record([full, narrow])
    assert store.running(1_500.0) == [full, narrow]
    assert store.bans_before(full.network, 0.0) == 1
    store.end([(full.network, Scope.FULL)], 1_600.0)

    assert store.running(1_700.0) == [narrow]


def test_bans_are_given_one_by_one_with_the_numbers_of_their_attempts(store: Store) -> None:
    """The result has counts instead of attempts, because those of 100,000 bans would need much memory."""
    last, *others = attempts(5)
    made = (*(evolve(attempt, proof=Proof.NONCE) for attempt in others), last)
    bans = [
        ban_of("192.0.2.1", 1_000.0, made=made),
        evolve(ban_of("192.0.2.2", 1_001.0), forced=True, origin=Origin.ADMIN),
    ]
    store.record(bans)

    assert list(store.each_running(2_000.0)) == [
        (evolve(bans[0], attempts=()), AttemptCounts(5, 4)),
        (bans[1], AttemptCounts()),
    ]


def test_many_bans_are_recorded_all_or_none(store: Store) -> None:
    """A ban that cannot be written cancels the rest of its batch."""
    with pytest.raises(StoreError):
        store.record([ban_of("192.0.2.1"), ban_of("192.0.2.2", made=attempts(1, account="\ud800"))])

    assert store.running(1_000.0) == []


def test_many_bans_of_one_end_cost_no_more_than_of_many(store: Store) -> None:
    """Bans with the same end are not compared with each other: manual and adopted bans share one end."""
    networks = [ip_network((0xC6120000 + number, 32)) for number in range(500)]
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(bans: list[Ban]) -> int:
        nonlocal steps
        steps = 0
        store.record(bans)
        store.end([(ban.network, ban.scope) for ban in bans], 2_000.0)
        return steps

    store._writer.set_progress_handler(count, 10)
    many = cost([ban_of(str(net), 1_000.0, 3_600.0 + n) for n, net in enumerate(networks)])
    one = cost([ban_of(str(net), 1_500.0) for net in networks])

    assert one < 2 * many


def test_of_what_has_ended_the_latest_are_kept(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest ended bans beyond the limit are deleted with their attempts; all running bans stay."""
    monkeypatch.setattr("ringfence.store.database.MOST", 5)
    ended = [ban_of(f"192.0.2.{n}", 1_000.0 + n, 10.0, made=attempts(2)) for n in range(6)]
    running = [ban_of(f"198.51.100.{n}", 500.0, 9_000.0, made=attempts(1)) for n in range(3)]
    store.record([*ended, *running])
    store.purge(2_000.0)

    def kept() -> tuple[set[str], int]:
        with closing(sqlite3.connect(path)) as connection:
            networks = {network for (network,) in connection.execute("SELECT network FROM bans")}
            return networks, connection.execute("SELECT count(*) FROM attempts").fetchone()[0]

    still = {str(ban.network) for ban in running}
    assert kept() == ({"192.0.2.4/32", "192.0.2.5/32"} | still, 2 * 2 + 3)
    monkeypatch.setattr("ringfence.store.database.MOST", 2)
    store.purge(2_000.0)
    assert kept() == (still, 3)


def test_small_facts_are_remembered(store: Store, path: Path) -> None:
    """Each name keeps its last value, also after a restart, until it is deleted."""
    assert store.fact("trial") is None
    for value in ("1", "2"):
        store.remember_fact("trial", value)
    with Store.open(path, owner=False) as other:
        assert other.fact("trial") == "2"
    store.remember_fact("trial", None)
    assert store.fact("trial") is None


def test_the_switch_stays(store: Store, path: Path) -> None:
    """The switch is on at first, and off stays off after a restart until it is on again."""
    assert store.switched_off is False
    store.switched_off = True
    store.close()
    with Store.open(path, owner=True) as again:
        assert again.switched_off is True
        again.switched_off = False
        assert again.switched_off is False


# -- who, when, and which version -------------------------------------------------------------------------


def test_one_owner_at_a_time(store: Store, path: Path) -> None:
    """A second daemon is refused until the first one closes the store."""
    with pytest.raises(StoreBusyError, match="another ringfence is using"):
        Store.open(path, owner=True)
    store.close()
    store.close()  # may be repeated
    Store.open(path, owner=True).close()


def test_a_dead_owner_owns_nothing(path: Path) -> None:
    """A daemon that was killed leaves no lock behind."""
    code = (
        "import sys, pathlib\nfrom ringfence.store.database import Store\n"
        f"store = Store.open(pathlib.Path({str(path)!r}), owner=True)\nprint(1, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(StoreBusyError):
            Store.open(path, owner=True)
        other.kill()
        other.wait()

    Store.open(path, owner=True).close()


def test_a_command_reads_beside_the_daemon(store: Store, path: Path) -> None:
    """The owner and other processes see each other's writes at once."""
    with Store.open(path, owner=False) as reader:
        store.record([ban_of("192.0.2.1")])
        assert reader.running(1_000.0) == [ban_of("192.0.2.1")]
        reader.switched_off = True
        assert store.switched_off is True


def test_a_reader_does_not_hold_up_the_daemon(store: Store, path: Path) -> None:
    """Bans are written while another process is reading."""
    store.record([ban_of("192.0.2.1")])
    with closing(sqlite3.connect(path)) as reader:
        cursor = reader.execute("SELECT * FROM bans")
        cursor.fetchone()
        store.record([ban_of("192.0.2.2")])
        cursor.close()

    assert len(store.running(1_000.0)) == 2


def test_a_fresh_file_gets_the_schema(path: Path) -> None:
    """An empty file, version 0, becomes a database of the current version."""
    path.touch()
    Store.open(path, owner=False).close()

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (5,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_database_is_refused(path: Path) -> None:
    """A database of an unknown version stays unchanged, and the owner's lock is released."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 6")
    before = path.read_bytes()
    for owner in (True, True, False):
        with pytest.raises(StoreError, match=r"of version 6, newer than this ringfence knows \(5\)"):
            Store.open(path, owner=owner)

    assert path.read_bytes() == before


@pytest.fixture(name="old")
def _old(path: Path) -> Path:
    """Return a database of version 2, as the previous release wrote it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD.read_text("utf-8"))
    return path


def of_the_old(store: Store) -> None:
    """Compare the content of a store with the data that the previous release wrote."""
    assert store.running(2_000.0) == [
        ban_of("192.0.2.1", 1_000.5, made=attempts(5)),
        Ban(ip_network("2001:db8::/64"), 1_001.0, 9_999.0, "admin", "a reason\nof 'two' lines", Origin.ADMIN),
        Ban(ip_network("203.0.113.0/24"), 1_003.0, 9e9, "adopted", "found in the kernel", Origin.ADOPTED),
    ]
    assert [made.attempts for _, made in store.each_running(2_000.0)] == [5, 0, 0]
    assert [store.bans_before(ip_network(f"192.0.2.{last}"), 0.0) for last in (1, 2, 3)] == [1, 1, 0]
    assert store.switched_off is True


def test_a_database_of_the_release_before_is_migrated(old: Path) -> None:
    """Bans with attempts and counts, offences, log positions and the switch are kept permanently."""
    with Store.open(old, owner=True) as store:
        of_the_old(store)
        assert store.positions() == {"pbx/log /var/log/asterisk/messages": "17 4711"}
        assert [list(store.entries(side, 0.0)) for side in ListKind] == [[], []]
        store.end([(ip_network("192.0.2.1"), Scope.SIP_UDP)], 2_000.0)  # a ban of another scope
    with Store.open(old, owner=False) as store:
        of_the_old(store)


def test_a_database_of_the_first_version_is_migrated(old: Path) -> None:
    """The migration also works from the first release, which had no log positions."""
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript("DROP TABLE positions; PRAGMA user_version = 1;")

    with Store.open(old, owner=True) as store:
        of_the_old(store)
        assert store.positions() == {}


def test_a_migration_is_whole_or_not_at_all(old: Path) -> None:
    """A migration that fails in the middle, for example on a full disk, leaves the old database unchanged."""
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE facts (in_the TEXT, way TEXT)")
        before = list(connection.iterdump())
    with pytest.raises(StoreError, match="facts already exists"):
        Store.open(old, owner=True)

    with closing(sqlite3.connect(old)) as connection:
        assert list(connection.iterdump()) == before
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_places_in_logs_are_remembered(store: Store, path: Path) -> None:
    """Each source has one position, the last one reported, also after a restart."""
    store.remember_positions({"pbx/log /a": "1", "pbx/log /b": "1"})
    store.remember_positions({"pbx/log /a": "2"})
    store.close()

    with Store.open(path, owner=True) as again:
        assert again.positions() == {"pbx/log /a": "2", "pbx/log /b": "1"}


def test_lists_are_kept_apart_and_end(store: Store, path: Path) -> None:
    """Entries keep their list and order, also after a restart; the same entry replaces; expired ones end."""
    office = ListEntry(ListKind.ALLOW, "203.0.113.0/24", "office", 1_000.0)
    guest = ListEntry(ListKind.ALLOW, "sip.carrier.example", "for a day", 1_001.0, until=87_401.0)
    denied = ListEntry(ListKind.DENY, "203.0.113.0/24", "", 1_002.0, origin="block.txt", forced=True)
    store.add_entries([office, guest, denied, evolve(office, note="the old one")])
    store.add_entries([office])

    assert list(store.entries(ListKind.ALLOW, 2_000.0)) == [office, guest]
    assert store.remove_entries(ListKind.ALLOW, [guest.value, "192.0.2.1"]) == 1
    store.add_entries([guest])
    assert list(store.entries(ListKind.ALLOW, 87_401.0)) == [office]
    store.purge(90_000.0)
    assert list(store.entries(ListKind.ALLOW, 2_000.0)) == [office]
    with Store.open(path, owner=False) as other:
        assert list(other.entries(ListKind.DENY, 2_000.0)) == [denied]


def friend(
    last: int,
    *,
    account: str = "alice",
    tie: FriendReason = FriendReason.AUTHENTICATED,
    until: float = 9_000.0,
) -> Friend:
    """Return a reason of 192.0.2.LAST, seen ``last`` seconds after 1000."""
    return Friend("pbx", ip_address(f"192.0.2.{last}"), account, tie, 500.0, 1_000.0 + last, until)


def test_friends_come_back_as_they_were(store: Store, path: Path) -> None:
    """Every reason is kept with its times, in the order seen, and the same reason replaces the old one."""
    friends = [
        friend(1),
        friend(2, account="電話'; --"),
        friend(2, account="bob", tie=FriendReason.TRUNK),
        evolve(friend(3), address=ip_address("2001:db8::1"), reason=FriendReason.REGISTERED),
    ]
    store.remember_friends([evolve(friends[0], seen=1.0, until=2.0), *reversed(friends)])
    assert store.friends(2_000.0, 2) == sorted(friends[2:], key=lambda one: one.seen)
    store.close()

    with Store.open(path, owner=True) as again:
        assert {*again.friends(2_000.0, 100)} == {*friends}
        assert [one.seen for one in again.friends(2_000.0, 100)] == [1_001.0, 1_002.0, 1_002.0, 1_003.0]


def test_former_friends_are_the_reasons_that_are_over(store: Store) -> None:
    """A reason expires at its own end, whatever others its address has; the last to expire comes last."""
    bob, alice = friend(1, account="bob", until=1_700.0), friend(1, until=1_600.0)
    store.remember_friends([bob, alice, friend(2)])

    assert store.friends(1_600.0, 9) == [bob, friend(2)]
    assert store.former_friends(1_600.0, 9) == [alice]
    assert store.former_friends(1_700.0, 9) == [alice, bob]
    assert store.former_friends(1_700.0, 1) == [bob]
    store.forget_friend(bob.address)
    assert store.former_friends(1_700.0, 9) == []


def test_friends_of_long_ago_are_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Purging deletes friends that expired a month ago and, beyond the limit, those seen longest ago."""
    store.remember_friends([friend(1, until=1_500.0), friend(2), friend(3)])
    store.purge(1_501.0 + KEEP_FRIENDS)
    assert {*store.former_friends(1e9, 9)} == {friend(2), friend(3)}

    monkeypatch.setattr("ringfence.store.rows.MOST_FRIENDS", 1)
    store.purge(2_000.0)
    assert store.friends(2_000.0, 9) == [friend(3)]


def test_a_row_of_somebody_elses_is_left_out(store: Store, path: Path) -> None:
    """An invalid row does not affect other friends."""
    store.remember_friends([friend(1), friend(2), friend(3, until=1_000.0)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE friends SET address = 'at ' || address WHERE address != '192.0.2.1'")

    assert store.friends(2_000.0, 9) == [friend(1)]
    assert store.former_friends(10_000.0, 9) == [friend(1)]


def test_others_may_not_read_it(store: Store, path: Path) -> None:
    """Other users cannot read accounts and addresses, and the folder's owner owns the files."""
    for file in (path, path.with_name("ringfence.db.lock")):
        assert stat.S_IMODE(file.stat().st_mode) & 0o027 == 0
        assert file.stat().st_uid == path.parent.stat().st_uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_what_root_makes_is_the_daemons(tmp_path: Path) -> None:
    """Files that root makes by a command or a manual start can be opened by the service's own user."""
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with Store.open(folder / "ringfence.db", owner=True) as store:
        store.record([ban_of("192.0.2.1")])
        owners = {file.name: file.stat().st_uid for file in folder.iterdir()}

    assert owners == dict.fromkeys(
        ["ringfence.db", "ringfence.db-shm", "ringfence.db-wal", "ringfence.db.lock"], NOBODY
    )


# -- broken disks -----------------------------------------------------------------------------------------


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The owner of the folder could otherwise make root open, and create, a file anywhere."""
    (tmp_path / "ringfence.db.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="lock cannot be opened"):
        Store.open(tmp_path / "ringfence.db", owner=True)

    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The message names the file and the configuration key."""
    path = tmp_path / "absent" / "ringfence.db"
    for owner in (True, False):
        with pytest.raises(
            StoreError, match=r"absent/ringfence.db.* cannot be made: No such file .*\[store\] path"
        ):
            Store.open(path, owner=owner)


def test_a_folder_that_may_not_be_written(path: Path) -> None:
    """A StoreError reports that the file cannot be made there."""
    path.parent.chmod(0o500)
    with as_nobody(), pytest.raises(StoreError, match="cannot be made: Permission denied"):
        Store.open(path, owner=True)


def test_a_folder_in_the_files_place(path: Path) -> None:
    """A folder with the database's name raises StoreError, and the lock is released."""
    path.mkdir()
    for _ in range(2):
        with pytest.raises(StoreError, match="is not a regular file"):
            Store.open(path, owner=True)


def test_a_file_that_is_no_database(path: Path) -> None:
    """A file that is not a database is refused and stays unchanged."""
    path.write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Store.open(path, owner=True)

    assert path.read_bytes() == b"not a database, certainly" * 100


def test_a_full_disk_is_told_and_survived(store: Store) -> None:
    """A write without room raises StoreError; the content stays, and writes succeed again with room."""
    store.record([ban_of("192.0.2.1")])
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.record([ban_of("192.0.2.2", made=attempts(50, account="x" * 4_096))])
    assert store.running(1_000.0) == [ban_of("192.0.2.1")]

    store._writer.execute("PRAGMA max_page_count = 100000")
    store.record([ban_of("192.0.2.2")])
    assert len(store.running(1_000.0)) == 2


def test_a_row_that_makes_no_sense_is_left_out(store: Store, path: Path) -> None:
    """An invalid network in the table is counted, and the other rows are returned."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO bans (network, since, expires, rule, reason, origin)"
            " VALUES ('198.51.100.1/24', 0, 9e9, 'r', '', 'rule')"
        )
    store.record([ban_of("192.0.2.9", 1_000.0)])
    for what in ("198.51.100.1/24", "nonsense", "192.0.2.1", "192.0.2.1/33", "2001:db8::/x"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE bans SET network = ? WHERE rule = 'r'", (what,))

        assert store.running(1_000.0) == [ban_of("192.0.2.9", 1_000.0)]
        assert store.unreadable == 1


def test_a_locked_database_is_told(store: Store, path: Path) -> None:
    """A write raises StoreError if another process holds the lock for longer than the timeout."""
    store._writer.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.record([ban_of("192.0.2.1")])
        other.rollback()
    store.record([ban_of("192.0.2.1")])


def test_every_method_of_a_closed_store_tells(store: Store) -> None:
    """Every method of a closed store raises StoreError."""
    store.close()
    actions: list[Callable[[], object]] = [
        lambda: store.record([ban_of("192.0.2.1")]),
        lambda: store.end([(ip_network("192.0.2.1"), Scope.FULL)], 1.0),
        lambda: store.running(1.0),
        lambda: store.bans_before(ip_network("192.0.2.1"), 0.0),
        lambda: store.purge(1.0),
        lambda: store.switched_off,
    ]
    for action in actions:
        with pytest.raises(StoreError, match="closed database"):
            action()


# -- where the database cannot be written -----------------------------------------------------------------


def works_for_now(store: Store, *networks: str) -> None:
    """Check that a store has the bans of these networks and accepts new data like any other."""
    assert [str(ban.network) for ban in store.running(2_000.0)] == list(networks)
    store.record([ban_of("198.51.100.1", 1_500.0, made=attempts(5))])
    store.remember_positions({"a": "1"})
    store.add_entries([ListEntry(ListKind.ALLOW, "203.0.113.0/24", "", 1.0)])
    store.purge(2_000.0)
    assert store.bans_before(ip_network("198.51.100.1"), 0.0) == 1
    assert [str(ban.network) for ban, _ in store.each_running(2_000.0)] == [*networks, "198.51.100.1/32"]
    assert (store.positions()["a"], len(list(store.entries(ListKind.ALLOW, 0.0)))) == ("1", 1)


def test_a_good_database_is_opened_as_it_is(path: Path) -> None:
    """There is no problem, and the content lasts."""
    store, problem = Store.open_or_memory(path)
    with store:
        works_for_now(store)
    assert problem == ""

    with Store.open(path, owner=False) as again:
        assert [str(ban.network) for ban in again.running(2_000.0)] == ["198.51.100.1/32"]


@pytest.mark.parametrize("unclean", [False, True])
def test_a_folder_that_may_only_be_read_gives_a_copy(unclean: bool) -> None:  # noqa: FBT001 - two cases
    """The stored bans are known, new ones are accepted, and the problem states that nothing is kept."""
    with unprivileged() as folder:
        path = folder / "ringfence.db"
        with Store.open(path, owner=True) as before:
            before.record([ban_of("192.0.2.1", made=attempts(5))])
            copies = {file: file.read_bytes() for file in folder.glob("ringfence.db-*")}
        if unclean:  # as after a power failure: only the log has the last bans
            for file, content in copies.items():
                file.write_bytes(content)
        for file in folder.iterdir():
            file.chmod(0o400)
        folder.chmod(0o500)
        store, problem = Store.open_or_memory(path)
        with store:
            works_for_now(store, "192.0.2.1/32")

        assert f"{path}.lock" in problem
        assert problem.endswith(
            "until this is fixed and ringfence is restarted, nothing is remembered for long"
        )


@pytest.mark.parametrize(
    "content", [b"", b"not a database, certainly" * 100, b"SQLite format 3\0" + bytes(4_096)]
)
def test_what_is_no_database_gives_an_empty_one(path: Path, content: bytes) -> None:
    """The guard starts with a new database, and the file is kept under another name."""
    path.write_bytes(content)
    store, problem = Store.open_or_memory(path)
    with store:
        works_for_now(store)

    assert problem == ""
    assert (store.look_for_damage() == "") == (content == b"")
    assert content == b"" or path.with_name("ringfence.db.damaged-1").read_bytes() == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk to fill")
def test_a_full_disk_gives_a_copy(tmp_path: Path) -> None:
    """On a disk without free space the stored bans are known, and new ones are accepted."""
    code = """
        import sys
        from pathlib import Path
        from tests.support.attempts import attempts, ban_of
        from ringfence.store.database import Store
        folder = Path(sys.argv[1])
        path = folder / "ringfence.db"
        with Store.open(path, owner=True) as store:
            store.record([ban_of("192.0.2.1", made=attempts(5))])
        (folder / "ringfence.db.lock").unlink()
        try:
            with (folder / "junk").open("wb", buffering=0) as junk:
                while True:
                    junk.write(bytes(4_096))
        except OSError as error:
            print(error.strerror)
        store, problem = Store.open_or_memory(path)
        with store:
            store.record([ban_of("192.0.2.2")])
            print(*(ban.network for ban in store.running(2_000.0)))
        print(problem)
    """
    script = tmp_path / "full.py"
    script.write_text(textwrap.dedent(code), "utf-8")
    disk = tmp_path / "disk"
    disk.mkdir()
    source = Path(str(ringfence.__file__)).parent.parent
    done = subprocess.run(
        [
            *(
                "unshare",
                "--mount",
                "sh",
                "-euc",
                'mount -t tmpfs -o size=256k none "$1"; shift; exec "$@"',
                "sh",
            ),
            *(str(disk), sys.executable, str(script), str(disk)),
        ],
        env=os.environ | {"PYTHONPATH": f"{source}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    full, known, problem = done.stdout.splitlines()
    assert (full, known) == ("No space left on device", "192.0.2.1/32 192.0.2.2/32")
    assert problem.endswith("nothing is remembered for long")


def test_anothers_database_is_not_copied(store: Store, path: Path) -> None:
    """If another daemon uses the database, opening fails, because that daemon guards already."""
    with pytest.raises(StoreBusyError):
        Store.open_or_memory(path)
    works_for_now(store)
