"""Links that admit an address to the fence, without a daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.clock import SetClock

from ringfence.errors import ControlError
from ringfence.features.fence.links import (
    MOST_LASTING,
    MOST_LINKS,
    MOST_OPENINGS,
    OPENINGS_WITHIN,
    AdmitLinks,
)
from ringfence.store.database import Store
from ringfence.values.secret import Secret


class Links:
    """Links with a clock that a test sets, in a database."""

    def __init__(self, store: Store) -> None:
        self.now = 1_000.0
        self.store = store
        self.restart()

    def restart(self) -> None:
        """Read the links from the database, as a restart does."""
        wall, mono = (lambda: 1_764_000_000 + self.now), (lambda: self.now)
        self.links = AdmitLinks(SetClock(wall=wall, mono=mono), self.store)

    def use(self, token: Secret) -> str:
        """Use a token; return the seconds of its link as text."""
        with self.links.using(token) as link:
            return str(link.seconds)

    def accounts(self) -> list[str]:
        """Return the accounts that have a lasting link."""
        return [one["account"] for one in self.links.summary()]


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> Iterator[Links]:
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        yield Links(store)


def test_a_link_works_once(made: Links) -> None:
    """A token admits for the time of its link, once; it is masked, and another one is refused."""
    token, other = made.links.make(60.0, 10.0), made.links.make(90.0, 10.0)

    assert token.reveal() not in f"{token!r} {token} {vars(made.links)}"
    assert made.use(token) == "60.0"
    for wrong in (token, Secret(""), Secret(other.reveal()[:-1]), Secret("\ud800é")):
        with pytest.raises(ControlError, match="is not valid"):
            made.use(wrong)
    assert made.use(other) == "90.0"


def test_a_link_expires(made: Links) -> None:
    """A token is refused when its time is over, and after a restart."""
    token = made.links.make(60.0, 10.0)
    made.restart()
    with pytest.raises(ControlError, match="is not valid"):
        made.use(token)
    token = made.links.make(60.0, 10.0)
    made.now += 10.0
    with pytest.raises(ControlError, match="is not valid"):
        made.use(token)


def test_a_failure_uses_up_no_link(made: Links) -> None:
    """If the address cannot be admitted, the link can be used again."""
    token = made.links.make(60.0, 10.0)
    with pytest.raises(ControlError, match="too many"), made.links.using(token):
        raise ControlError("too many")
    assert made.use(token) == "60.0"


def test_the_number_of_links_is_limited(made: Links) -> None:
    """A link too many is refused until another one is used or expires; lasting links do not count."""
    lasting = made.links.make_lasting("alice", 60.0)
    tokens = [made.links.make(60.0, 10.0 + number) for number in range(MOST_LINKS)]
    with pytest.raises(ControlError, match="links are open"):
        made.links.make(60.0, 10.0)
    made.use(tokens[5])
    made.links.make(60.0, 99.0)
    made.now += 10.0
    assert made.use(made.links.make(60.0, 10.0)) == "60.0"
    assert made.use(lasting) == "60.0"


def test_a_lasting_link_works_until_it_is_revoked(made: Links) -> None:
    """It works again and again, also after a restart. Once revoked, it works no more, after a restart too."""
    alice, bob = made.links.make_lasting("alice", 60.0), made.links.make_lasting("bob", 90.0)
    assert made.use(alice) == "60.0"
    made.restart()
    assert (made.use(alice), made.use(bob), made.accounts()) == ("60.0", "90.0", ["alice", "bob"])

    made.links.revoke("alice")
    for _ in range(2):
        with pytest.raises(ControlError, match="is not valid"):
            made.use(alice)
        assert (made.use(bob), made.accounts()) == ("90.0", ["bob"])
        made.restart()
    with pytest.raises(ControlError, match="alice has no link"):
        made.links.revoke("alice")


def test_an_account_has_one_lasting_link(made: Links) -> None:
    """A second one is refused until the first is revoked; then only the new token works."""
    old = made.links.make_lasting("alice", 60.0)
    with pytest.raises(ControlError, match="alice has a link; to make another, first: ringfence"):
        made.links.make_lasting("alice", 90.0)
    made.links.revoke("alice")
    new = made.links.make_lasting("alice", 90.0)
    assert made.use(new) == "90.0"
    with pytest.raises(ControlError, match="is not valid"):
        made.use(old)
    for number in range(MOST_LASTING - 1):
        made.links.make_lasting(str(number), 60.0)
    with pytest.raises(ControlError, match="people have links"):
        made.links.make_lasting("bob", 60.0)


def test_the_database_has_only_hashes(made: Links) -> None:
    """No token is in the database, in the list of links, or in the log."""
    with capture_logs() as log:
        token = made.links.make_lasting("alice", 60.0)
        for _ in range(MOST_OPENINGS):
            made.use(token)

    fact = made.store.state.fact("fence.links") or ""
    assert '"alice"' in fact
    assert [event["event"] for event in log] == ["fence.link_limited"]
    for text in (fact, str(made.links.summary()), str(log), repr(made.links._links)):
        assert token.reveal() not in text


def test_openings_are_limited(made: Links) -> None:
    """A lasting link admits ten times in an hour; a failure does not count, and others are not affected."""
    alice, bob = made.links.make_lasting("alice", 60.0), made.links.make_lasting("bob", 60.0)
    for _ in range(MOST_OPENINGS):
        with pytest.raises(ControlError, match="too many"), made.links.using(alice):
            raise ControlError("too many")
        made.use(alice)
    made.now += OPENINGS_WITHIN - 1
    with pytest.raises(ControlError, match="opened too often"):
        made.use(alice)
    assert made.use(bob) == "60.0"
    made.now += 1
    assert made.use(alice) == "60.0"


def test_the_list_has_the_last_opening(made: Links) -> None:
    """The list shows for how long a link admits, when it was made, and when it was last opened."""
    token = made.links.make_lasting("alice", 28_800.0)
    assert made.links.summary()[0]["opened"] is None
    made.now += 60
    made.use(token)
    made.restart()
    assert made.links.summary() == [
        {
            "account": "alice",
            "seconds": 28_800.0,
            "made": "2025-11-24T16:16:40Z",
            "opened": "2025-11-24T16:17:40Z",
        }
    ]


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '[{"hash": 1}]', "null"])
def test_a_damaged_record_has_no_links(made: Links, text: str) -> None:
    """If the recorded links are invalid, no token is valid, and links can be made."""
    made.store.state.set_fact("fence.links", text)
    made.restart()
    assert made.accounts() == []
    assert made.use(made.links.make_lasting("alice", 60.0)) == "60.0"
