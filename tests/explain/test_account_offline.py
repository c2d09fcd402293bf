"""The facts of an account without a daemon."""

from ipaddress import ip_address
from pathlib import Path

from attrs import evolve
from tests.explain.world import friend
from tests.support.attempts import attempts, ban_of

from ringfence.config.schema import Settings, StoreSettings
from ringfence.explain.account_offline import account_offline
from ringfence.store.database import Store


def test_the_database_has_the_phone_and_the_attempts_of_bans(tmp_path: Path) -> None:
    """Friends and attempts of the account are found, and the ban of its address; others are not."""
    settings = Settings(store=StoreSettings(tmp_path / "ringfence.db"))
    now = 1_700_000_100.0
    assert account_offline(settings, "204", now).verdict == "unknown"

    with Store.open(settings.store.path, owner=True) as store:
        store.friends.add([evolve(friend(), until=now + 60), evolve(friend(), account="205")])
        store.bans.record([ban_of("192.0.2.1", now - 60, made=attempts(3, account="204"))])
        store.bans.record([ban_of("192.0.2.2", now - 60, made=attempts(3, "192.0.2.2", "205"))])
    known = account_offline(settings, "204", now)

    assert known.verdict == "banned"
    assert [(one.last.address, one.times) for one in known.failures] == [(ip_address("192.0.2.1"), 3)]
    assert not known.live


def test_a_database_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """The problem is in the facts, and nothing is raised."""
    path = tmp_path / "ringfence.db"
    path.write_bytes(b"no database" * 100)

    assert "ringfence.db" in account_offline(Settings(store=StoreSettings(path)), "204", 1.0).problems[0]
