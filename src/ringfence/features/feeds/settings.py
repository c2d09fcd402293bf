"""``[[feeds]]``: block lists of others, and the feeds that ringfence knows by name."""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import Factory, evolve, frozen

from ringfence.config.converters import HOOKS, Duration, Name, Text, is_url, member, text_from, toml_of
from ringfence.features.feeds.formats import FeedFormat, FeedLayout, identity_of
from ringfence.firewall.contract import FirewallPlan
from ringfence.values.secret import SecretUrl

if TYPE_CHECKING:
    from ringfence.config.schema import Settings

FETCHED = Path("/var/lib/ringfence-feeds")
"""The folder of the fetcher, with the lists that it fetched."""

MAX_AGE = 7 * 86_400.0
"""Seconds after which a fetched list expires, unless ``max_age`` sets another time."""
MIN_EVERY = 60.0  # seconds: no server permits more
_LEAST_AGE = 1.2  # times the pause between two requests: the fetcher adds up to a tenth to each pause
SETTLED = 2.0
"""Seconds without a change after which an administrator's program has probably written its whole file."""


def _url(value: object, _: object) -> SecretUrl:
    text = text_from(value)
    if not is_url(text):
        raise ValueError('must be an address such as "https://lists.example/sip.txt"')
    return SecretUrl(text)


HOOKS.update(
    {
        SecretUrl | None: _url,
        FeedFormat: member,
    }
)


@frozen
class FeedSource:
    """A feed as the daemon needs it: a block list of others.

    ``path`` is the file with the list. If ``fetched``, the fetcher writes it, otherwise an administrator's
    program does. ``shown`` is the URL, with keys masked, or the path. ``requested`` identifies what the
    fetcher requests (``formats.identity_of``), "" for a file. After ``max_age`` seconds without a new or a
    confirmed list, the feed expires; None: never. ``keyed``: the server knows this host by a key, which
    an error page instead of a list may repeat. So no line of such a list is shown. ``due_within``: a fetcher
    that works confirms a list of it at least once in so many seconds.
    """

    name: str
    path: Path
    layout: FeedLayout = Factory(FeedLayout)
    fetched: bool = False
    max_age: float | None = None
    shown: str = ""
    requested: str = ""
    keyed: bool = False
    due_within: float = 0.0

    @property
    def identity(self) -> str:
        """A digest of the feed's source. If it changes, earlier lists of the feed no longer count."""
        return identity_of(str(self.path), self.layout.format, self.layout.key, self.requested)


@frozen(kw_only=True)
class FeedSettings:
    """One ``[[feeds]]``: where a list comes from, how it is written, and how long it holds.

    With ``url``, the fetcher writes the list to ``file`` every ``every`` seconds. Without, a program of the
    administrator writes it. ``max_age`` None means a week with ``url``, and no limit without. ``key_file``
    has the key for APIBAN.
    """

    name: Name
    url: SecretUrl | None = None
    file: Path | None = None
    format: FeedFormat = FeedFormat.PLAIN
    key: Text | None = None
    every: Duration = Duration(3_600.0)
    max_age: Duration | None = None
    key_file: Path | None = None

    @property
    def path(self) -> Path:
        """The path of the file with the feed's block list."""
        return self.file if self.file is not None else FETCHED / f"{self.name}.list"

    @property
    def source(self) -> FeedSource:
        """The feed's source as the daemon needs it: its file, and how long a list of it holds."""
        return FeedSource(
            self.name,
            self.path,
            FeedLayout(self.format, self.key or ""),
            self.url is not None,
            MAX_AGE if self.url is not None and self.max_age is None else self.max_age,
            str(self.path if self.url is None else self.url),
            "" if self.url is None else identity_of(self.url.reveal(), self.format),
            self.key_file is not None or (self.url is not None and self.url.has_key),
            _LEAST_AGE * self.every,
        )


TABLE = tuple[FeedSettings, ...]


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan``, the wanted firewall rules, with connection tracking if there are feeds."""
    return evolve(plan, new_only=plan.new_only or bool(settings.of(TABLE)))


def problems(feeds: Sequence[FeedSettings], _: Mapping[str, object]) -> Iterator[str]:
    """Yield a line for each mistake that the check of single values did not find; it begins with the key."""
    names = Counter(feed.name for feed in feeds)
    paths = Counter(feed.path for feed in feeds)
    urls = Counter(feed.url.reveal() for feed in feeds if feed.url is not None)
    for at, feed in enumerate(feeds):
        if names[feed.name] > 1:
            yield f'feeds[{at}].name: "{feed.name}" is taken; give each feed a name of its own'
        if feed.file is not None and paths[feed.path] > 1:
            yield f"feeds[{at}].file: is the file of another feed too; give each feed a file of its own"
        if feed.url is not None and urls[feed.url.reveal()] > 1:
            yield f"feeds[{at}].url: is the url of another feed too; remove one of them"
        yield from (f"feeds[{at}].{problem}" for problem in _problems(feed))


def _problems(feed: FeedSettings) -> Iterator[str]:
    if feed.url is None and feed.file is None:
        yield "url: is missing; name the url or the file of the list"
    if feed.every < MIN_EVERY:
        yield "every: must be at least a minute"
    if feed.format in {FeedFormat.JSON, FeedFormat.CSV} and feed.key is None:
        yield "key: is missing; name the JSON key or the column with the addresses"
    if feed.format is FeedFormat.APIBAN and (feed.url is None or feed.key_file is None):
        yield "key_file: is missing; APIBAN needs a url and a file with your key"
    limit = feed.source.max_age
    if feed.url is not None and limit is not None and limit < _LEAST_AGE * feed.every:
        yield f"max_age: must be at least {_LEAST_AGE} times every; the default is 7d"


@frozen
class Preset:
    """A feed that ringfence knows: its keys, and the terms of its use in one line."""

    terms: str
    keys: Mapping[str, str]


PRESETS: Mapping[str, Preset] = {
    "apiban": Preset(
        "Terms of apiban.org, where you get a key; at most 11 requests in 2 minutes.",
        {
            "url": "https://apiban.org/api",
            "format": "apiban",
            "key_file": "/etc/ringfence/apiban.key",
            "every": "10m",
            "max_age": "7d",
        },
    ),
    "voipbl": Preset(
        "Terms of voipbl.org; ask at most every few hours.",
        {"url": "https://voipbl.org/update/", "every": "4h", "max_age": "7d"},
    ),
    "blocklist-de-sip": Preset(
        "Terms of blocklist.de; ask at most every 30 minutes.",
        {"url": "https://lists.blocklist.de/lists/sip.txt", "every": "1h", "max_age": "3d"},
    ),
    **{
        f"spamhaus-drop-v{version}": Preset(
            "Free of charge under spamhaus.org/blocklists/drop-fair-use-policy; ask at most once an hour.",
            {
                "url": f"https://www.spamhaus.org/drop/drop_v{version}.json",
                "format": "json",
                "key": "cidr",
                "every": "12h",
                "max_age": "7d",
            },
        )
        for version in (4, 6)
    },
}
"""The feeds that `ringfence feeds add NAME` knows. None is on by default."""


# -- changes of the file's text


def feed_table(text: str, keys: Mapping[str, str], comment: str = "") -> str:
    """Return the configuration ``text`` with a new table ``[[feeds]]`` with ``keys`` at its end.

    The values must be printable. ``comment`` is a line above the table.
    """
    lines = [f"# {comment}"] if comment else []
    lines += ["[[feeds]]", *(f"{key} = {toml_of(value)}" for key, value in keys.items())]
    return "\n".join([text.rstrip("\n"), "", *lines, ""])


def without_feed(text: str, name: str) -> str | None:
    """Return the configuration ``text`` without the table of the feed ``name``.

    Return None if no ``[[feeds]]`` table can be cut out so that everything else stays.
    """
    tree = tomllib.loads(text)
    feeds = [feed for feed in tree["feeds"] if feed["name"] != name]
    wanted = {**tree, "feeds": feeds} if feeds else {key: tree[key] for key in tree if key != "feeds"}
    lines = text.split("\n")
    heads = [at for at, line in enumerate(lines) if line.lstrip().startswith("[")]
    terms = {f"# {preset.terms}" for preset in PRESETS.values()}
    for begin, end in pairwise([*heads, len(lines)]):
        last = end
        while last > begin + 1 and lines[last - 1].lstrip()[:1] in {"", "#"}:
            last -= 1  # blank lines and comments before the next table belong to that
        first = begin - 1 if begin and lines[begin - 1] in terms else begin
        shorter = "\n".join(lines[:first] + lines[last:])
        with suppress(ValueError):
            if tomllib.loads(shorter) == wanted:
                return shorter.rstrip("\n") + "\n"
    return None
