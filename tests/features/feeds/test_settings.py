"""``[[feeds]]``: the keys, every problem, and the changes of the file's text."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config.loader import parse
from ringfence.errors import ConfigError
from ringfence.features.feeds.formats import FeedFormat
from ringfence.features.feeds.settings import PRESETS, TABLE, FeedSettings, feed_table, without_feed
from ringfence.values.secret import SecretUrl

HEAD = "[[asterisk]]\nami.enabled = false\n"
AGE = "must be at least 1.2 times every; the default is 7d"
URL = 'must be an address such as "https://lists.example/sip.txt"'


def read(text: str) -> tuple[FeedSettings, ...]:
    """Return the feeds of a configuration."""
    return parse(tomllib.loads(HEAD + text), "here", {}, secrets=False).of(TABLE)


def test_there_is_no_feed_by_default() -> None:
    """Nothing is fetched unless the administrator asks for it."""
    assert read("") == ()


def test_the_defaults_of_a_feed() -> None:
    """A name and a url are enough; the fetcher then has the list in its own folder."""
    [feed] = read("[[feeds]]\nname = 'one'\nurl = 'https://lists.example/x'\n")

    assert (feed.format, feed.every, feed.max_age) == (FeedFormat.PLAIN, 3_600.0, None)
    assert (str(feed.path), feed.source.fetched) == ("/var/lib/ringfence-feeds/one.list", True)
    assert feed.source.shown == "https://lists.example/x"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://lists.example/drop/drop_v4.json", "https://lists.example/drop/drop_v4.json"),
        ("https://x:8443/sip.txt?key=abc&n=1", "https://x:8443/sip.txt?***"),
        ("https://x/api/0123456789abcdef/banned", "https://x/api/***/banned"),
        ("https://x/a1b2c3d4", "https://x/***"),
        ("https://x/abcdefghijklmnopqrstuvwxyz/x", "https://x/***/x"),
        ("https://x/eyJhbGciOi.eyJzdWIiOiIxMjM0NTY3.dBjftJeZ4CVP/x", "https://x/***/x"),
    ],
)
def test_a_key_in_a_url_is_never_shown(url: str, shown: str) -> None:
    """The query and what may be a key in the path are masked; the fetcher gets all of it."""
    [feed] = read(f"[[feeds]]\nname = 'one'\nurl = '{url}'\n")

    assert feed.url == SecretUrl(url)
    assert (feed.source.shown, feed.source.keyed, str(feed.url)) == (shown, shown != url, shown)
    assert shown in repr(feed)
    assert url == shown or url not in repr(feed)


def test_the_user_of_a_url_is_masked() -> None:
    """Also the form that a configuration refuses is shown without its password."""
    assert str(SecretUrl("https://a:b@x/y")) == "https://***@x/y"


def test_a_file_feed() -> None:
    """Without a url, the file is the administrator's own."""
    [feed] = read("[[feeds]]\nname = 'one'\nfile = '/lists/x'\nformat = 'csv'\nkey = '2'\nmax_age = '7d'\n")

    assert (feed.source.fetched, feed.source.shown, feed.source.max_age) == (False, "/lists/x", 604_800.0)
    assert feed.source.layout.key == "2"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("", "feeds[0].url: is missing; name the url or the file of the list"),
        ("url = 'http://x/'", f"feeds[0].url: {URL}"),
        ("url = 'https://'", f"feeds[0].url: {URL}"),
        ("url = 'https://x:y/'", f"feeds[0].url: {URL}"),
        ("url = 'https://a@x/'", f"feeds[0].url: {URL}"),
        ("url = 'https://x/ y'", f"feeds[0].url: {URL}"),
        ("file = 'x'", "feeds[0].file: must be an absolute path"),
        ("file = '/x'\nevery = '1s'", "feeds[0].every: must be at least a minute"),
        (
            "file = '/x'\nformat = 'json'",
            "feeds[0].key: is missing; name the JSON key or the column with the addresses",
        ),
        (
            "url = 'https://x/'\nformat = 'apiban'",
            "feeds[0].key_file: is missing; APIBAN needs a url and a file with your key",
        ),
        ("url = 'https://x/'\nmax_age = '2m'", f"feeds[0].max_age: {AGE}"),
        ("url = 'https://x/'\nmax_age = '1h'", f"feeds[0].max_age: {AGE}"),
        ("url = 'https://x/'\nevery = '14d'", f"feeds[0].max_age: {AGE}"),
    ],
)
def test_problems(keys: str, problem: str) -> None:
    """Each mistake is a line with its key."""
    with pytest.raises(ConfigError) as caught:
        read(f"[[feeds]]\nname = 'one'\n{keys}\n")

    assert problem in caught.value.problems


def test_a_list_may_be_little_older_than_the_pause_between_two_requests() -> None:
    """A feed that every request confirms never expires; a file has no requests."""
    [feed] = read("[[feeds]]\nname = 'one'\nurl = 'https://x/'\nevery = '10h'\nmax_age = '12h'\n")
    assert feed.max_age == 12 * 3_600.0
    assert feed.source.due_within == pytest.approx(12 * 3_600.0)
    [feed] = read("[[feeds]]\nname = 'one'\nfile = '/x'\nmax_age = '2m'\n")
    assert feed.max_age == 120.0


def test_a_name_is_unique() -> None:
    """Two feeds of one name are a mistake."""
    table = "[[feeds]]\nname = 'one'\nfile = '/{}'\n"
    with pytest.raises(ConfigError) as caught:
        read(table.format("x") + table.format("y"))

    assert caught.value.problems == [
        f'feeds[{at}].name: "one" is taken; give each feed a name of its own' for at in (0, 1)
    ]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("file = '/x/./y'", "file: is the file of another feed too; give each feed a file of its own"),
        ("url = 'https://x/?key=abc'", "url: is the url of another feed too; remove one of them"),
    ],
)
def test_a_source_is_unique(keys: str, problem: str) -> None:
    """Two feeds of one file or url are a mistake; the url is not shown."""
    with pytest.raises(ConfigError) as caught:
        read("".join(f"[[feeds]]\nname = '{name}'\n{keys}\n" for name in ("one", "two")))

    assert caught.value.problems == [f"feeds[{at}].{problem}" for at in (0, 1)]


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_any_printable_path_is_written_as_it_is(path: str) -> None:
    """Quotes and backslashes of a path stay within its value."""
    keys = {"name": "one", "file": f"/{path}"}

    assert tomllib.loads(feed_table(HEAD, keys))["feeds"] == [keys]


@pytest.mark.parametrize("name", PRESETS)
def test_a_known_feed_is_added_and_removed(name: str) -> None:
    """The table of each known feed is valid, and its removal leaves the text as it was."""
    text = f"# head\n{HEAD}# about the rules\n[rules.guess]\nattempts = 4\n"
    longer = text
    for one in (name, "voipbl" if name != "voipbl" else "apiban"):
        longer = feed_table(longer, {"name": one, **PRESETS[one].keys}, PRESETS[one].terms)

    assert next(feed.name for feed in read(longer.removeprefix("# head\n").removeprefix(HEAD))) == name
    shorter = without_feed(longer, name)
    assert shorter is not None
    assert name not in shorter
    assert shorter.startswith(text)


def test_a_table_in_the_middle_is_removed() -> None:
    """Comments and tables after the feed stay."""
    text = f"{HEAD}[[feeds]] # mine\nname = 'one'\nfile = '/x'\n\n# about the store\n[store]\npath = '/y'\n"

    assert without_feed(text, "one") == f"{HEAD}\n# about the store\n[store]\npath = '/y'\n"


def test_another_way_of_writing_is_left_alone() -> None:
    """A feed that is not a table of its own is not cut out."""
    assert without_feed("feeds = [{name = 'one', file = '/x'}]\n", "one") is None
