"""The list of ended bans, as JSON."""

from ipaddress import ip_network
from pathlib import Path

from tests.support.attempts import attempts, ban_of

from ringfence.guard.facts import past_bans, since_from
from ringfence.store.bans import KEEP
from ringfence.store.database import Store

HOSTILE = "2\x1b[2J\u202e04" + "x" * 65_536


def test_ended_bans_as_json(tmp_path: Path) -> None:
    """A row has the account that was tried most often, escaped, and how the ban ended."""
    made = (*attempts(2, account="205"), *attempts(3, account=HOSTILE))
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        store.bans.record([ban_of("192.0.2.1", made=made), ban_of("192.0.2.2")])
        [row] = past_bans(store.bans, 0.0, 9_000.0, [ip_network("192.0.2.0/31")])

    assert (row["address"], row["end"], row["accounts"]) == ("192.0.2.1", "expired", 2)
    assert row["account"].startswith("2\\x1b[2J\\u202e04")
    assert row["account"].isprintable()


def test_the_period_of_a_request() -> None:
    """Without a duration all that is kept is meant."""
    assert since_from({}, KEEP + 5) == 5
    assert since_from({"seconds": 60}, 100.0) == 40.0
