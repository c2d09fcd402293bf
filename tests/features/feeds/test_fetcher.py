"""When each list is requested, and what is written."""

import errno
import json
import os
import random
import ssl
from collections.abc import Mapping
from http.client import BadStatusLine
from pathlib import Path

import pytest
from attrs import Factory, define, evolve
from tests.features.feeds.server import Reply, publisher
from tests.support.certificate import certificate_in

from ringfence.features.feeds.denied import read_state
from ringfence.features.feeds.fetcher import (
    APIBAN_KEEPS,
    APIBAN_PAGES,
    APIBAN_PAUSE,
    FIRST_RETRY,
    MAX_RETRY,
    FeedState,
    Fetcher,
    load_state,
    save_state,
)
from ringfence.features.feeds.formats import STATE_SUFFIX, FeedFormat
from ringfence.features.feeds.https import HttpAnswer, get
from ringfence.features.feeds.plan import FetchError, PlannedFeed, encode_plan, read_plan

START = 1_700_000_000.0
END = HttpAnswer(400, {}, b'{"ipaddress":["no new bans"],"ID":"none"}')


@define
class World:
    """A fetcher of one list, its clock, and a server that answers as the test wants.

    Each answer takes ``seconds``.
    """

    folder: Path
    format: FeedFormat = FeedFormat.PLAIN
    url: str = "https://lists.example/x"
    now: float = START
    answers: list[HttpAnswer | FetchError] = Factory(list)
    requests: list[tuple[str, dict[str, str]]] = Factory(list)
    seconds: float = 0.0

    @property
    def path(self) -> Path:
        """The list."""
        return self.folder / "one.list"

    @property
    def feed(self) -> PlannedFeed:
        """The only feed of the plan."""
        return PlannedFeed("one", self.url, self.path, 3_600.0, self.format, "k/y")

    def made(self) -> Fetcher:
        """Return a fetcher as after its start."""
        context, rng = ssl.create_default_context, random.Random(1)  # noqa: S311 - jitter
        return Fetcher([self.feed], lambda: self.now, context, self._get, rng)

    def _get(self, url: str, headers: Mapping[str, str], _: ssl.SSLContext) -> HttpAnswer:
        self.requests.append((url, dict(headers)))
        self.now += self.seconds
        answer = self.answers.pop(0)
        if isinstance(answer, FetchError):
            raise answer
        return answer


def page(cursor: str, *addresses: str) -> HttpAnswer:
    """Return a page of APIBAN."""
    return HttpAnswer(200, {}, json.dumps({"ID": cursor, "ipaddress": addresses}).encode())


def test_a_list_is_requested_with_the_validators_of_the_last_answer(tmp_path: Path) -> None:
    """An unchanged list is confirmed and stays; the validators survive a restart of the fetcher."""
    world = World(tmp_path)
    stamps = {"etag": '"1"', "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    world.answers = [HttpAnswer(200, stamps, b"198.51.100.1\n"), HttpAnswer(304, {}, b"")]

    pause = world.made().tick()

    assert 3_600 <= pause <= 3_960
    assert world.path.read_bytes() == b"198.51.100.1\n"
    world.now += 4_000
    again = world.made()
    again.tick()
    assert [headers for _, headers in world.requests] == [
        {},
        {"If-None-Match": '"1"', "If-Modified-Since": stamps["last-modified"]},
    ]
    assert again.states["one"].checked == world.now
    assert read_state(world.path, world.now).checked == world.now


@pytest.mark.parametrize(
    "change", [{"url": "https://lists.example/y"}, {"format": FeedFormat.JSON}], ids=["url", "format"]
)
def test_another_source_starts_afresh(tmp_path: Path, change: dict[str, object]) -> None:
    """The old list is gone before the new server is asked, without validators; a failure brings none back."""
    world = World(tmp_path)
    world.answers = [HttpAnswer(200, {"etag": '"1"', "last-modified": "x"}, b"198.51.100.1\n")]
    world.made().tick()

    world = World(tmp_path, **change)  # type: ignore[arg-type]  # the fields differ in type
    world.answers = [FetchError("refused"), HttpAnswer(304, {}, b"")]
    world.made().tick()
    assert not world.path.exists()
    assert read_state(world.path, world.now).identity == world.feed.identity
    world.now += 100
    again = world.made()
    again.tick()

    assert [headers for _, headers in world.requests] == [{}, {}]
    assert again.states["one"].checked is None
    assert again.states["one"].failures == 2


def test_another_source_of_apiban_has_no_cursor(tmp_path: Path) -> None:
    """Neither the cursor nor the addresses of one server count for another."""
    world = World(tmp_path, FeedFormat.APIBAN)
    world.answers = [page("200", "198.51.100.1"), END]
    world.made().tick()

    world = World(tmp_path, FeedFormat.APIBAN, "https://other.example/api")
    world.answers = [page("300", "198.51.100.2"), END]
    world.made().tick()

    assert world.requests[0][0].endswith("/banned/100")
    assert world.path.read_text().startswith("198.51.100.2 ")
    assert "198.51.100.1" not in world.path.read_text()


def test_a_lost_list_is_requested_whole(tmp_path: Path) -> None:
    """Without its file, the validators of a list are worth nothing, and a 304 is no answer."""
    world = World(tmp_path)
    save_state(world.path, FeedState(etag="x", identity=world.feed.identity))
    world.answers = [HttpAnswer(304, {}, b"")]

    fetcher = world.made()
    fetcher.tick()

    assert world.requests[0][1] == {}
    assert "304" in fetcher.states["one"].error


def test_failures_wait_longer_each_time(tmp_path: Path) -> None:
    """Retries come after a minute, then after doubled times, and a success starts again."""
    world = World(tmp_path)
    fetcher, pauses = world.made(), []
    for _ in range(12):
        world.answers = [FetchError("lists.example: refused")]
        pauses.append(fetcher.tick())
        world.now += pauses[-1] + 1

    assert all(FIRST_RETRY * 2**n <= pause <= FIRST_RETRY * 2**n * 1.1 for n, pause in enumerate(pauses[:8]))
    assert pauses[-1] <= MAX_RETRY * 1.1
    assert read_state(world.path, world.now).error == "lists.example: refused"
    world.answers = [HttpAnswer(200, {}, b"")]
    fetcher.tick()
    assert (fetcher.states["one"].failures, fetcher.states["one"].error) == (0, "")


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry-after": "7200"}, 7_200),
        ({"retry-after": "x"}, 60),
        ({"retry-after": "-5"}, 60),
        ({"retry-after": "Wed, 15 Nov 2023 00:13:20 GMT"}, 7_200),
        ({"retry-after": "Wednesday, 15-Nov-23 00:13:20 GMT"}, 7_200),
        ({"retry-after": "Wed Nov 15 00:13:20 2023"}, 7_200),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400),
        ({"retry-after": "Wed, 15 Nov 2000 00:13:20 GMT"}, 60),
        ({"retry-after": "Wed, 99 Nov 2023 00:13:20 GMT"}, 60),
        ({"retry-after": "9" * 30}, 86_400),
        ({}, 60),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_may_ask_to_wait(tmp_path: Path, headers: dict[str, str], least: float, status: int) -> None:
    """Retry-After counts up to a day: as seconds, and as each form of a date."""
    world = World(tmp_path)
    world.answers = [HttpAnswer(status, headers, b"")]

    assert least <= world.made().tick() <= least * 1.1


@pytest.mark.parametrize("after", ["7200", "86400", "Wed, 15 Nov 2023 00:13:20 GMT"])
def test_a_server_that_asks_to_wait_is_left_alone(tmp_path: Path, after: str) -> None:
    """Neither a restart nor a reload asks earlier; after the time, the list is requested."""
    world = World(tmp_path)
    world.answers = [HttpAnswer(503, {"retry-after": after}, b""), HttpAnswer(200, {}, b"")]
    fetcher = world.made()
    pause = fetcher.tick()

    for passed in (1.0, 3_600.0, 3_598.0):
        world.now += passed
        fetcher.hurry()
        assert fetcher.tick() > 0
        fetcher = world.made()
        fetcher.hurry()
        assert fetcher.tick() > 0
    assert len(world.requests) == 1
    world.now = START + pause + 1
    world.made().tick()
    assert len(world.requests) == 2


def test_the_longest_wait_is_no_clock_that_was_set_back(tmp_path: Path) -> None:
    """With its jitter, a wait of a day is still obeyed by a feed that is due each minute."""
    world = World(tmp_path)
    world.answers = [HttpAnswer(429, {"retry-after": "86400"}, b"")]
    fetcher = world.made()
    fetcher.tick()
    state = fetcher.states["one"]
    save_state(world.path, evolve(state, due=START + 86_400 * 1.0999))
    world.now += 1

    assert world.made().tick() > 86_400
    assert len(world.requests) == 1


def test_a_failed_round_of_apiban_counts_for_its_limit(tmp_path: Path) -> None:
    """After a failure in the middle of a round, two minutes pass before the next one."""
    world = World(tmp_path, FeedFormat.APIBAN)
    world.answers = [page(str(n), f"198.51.100.{n}") for n in range(1, 10)]
    world.answers.append(HttpAnswer(400, {}, b'{"ipaddress":"rate limit exceeded","ID":"none"}'))

    assert world.made().tick() >= APIBAN_PAUSE


def test_a_round_of_apiban_that_cannot_be_written_counts_for_its_limit(tmp_path: Path) -> None:
    """A list that cannot be replaced leads to no second round within two minutes."""
    world = World(tmp_path, FeedFormat.APIBAN)
    save_state(world.path, FeedState(identity=world.feed.identity))
    world.path.mkdir()
    world.answers = [page("200", "198.51.100.1"), END]
    fetcher = world.made()

    assert fetcher.tick() >= APIBAN_PAUSE
    assert "cannot be written" in fetcher.states["one"].error
    assert len(world.requests) == 2


def test_an_administrator_can_ask_for_a_list_now(tmp_path: Path) -> None:
    """A reload makes a list due, but not within a minute of its last request."""
    world = World(tmp_path)
    world.answers = [HttpAnswer(200, {}, b""), HttpAnswer(200, {}, b"")]
    fetcher = world.made()
    fetcher.tick()
    fetcher.hurry()
    assert fetcher.tick() == 60
    world.now += 61
    fetcher.tick()
    assert len(world.requests) == 2


def test_a_clock_that_is_set_back_stops_no_feed(tmp_path: Path) -> None:
    """A request that is due far in the future is made now."""
    world = World(tmp_path)
    save_state(world.path, FeedState(due=START + 10**9, identity=world.feed.identity))
    world.answers = [HttpAnswer(200, {}, b"")]

    world.made().tick()

    assert len(world.requests) == 1


def test_a_full_disk_is_an_error_of_the_feed(tmp_path: Path) -> None:
    """A list that cannot be written is tried again."""
    world = World(tmp_path / "absent")
    world.answers = [HttpAnswer(200, {}, b"x")]
    fetcher = world.made()

    assert fetcher.tick() <= 66
    assert "cannot be written" in fetcher.states["one"].error


def test_what_a_full_disk_took_of_a_list_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that does not fit leaves the last room on the disk to others, such as the database."""
    world = World(tmp_path)
    world.path.write_bytes(b"198.51.100.1\n")
    save_state(world.path, FeedState(identity=world.feed.identity))
    before = {file.name for file in tmp_path.iterdir()}
    world.answers = [HttpAnswer(200, {}, b"198.51.100.2\n")]
    fetcher = world.made()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fetcher.tick()

    assert "No space left on device" in fetcher.states["one"].error
    assert {file.name for file in tmp_path.iterdir()} == before
    assert world.path.read_bytes() == b"198.51.100.1\n"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"checked": "x"}', "[" * 3_000, '{"due": 1e999, "checked": null}']
)
def test_a_damaged_state_is_none(tmp_path: Path, text: str) -> None:
    """A state that cannot be read means that the list is requested whole."""
    path = tmp_path / "one.list"
    path.with_name(path.name + STATE_SUFFIX).write_text(text)

    assert load_state(path) == FeedState()


def test_validators_that_are_too_long_are_not_kept(tmp_path: Path) -> None:
    """A server cannot fill the state."""
    world = World(tmp_path)
    world.answers = [HttpAnswer(200, {"etag": "x" * 10_000, "last-modified": "a\x00"}, b"")]
    fetcher = world.made()
    fetcher.tick()

    assert (fetcher.states["one"].etag, fetcher.states["one"].modified) == ("", "")


def test_apiban_is_read_page_by_page(tmp_path: Path) -> None:
    """Each page continues after the last one; the end is a 400, and the next round continues there."""
    world = World(tmp_path, FeedFormat.APIBAN)
    world.answers = [page("200", "198.51.100.1"), page("300", "198.51.100.2"), END]
    world.made().tick()
    assert [url.removeprefix("https://lists.example/x") for url, _ in world.requests] == [
        "/k%2Fy/banned/100",
        "/k%2Fy/banned/200",
        "/k%2Fy/banned/300",
    ]

    world.now += 4_000
    world.answers = [page("400", "198.51.100.3", "198.51.100.1"), END]
    world.made().tick()

    assert world.requests[3][0].endswith("/banned/300")
    lines = world.path.read_text().splitlines()
    assert sorted(line.partition(" ")[0] for line in lines) == [f"198.51.100.{n}" for n in (1, 2, 3)]
    world.now += APIBAN_KEEPS - 3_000
    world.answers = [END]
    world.made().tick()
    lines = world.path.read_text().splitlines()
    assert sorted(line.partition(" ")[0] for line in lines) == ["198.51.100.1", "198.51.100.3"]


def test_apiban_is_asked_at_most_eleven_times_in_two_minutes(tmp_path: Path) -> None:
    """After ten pages the fetcher pauses, also if an administrator asks for more."""
    world = World(tmp_path, FeedFormat.APIBAN)
    world.answers = [page(str(n), f"198.51.100.{n}") for n in range(1, 100)]
    fetcher = world.made()

    pause = fetcher.tick()
    fetcher.hurry()
    fetcher.tick()

    assert len(world.requests) == APIBAN_PAGES
    assert pause >= APIBAN_PAUSE > 120
    world.now += pause + 1
    fetcher.tick()
    assert world.requests[APIBAN_PAGES][0].endswith(f"/banned/{APIBAN_PAGES}")


@pytest.mark.parametrize("last", [page("10", "198.51.100.10"), FetchError("reset")], ids=["whole", "failed"])
def test_the_pause_of_apiban_begins_after_the_last_page(
    tmp_path: Path, last: HttpAnswer | FetchError
) -> None:
    """Pages that come slowly lead to no more requests in two minutes, also if an administrator asks."""
    world = World(tmp_path, FeedFormat.APIBAN, seconds=12.0)
    world.answers = [*(page(str(n), f"198.51.100.{n}") for n in range(1, APIBAN_PAGES)), last]
    fetcher = world.made()

    assert fetcher.tick() >= APIBAN_PAUSE
    fetcher.hurry()
    assert fetcher.tick() >= APIBAN_PAUSE
    assert len(world.requests) == APIBAN_PAGES


def test_apiban_has_a_maximum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that names ever more addresses takes no more memory, and the list stays."""
    monkeypatch.setattr("ringfence.features.feeds.fetcher.APIBAN_MOST", 2)
    world = World(tmp_path, FeedFormat.APIBAN)
    world.answers = [page("200", "198.51.100.1"), page("300", "198.51.100.2", "198.51.100.3"), END]
    fetcher = world.made()
    fetcher.tick()

    assert not world.path.exists()
    assert fetcher.states["one"].error == "APIBAN names more than 2 addresses in a week"
    assert world.answers == [END]


@pytest.mark.parametrize(
    "answer",
    [
        HttpAnswer(200, {}, b"rate limit exceeded"),
        HttpAnswer(400, {}, b'{"ipaddress":"rate limit exceeded","ID":"none"}'),
        HttpAnswer(403, {}, b'{"ipaddress":["unauthorized"],"ID":"unauthorized"}'),
        HttpAnswer(404, {}, b"not here"),
        HttpAnswer(403, {}, b'{"ipaddress":["bad key: k/y"],"ID":"unauthorized"}'),
        HttpAnswer(500, {}, b""),
        HttpAnswer(429, {}, b""),
    ],
)
def test_a_round_of_apiban_counts_whole_or_not_at_all(tmp_path: Path, answer: HttpAnswer) -> None:
    """If a page fails, the list and the cursor stay."""
    world = World(tmp_path, FeedFormat.APIBAN)
    world.answers = [page("200", "198.51.100.1"), END]
    world.made().tick()
    before = world.path.read_bytes()
    world.now += 4_000
    world.answers = [page("300", "198.51.100.2"), answer]
    fetcher = world.made()
    fetcher.tick()

    assert (world.path.read_bytes(), fetcher.states["one"].cursor) == (before, "200")
    assert fetcher.states["one"].error
    assert "k/y" not in fetcher.states["one"].error


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """The plan is a file; anything else in its place is an error."""
    feed = PlannedFeed("one", "https://x/", tmp_path / "one.list", 60.0, FeedFormat.APIBAN, "key")
    plan = tmp_path / "plan.json"
    plan.write_bytes(encode_plan([feed, evolve(feed, name="two", format=FeedFormat.PLAIN, key="")]))

    assert [one.name for one in read_plan(plan)] == ["one", "two"]
    assert read_plan(plan)[0] == feed
    plan.write_text("{}x")
    with pytest.raises(FetchError, match="is not a plan"):
        read_plan(plan)
    with pytest.raises(FetchError, match="cannot be read"):
        read_plan(tmp_path / "absent")


def test_no_error_of_the_protocol_repeats_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers with the path of the request, or a path that cannot be sent, shows no key."""

    def broken(*_: object) -> None:
        raise BadStatusLine("/api/key-0123456789/banned")

    monkeypatch.setattr("ringfence.features.feeds.https._request", broken)

    with pytest.raises(FetchError) as caught:
        get("https://lists.example/api/key-0123456789", {}, ssl.create_default_context())
    assert str(caught.value) == "lists.example: the answer is not HTTP (BadStatusLine)"


def test_a_planned_feed_hides_its_keys() -> None:
    """A feed that is logged by accident shows neither the key nor the URL."""
    feed = PlannedFeed("one", "https://x/?key=abc", Path("/x"), 60.0, FeedFormat.APIBAN, "k/y")

    assert "abc" not in repr(feed)
    assert "k/y" not in repr(feed)


def test_the_whole_way_by_https(tmp_path: Path) -> None:
    """A list comes by TLS from a real server, with its validators."""
    with publisher(tmp_path, list=Reply(headers={"ETag": '"7"'})) as server:
        feed = PlannedFeed("one", server.url(), tmp_path / "one.list", 60.0)
        fetcher = Fetcher([feed], lambda: START, server.context)
        fetcher.tick()

    assert feed.path.read_bytes() == b"198.51.100.1\n"
    assert load_state(feed.path).etag == '"7"'


def test_an_authority_that_the_host_trusts_later_needs_no_restart(tmp_path: Path) -> None:
    """Each request trusts the certificates that the host has at that time."""
    (tmp_path / "other").mkdir()
    trusted, now = certificate_in(tmp_path / "other"), [START]
    with publisher(tmp_path, list=Reply()) as server:
        feed = PlannedFeed("one", server.url(), tmp_path / "one.list", 60.0)
        fetcher = Fetcher([feed], lambda: now[0], lambda: ssl.create_default_context(cafile=trusted))
        now[0] += fetcher.tick() + 1
        assert "CERTIFICATE_VERIFY_FAILED" in fetcher.states["one"].error
        trusted.write_bytes(server.certificate.read_bytes())
        fetcher.tick()

    assert fetcher.states["one"].error == ""
    assert feed.path.read_bytes() == b"198.51.100.1\n"
