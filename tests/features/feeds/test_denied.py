"""Feeds: what is taken over, what is left out or refused, and for how long a list holds."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from tests.lists.world import At
from tests.support.tables import with_tables

from ringfence.config.converters import Name
from ringfence.config.schema import Settings, StoreSettings
from ringfence.errors import ControlError, ListError
from ringfence.features.feeds import denied
from ringfence.features.feeds.denied import KEEP_AGAIN, NAMED, Feeds, TakenFeed, read_feed
from ringfence.features.feeds.formats import STATE_SUFFIX, FeedFormat, FeedLayout
from ringfence.features.feeds.guard import FeedReporter
from ringfence.features.feeds.settings import FeedSettings, FeedSource
from ringfence.firewall.network_lists import EXTERNAL
from ringfence.lists.entries import Configured
from ringfence.lists.prefixes import Prefixes
from ringfence.values.entry import ListKind
from ringfence.values.network import Network, format_network
from ringfence.values.text import rfc3339

OWN = ip_network("203.0.113.7/32")
ROLES = {OWN: "this host", ip_network("192.0.2.0/24"): "the network of the gateway"}
LONG_AGO = 100.0


def source(path: Path = Path("list"), **changes: Any) -> FeedSource:  # noqa: ANN401 - the values of any fields
    """Return a feed of one file."""
    return evolve(FeedSource("one", path, shown=str(path)), **changes)


def read(data: bytes, *, most: int = 1_000, layout: FeedLayout | None = None) -> TakenFeed:
    """Read a list, as the daemon does."""
    one = source(layout=layout or FeedLayout())
    return read_feed(io.BytesIO(data), one, ROLES, most)


def texts(taken: TakenFeed) -> list[str]:
    """Return the networks of a list."""
    return [format_network(network) for network in taken.networks]


@frozen(kw_only=True)
class AnyFeed(FeedSettings):
    """The settings of a feed with any source."""

    made: FeedSource

    @property
    def source(self) -> FeedSource:
        """The feed as the daemon needs it."""
        return self.made


def settings_of(folder: Path, *sources: FeedSource) -> Settings:
    """Return a configuration with these feeds, whose database is in a folder."""
    feeds = tuple(AnyFeed(name=Name(one.name), made=one) for one in sources)
    return with_tables(feeds=feeds, store=StoreSettings(path=folder / "db"))


class Feed(At):
    """Lists with one feed, whose file the test writes."""

    def __init__(
        self,
        folder: Path,
        one: FeedSource | None = None,
        *,
        fetched: bool = False,
        max_age: float | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / "feed.txt"
        self.kept = folder / "feeds"
        one = one or source(self.path, fetched=fetched, max_age=max_age)
        feeds = Feeds(settings_of(folder, one))
        super().__init__(folder, Configured(most=1_000), [feeds])
        self.reporter = FeedReporter(self.lists, feeds, lambda: self.now)
        self.handlers |= self.reporter.handlers()
        self.lists.protect(ROLES)

    def use(self, *sources: FeedSource) -> None:
        """Use these feeds instead, as after a reload."""
        for other in self.lists.others:
            other.configure(settings_of(self.folder, *sources))

    def write(self, *lines: str, checked: float | None = None, error: str = "") -> None:
        """Write the file, and for a fetched feed the fetcher's report."""
        new = self.path.with_name("new")
        new.write_text("".join(f"{line}\n" for line in lines))
        os.utime(new, (LONG_AGO, LONG_AGO))
        new.replace(self.path)
        if checked is not None:
            self.report(checked, error)

    def report(self, checked: float, error: str = "", identity: str = "") -> None:
        """Write the fetcher's report."""
        state = self.path.with_name(self.path.name + STATE_SUFFIX)
        state.write_text(json.dumps({"checked": checked, "error": error, "identity": identity}))

    def refreshed(self, *names: str) -> dict[str, object]:
        """Make the daemon read the file; return the feed. With names, accept any size."""
        named = {"names": [*names], "force": True} if names else {}
        [row] = self.ask("feeds_refresh", **named)
        found: dict[str, object] = row
        return found

    @property
    def denied(self) -> list[str]:
        """The networks that the kernel should drop for it."""
        return [format_network(network) for network in self.lists.networks.of(EXTERNAL)]

    @property
    def codes(self) -> list[str]:
        """The alarms about feeds."""
        return [str(alarm.code) for alarm in (*self.lists.alarms, *self.reporter.alarms())]


def test_networks_are_merged() -> None:
    """Adjoining networks become one, and ranges become networks."""
    found = read(b"198.51.100.0/25\n198.51.100.128/25\n198.51.101.4-198.51.101.7\n2001:db8::/32\n")

    assert texts(found) == ["198.51.100.0/24", "198.51.101.4/30", "2001:db8::/32"]


def test_what_no_list_of_attackers_has_is_left_out() -> None:
    """Local networks, very wide ones, and those of this host are left out, counted and named."""
    lines = ("10.0.0.0/8", "198.51.100.1", "203.0.113.0/24", "64.0.0.0/7", "0.0.0.0/1", "2001::/18", "::/3")
    found = read("\n".join(lines).encode())

    assert texts(found) == ["198.51.100.1"]
    assert found.left_out.number == 6
    assert found.left_out.named == (
        "10.0.0.0/8 (local)",
        "64.0.0.0/7 (too wide)",
        "0.0.0.0/1 (too wide)",
        "2001::/18 (too wide)",
        "::/3 (too wide)",
        "203.0.113.0/24 (this host needs it)",
    )


@pytest.mark.parametrize(
    "line",
    [
        "64:ff9b::203.0.113.7",
        "64:ff9b:1::/48",
        "64:ff9b:1:2::10.0.0.1",
        "2002:cb00:7107::/48",
        "2002:a00::/24",
        "2002::/19",
        "2001:0:4136:e378::/64",
        "2001::1-2001::4",
        "2001::/32",
        "::fffe:0:0-::1:0:0:1",
    ],
)
def test_networks_that_stand_for_ipv4_are_left_out(line: str) -> None:
    """NAT64, 6to4 and Teredo hold the private and the own IPv4 addresses once more."""
    found = read(f"{line}\n2001:4136::/32\n".encode(), most=10)

    assert texts(found) == ["2001:4136::/32"]
    assert found.left_out.number > 0
    assert found.left_out.named[-1].endswith(" (stands for IPv4)") or line.startswith("::")


@pytest.mark.parametrize(
    ("line", "named"),
    [("::ffff:10.1.2.3", "10.1.2.3 (local)"), ("::ffff:203.0.113.7", "203.0.113.7 (this host needs it)")],
)
def test_a_mapped_address_is_the_ipv4_address(line: str, named: str) -> None:
    """IPv4 in the form of IPv6 is judged as IPv4; the network of all of them is the whole Internet."""
    found = read(f"{line}\n::ffff:198.51.100.1\n".encode())

    assert (texts(found), found.left_out.named) == (["198.51.100.1"], (named,))
    with pytest.raises(ListError, match="is the whole internet"):
        read(b"::ffff:0:0/96\n198.51.100.1\n")


def test_only_the_first_left_out_networks_are_named() -> None:
    """The text about a hostile list has an end."""
    found = read(b"198.51.100.1\n" + b"10.0.0.1\n" * 100)

    assert (found.left_out.number, len(found.left_out.named)) == (100, NAMED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>\n198.51.100.1\n", "1 of 2 lines are not of this format: line 1: '<html>'"),
        (b"198.51.100.1\n198.51.100.999\n", "line 2: '198.51.100.999'"),
        (b"0.0.0.0/0\n198.51.100.1\n", "is the whole internet"),
        (b"\n".join(b"198.51.100.%d" % number for number in range(1, 255, 2)), "more than 100 networks"),
        (b"\n".join(b"198.51.%d.1" % (number % 256) for number in range(101)), "more than 100 networks"),
    ],
)
def test_a_list_counts_whole_or_not_at_all(data: bytes, reason: str) -> None:
    """One bad line refuses a list, and so do too many networks."""
    with pytest.raises(ListError, match=reason.replace("(", ".")):
        read(data, most=100)


def test_a_list_has_a_maximum_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without an end is not read to the end."""
    monkeypatch.setattr("ringfence.features.feeds.denied.MAX_LIST", 100_000)

    with pytest.raises(ListError, match="more than 100000 bytes"):
        read(b"# \n" * 100_000)


WORDS = st.sampled_from(
    ["203.0.113.7", "203.0.113.0/24", "192.0.2.9", "192.0.0.0/8", "128.0.0.0/1", "10.1.2.3", "::/0", "0/0"]
)
ANY = st.one_of(WORDS, st.ip_addresses().map(str), st.text(max_size=20), st.just("203.0.113.1-203.0.113.9"))


@given(st.lists(ANY, max_size=30), st.sampled_from(["\n", "\r\n", " ; x\n"]))
def test_no_list_reaches_what_this_host_needs(lines: list[str], end: str) -> None:
    """Whatever a list contains: it is refused, or denies no address of this host."""
    try:
        found = read(end.join(lines).encode())
    except ListError:
        return
    needed: list[Network] = list(ROLES)

    assert not any(found.networks.overlaps(own) for own in needed)
    assert all(network.prefixlen >= (8 if network.version == 4 else 19) for network in found.networks)


def test_a_file_feed_is_taken_over_and_denied(tmp_path: Path) -> None:
    """The networks of a feed's file go to the kernel's list, and the feed is named as their origin."""
    at = Feed(tmp_path)
    at.write("198.51.100.0/24", "10.0.0.1")

    row = at.refreshed()

    assert (row["state"], row["networks"], row["left_out"]) == ("in force", 1, 1)
    assert (at.denied, at.codes) == (["198.51.100.0/24"], [])

    async def holding() -> None:
        [holder] = await at.lists.holding(ip_network("198.51.100.9/32"))
        assert (holder.entry.origin, holder.entry.kind, holder.by_hand) == ("feed one", ListKind.DENY, False)
        assert holder.removal == "ringfence feeds remove one"
        assert await at.lists.holding(ip_network("198.51.101.9/32")) == []

    at.run(holding)
    [row] = at.ask("feeds", networks=["198.51.100.9", "198.51.101.9"])
    assert row["denies"] == ["198.51.100.9"]


def test_a_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon looks at the file every few seconds."""
    monkeypatch.setattr("ringfence.features.feeds.denied.LOOK_EVERY", 0.02)
    at = Feed(tmp_path)

    async def script() -> None:
        at.write("198.51.100.1")
        await at.until(lambda: at.denied == ["198.51.100.1"])
        at.write("198.51.100.2")
        await at.until(lambda: at.denied == ["198.51.100.2"])

    at.run(script)


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """A file without a name of its own may be half written, so the daemon waits until it is at rest."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    os.utime(at.path, (at.now - 1, at.now - 1))

    assert at.refreshed()["state"] == "waiting"
    at.now += 2
    assert at.refreshed()["state"] == "in force"


def test_a_missing_file_is_an_alarm(tmp_path: Path) -> None:
    """A feed without a list denies nothing, and names the problem."""
    at = Feed(tmp_path)

    row = at.refreshed()

    absent = f"{at.path}: there is no such file (the service has a /tmp of its own)"
    assert (row["state"], row["problem"]) == ("waiting", absent)
    assert at.codes == ["feed.failed"]


def test_a_file_that_is_gone_is_an_alarm(tmp_path: Path) -> None:
    """Without `max_age` the last list stays for ever, and the administrator learns that its file is gone."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    at.path.unlink()

    assert "there is no such file" in str(at.refreshed()["problem"])
    assert (at.denied, at.codes) == (["198.51.100.1"], ["feed.failed"])


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user without rights."""
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_file_that_the_daemon_may_not_read(tmp_path: Path, part: str) -> None:
    """The last good list stays, the problem has its fix, and the fix is noticed without a new file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "lists").mkdir()
        at = Feed(folder)
        at.path = folder / "lists" / "feed.txt"
        at.use(source(at.path))
        at.kept.mkdir()
        os.chown(at.kept, 65_534, 65_534)
        at.write("198.51.100.1")
        assert at.refreshed()["state"] == "in force"
        closed = at.path if part == "file" else at.path.parent
        at.write("198.51.100.2")
        closed.chmod(0o700)

        with unprivileged():
            problem = str(at.refreshed()["problem"])
            assert problem.startswith(
                f"{at.path}: the user of the daemon may not read it; fix: let everybody"
            )
            assert (at.denied, at.codes) == (["198.51.100.1"], ["feed.refused"])
        closed.chmod(0o755)
        with unprivileged():
            assert at.refreshed()["problem"] == ""
    assert (at.denied, at.codes) == (["198.51.100.2"], [])


def test_a_damaged_list_leaves_the_last_good_one(tmp_path: Path) -> None:
    """An error page instead of a list changes nothing, is an alarm, and the next good list ends it."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    at.write("<html>")

    assert "<html>" in str(at.refreshed()["problem"])
    assert (at.denied, at.codes) == (["198.51.100.1"], ["feed.refused"])
    at.write("198.51.100.2")
    at.refreshed()
    assert (at.denied, at.codes) == (["198.51.100.2"], [])


@pytest.mark.parametrize(("before", "after"), [(1, 11), (30, 2)])
def test_a_tenfold_change_needs_force(tmp_path: Path, before: int, after: int) -> None:
    """A list that grows or shrinks more than tenfold is taken over by force only."""
    at = Feed(tmp_path)
    at.write(*(f"198.51.{number}.1" for number in range(before)))
    at.refreshed()
    at.write(*(f"198.51.{number}.1" for number in range(after)))

    assert at.refreshed()["networks"] == before
    assert at.codes == ["feed.refused"]
    assert at.refreshed("one")["networks"] == after
    assert at.codes == []


def test_a_list_that_covers_much_needs_force(tmp_path: Path) -> None:
    """The first list of a feed may not cover a large part of the Internet either."""
    at = Feed(tmp_path)
    at.write(*(f"{number}.0.0.0/8" for number in range(20, 40)))

    assert at.refreshed()["state"] == "waiting"
    assert at.refreshed("one")["state"] == "in force"


def test_a_list_that_was_accepted_by_force_is_accepted_after_a_restart(tmp_path: Path) -> None:
    """The next start judges the same file again, and finds nothing new in it."""
    at = Feed(tmp_path)
    at.write(*(f"{number}.0.0.0/8" for number in range(20, 40)))
    at.refreshed("one")

    after = Feed(tmp_path).refreshed()
    assert (after["state"], after["problem"]) == ("in force", "")


@pytest.mark.parametrize("lines", [[], ["# nobody"], ["10.0.0.1"]])
def test_a_list_without_networks_needs_force(tmp_path: Path, lines: list[str]) -> None:
    """A list that denies nothing is refused, also as the first one. By force it frees everybody for good."""
    at = Feed(tmp_path)
    at.write(*lines)
    assert at.refreshed()["state"] == "waiting"
    at.write("198.51.100.1")
    at.refreshed()
    at.write(*lines)
    assert "has no network that can be denied; fix: " in str(at.refreshed()["problem"])
    assert at.denied == ["198.51.100.1"]

    assert at.refreshed("one")["state"] == "in force"
    assert at.denied == []
    after = Feed(tmp_path)
    assert (after.refreshed()["problem"], after.denied, after.codes) == ("", [], [])


def test_the_error_page_of_a_publisher_shows_no_key(tmp_path: Path) -> None:
    """A server may repeat the key of the request, which people see who may not have it."""
    at = Feed(tmp_path)
    at.use(source(at.path, keyed=True))
    at.write("<p>/api/0123456789abcdef is unknown</p>")

    problem = str(at.refreshed()["problem"])

    assert "1 of 1 line is not of this format: line 1" in problem
    assert "0123456789abcdef" not in problem


def test_an_unknown_feed_cannot_be_forced(tmp_path: Path) -> None:
    """A name that no feed has is an error."""
    with pytest.raises(ControlError, match="no feed has the name two"):
        Feed(tmp_path).refreshed("two")


def test_the_last_good_list_survives_a_restart(tmp_path: Path) -> None:
    """After a restart the feed denies the same, even if its file is gone."""
    before = Feed(tmp_path)
    before.write("198.51.100.0/24", "2001:db8::/32", "10.0.0.1")
    before.refreshed()
    before.path.unlink()

    after = Feed(tmp_path)

    assert after.denied == ["198.51.100.0/24", "2001:db8::/32"]
    [row] = after.ask("feeds")
    assert (row["state"], row["left_out_named"]) == ("in force", ["10.0.0.1 (local)"])


@pytest.mark.parametrize(
    "changes",
    [
        {"path": Path("/absent/other.txt")},
        {"layout": FeedLayout(FeedFormat.JSON, "ip")},
        {"fetched": True, "requested": "another url"},
    ],
    ids=["file", "format", "url"],
)
@pytest.mark.parametrize("restart", [False, True])
def test_a_feed_of_another_source_starts_afresh(
    tmp_path: Path, changes: dict[str, Any], *, restart: bool
) -> None:
    """No list of the old source is in force under the name of the new one, in memory or from the copy."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    changed = source(**{"path": at.path, **changes})
    after = Feed(tmp_path, changed) if restart else at

    after.use(changed)
    [row] = after.ask("feeds_refresh")

    assert (row["state"], row["networks"]) == ("waiting", 0)
    assert after.lists.networks.of(EXTERNAL) == Prefixes()


def test_another_max_age_keeps_the_list(tmp_path: Path) -> None:
    """A key that does not change the source leaves the feed in force."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    at.path.unlink()

    at.use(source(at.path, max_age=2_000.0))

    assert at.refreshed()["state"] == "in force"


def test_a_reload_may_permit_more_networks(tmp_path: Path) -> None:
    """A list that is refused because of `max_bans` is taken over after a reload with a greater one."""
    at = Feed(tmp_path)
    at.write(*(f"198.51.{number}.1" for number in range(3)))
    [feeds] = (other for other in at.lists.others if isinstance(other, Feeds))

    assert not feeds.update({}, 2, at.now)
    assert "more than 2 networks" in feeds.report({}, at.now)[0]["problem"]
    at.use(source(at.path))
    assert feeds.update({}, 3, at.now)
    [row] = feeds.report({}, at.now)
    assert (row["state"], row["problem"]) == ("in force", "")


def test_a_fetched_list_of_another_source_is_none(tmp_path: Path) -> None:
    """Until the fetcher requests the new source, its file is that of the old one."""
    at = Feed(tmp_path, fetched=True)
    at.write("198.51.100.1", checked=at.now)
    at.report(at.now, identity="old")

    row = at.refreshed()

    assert (row["state"], at.codes) == ("waiting", ["feed.failed"])
    assert "is from another source; fix: systemctl restart ringfence-feeds" in str(row["problem"])


@pytest.mark.parametrize(
    "content", ["", "x", "{}\n1.2.3.4\n", "[]\n", '{"taken":1,"left_out":0,"named":[]}\nx\n']
)
def test_a_damaged_copy_is_no_list(tmp_path: Path, content: str) -> None:
    """A copy that another program damaged is read as none, and the next list replaces it."""
    (tmp_path / "feeds").mkdir()
    (tmp_path / "feeds" / "one.list").write_text(content)

    at = Feed(tmp_path)

    assert at.denied == []
    at.write("198.51.100.1")
    assert at.refreshed()["state"] == "in force"


def test_a_copy_is_never_followed_as_a_link(tmp_path: Path) -> None:
    """Root reads the copy too, in a folder of the daemon's user."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    copy = at.kept / "one.list"
    copy.rename(tmp_path / "elsewhere")
    copy.symlink_to(tmp_path / "elsewhere")
    at.path.unlink()

    assert Feed(tmp_path).denied == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1::1-fe::", "more than 4000 networks before they are merged"),
        ("x", " lines are not of this format"),
    ],
)
def test_a_list_of_endless_work_is_given_up(tmp_path: Path, line: str, reason: str) -> None:
    """A few bytes may name hundreds of networks, of which none stays."""
    at = Feed(tmp_path)
    at.write(*([line] * 100_000))
    row = at.refreshed()

    assert row["state"] == "waiting"
    assert reason in str(row["problem"])


def test_a_copy_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    """The list is in force, and the administrator learns that a restart loses it."""
    (tmp_path / "feeds").write_text("no folder")
    at = Feed(tmp_path)
    at.write("198.51.100.1")

    for _ in range(2):
        row = at.refreshed()
        assert (row["state"], at.denied) == ("in force", ["198.51.100.1"])
        assert "cannot be written, so a restart loses it" in str(row["problem"])
        assert at.codes == ["feed.failed"]

    (tmp_path / "feeds").unlink()
    assert at.codes == ["feed.failed"]
    at.now += KEEP_AGAIN
    assert (at.refreshed()["problem"], at.codes) == ("", [])
    assert (tmp_path / "feeds" / "one.list").is_file()


def test_the_copy_of_a_list_is_written_when_its_file_is_gone(tmp_path: Path) -> None:
    """Then the copy is all that a restart has: it is written as soon as that works."""
    (tmp_path / "feeds").write_text("no folder")
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    at.path.unlink()
    (tmp_path / "feeds").unlink()
    at.now += KEEP_AGAIN
    at.refreshed()

    assert Feed(tmp_path).denied == ["198.51.100.1"]


def test_a_feed_that_is_not_refreshed_expires(tmp_path: Path) -> None:
    """After half of its time a failing feed is an alarm; after all of it, it denies nothing."""
    at = Feed(tmp_path, fetched=True, max_age=100.0)
    at.write("198.51.100.1", checked=at.now)
    at.refreshed()
    at.report(at.now, "no route to host")
    at.refreshed()
    assert at.codes == []

    at.now += 60
    at.refreshed()
    assert (at.denied, at.codes) == (["198.51.100.1"], ["feed.failed"])
    at.now += 60
    assert at.refreshed()["state"] == "expired"
    assert (at.denied, at.codes) == ([], ["feed.expired"])
    at.report(at.now)
    assert at.refreshed()["state"] == "in force"
    assert (at.denied, at.codes) == (["198.51.100.1"], [])


def test_a_fetcher_that_does_not_run_is_an_alarm(tmp_path: Path) -> None:
    """It reports no error. After half of `max_age` this is an alarm, but not before a new list is due."""
    one = source(tmp_path / "feed.txt", fetched=True, max_age=100.0, due_within=80.0)
    at = Feed(tmp_path, one)
    at.write("198.51.100.1", checked=at.now)
    at.refreshed()
    found = []
    for _ in range(3):
        at.now += 30
        at.refreshed()
        found.append(at.codes)

    assert (found, at.denied) == ([[], [], ["feed.failed"]], ["198.51.100.1"])
    [alarm] = at.reporter.alarms()
    assert alarm.text == f"it was not fetched since {rfc3339(1_000.0)}"
    at.report(at.now)
    at.refreshed()
    assert at.codes == []


@pytest.mark.parametrize("restart", [False, True])
def test_a_list_expires_although_the_clock_was_ahead(tmp_path: Path, *, restart: bool) -> None:
    """A list that was checked at a time that is still to come is as old as the correction of the clock."""
    at = Feed(tmp_path, fetched=True, max_age=100.0)
    right, year = at.now, 366 * 86_400.0
    at.now += year
    at.write("198.51.100.1", checked=at.now)
    assert at.refreshed()["state"] == "in force"
    at = Feed(tmp_path, fetched=True, max_age=100.0) if restart else at
    at.now = right
    at.report(right + year, "no route to host")
    assert at.refreshed()["state"] == "in force"

    at.now += 101
    assert at.refreshed()["state"] == "expired"


def test_a_confirmed_list_is_in_force_after_a_restart(tmp_path: Path) -> None:
    """A restart knows when the server last confirmed a list, but the copy is not written each time."""
    day = 86_400.0
    at = Feed(tmp_path, fetched=True, max_age=7 * day)
    at.write("198.51.100.1", checked=at.now)
    for _ in range(8):
        at.refreshed()
        at.now += day
        at.report(at.now)
    at.refreshed()
    copy = at.kept / "one.list"
    written = copy.stat().st_mtime_ns
    at.now += 3_600
    at.report(at.now)
    at.refreshed()
    assert copy.stat().st_mtime_ns == written

    after = Feeds(settings_of(tmp_path, source(at.path, fetched=True, max_age=7 * day)))
    [networks] = after.compose(at.now)
    assert [format_network(network) for network in networks] == ["198.51.100.1"]


def test_a_server_that_sends_no_list_any_more_lets_it_expire(tmp_path: Path) -> None:
    """A page of a hoster with status 200 is a success for the fetcher, and no list for the daemon."""
    at = Feed(tmp_path, fetched=True, max_age=100.0)
    at.write("198.51.100.1", checked=at.now)
    at.refreshed()
    at.now += 60
    at.write("<html>This domain is for sale.</html>", checked=at.now)
    at.refreshed()
    at.now += 60
    at.report(at.now)

    assert at.refreshed()["state"] == "expired"
    assert (at.denied, at.codes) == ([], ["feed.refused", "feed.expired"])


def test_a_list_that_has_expired_does_not_stay(tmp_path: Path) -> None:
    """The alarm about a refused list names the earlier one only while that denies something."""
    at = Feed(tmp_path, fetched=True, max_age=100.0)
    at.write("198.51.100.1", checked=at.now)
    at.refreshed()
    at.write("<html>", checked=at.now)
    at.now += 60
    at.refreshed()
    [alarm] = at.reporter.alarms()
    assert alarm.text.endswith("; the list of 1m ago stays")

    at.now += 60
    at.refreshed()
    assert ["stays" in alarm.text for alarm in at.reporter.alarms()] == [False, False]


def test_a_file_that_has_no_list_any_more_lets_it_expire(tmp_path: Path) -> None:
    """A file that is written again and again confirms nothing while it is refused, or not yet read."""
    at = Feed(tmp_path, max_age=100.0)

    def write(line: str, ago: float) -> str:
        at.write(line)
        os.utime(at.path, (at.now - ago, at.now - ago))
        return str(at.refreshed()["state"])

    assert write("198.51.100.1", 10.0) == "in force"
    at.now += 60
    assert write("<html>", 10.0) == "in force"
    at.now += 60
    assert write("198.51.100.2", 0.0) == "expired"
    assert write("<html>", 10.0) == "expired"
    assert (at.denied, at.codes) == ([], ["feed.refused", "feed.expired"])
    assert write("198.51.100.2", 10.0) == "in force"


def test_a_file_of_any_size_is_refused_at_once(tmp_path: Path) -> None:
    """A sparse file of terabytes is not read."""
    at = Feed(tmp_path, fetched=True)
    at.write("198.51.100.1")
    os.truncate(at.path, 1 << 40)

    assert "bytes" in str(at.refreshed()["problem"])


class Growing(io.BufferedReader):
    """A file whose owner makes it longer before each part is read."""

    read_so_far = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a part."""
        os.truncate(self.fileno(), os.fstat(self.fileno()).st_size + 1_000_000)
        found = super().read(size)
        Growing.read_so_far += len(found)
        return found


def test_a_file_that_grows_while_it_is_read_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may grow after its size was checked. The next good list is taken over."""
    at = Feed(tmp_path, fetched=True)
    at.write("198.51.100.1")
    monkeypatch.setattr(denied, "MAX_LIST", 200_000)
    monkeypatch.setattr("ringfence.lists.kept.opened", lambda path, **_: Growing(io.FileIO(path, "r+")))
    assert (at.refreshed()["state"], at.denied) == ("waiting", [])
    assert 200_000 < Growing.read_so_far <= 200_000 + 65_536

    monkeypatch.undo()
    at.write("198.51.100.2")
    assert (at.refreshed()["problem"], at.denied) == ("", ["198.51.100.2"])


@pytest.mark.parametrize(
    "state",
    [
        "",
        "[]",
        "[" * 2_000,
        '{"checked": NaN}',
        '{"checked": 1e999}',
        '{"checked": 9999999}',
        '{"checked": true, "error": 1}',
    ],
)
def test_no_report_of_the_fetcher_lengthens_a_feed(tmp_path: Path, state: str) -> None:
    """A report is hostile: with any content, a list does not live for ever."""
    at = Feed(tmp_path, fetched=True, max_age=100.0)
    at.write("198.51.100.1")
    at.path.with_name(at.path.name + STATE_SUFFIX).write_text(state)
    at.refreshed()
    at.now += 101

    assert at.refreshed()["state"] == "expired"


@pytest.mark.parametrize("fetched", [True, False])
def test_the_writer_of_a_list_cannot_name_another_file(tmp_path: Path, *, fetched: bool) -> None:
    """The daemon follows no link, shows no line of its target, and waits for no pipe."""
    at = Feed(tmp_path, fetched=fetched)
    (tmp_path / "secret").write_text("198.51.100.1\ns3cr3t-key\n")
    at.path.symlink_to(tmp_path / "secret")
    problem = str(at.refreshed()["problem"])
    assert "symbolic links are not followed" in problem
    assert "s3cr3t-key" not in f"{problem} {at.reporter.alarms()}"
    at.path.unlink()
    os.mkfifo(at.path)
    assert "is not a regular file" in str(at.refreshed()["problem"])
    assert at.denied == []


def test_a_removed_feed_denies_nothing(tmp_path: Path) -> None:
    """Without its table in the configuration, a feed and its copy are gone; a changed one starts again."""
    at = Feed(tmp_path)
    at.write("198.51.100.1")
    at.refreshed()
    changed = source(at.path, layout=FeedLayout(FeedFormat.CSV, "1"))

    at.use(changed)
    assert at.refreshed()["state"] == "in force"
    at.use()
    assert at.ask("feeds_refresh") == []
    assert at.denied == []
    assert [*at.kept.iterdir()] == []
