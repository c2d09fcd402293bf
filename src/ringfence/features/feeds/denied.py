"""Feeds in the daemon: which lists of others are taken over, and for how long they hold.

The daemon reads a feed from a file. An administrator's program writes the file, or the fetcher
(``ringfence feeds fetch``), which has no rights. So the content is untrusted, however it came here:

* A list counts whole or not at all. A line that cannot be parsed refuses it.
* Networks that no list of attackers should have are left out, counted and named: local networks, very wide
  ones, and those that this host needs.
* A list that grew or shrank more than tenfold is refused until an administrator forces it.

The last good list is kept in a file of the daemon's own. So it survives a restart and a dead server, until
it is older than ``max_age``.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import structlog
from attrs import define, evolve, frozen

from ringfence.alarm_codes import Alarm
from ringfence.clock import format_duration
from ringfence.config.schema import Settings
from ringfence.errors import ListError
from ringfence.features.feeds.alarms import FeedAlarmCode
from ringfence.features.feeds.formats import MAX_LIST, MAX_STATE, STATE_SUFFIX, FeedEntry, FeedParser
from ringfence.features.feeds.settings import SETTLED, TABLE, FeedSource
from ringfence.lists import kept
from ringfence.lists.manager import Holder, OtherNetworks
from ringfence.lists.prefixes import Coded, Gatherer, Prefixes, code_of, text_of
from ringfence.lists.texts import SHORTEST_FED, host_codes, networks_in, overlaps_local, stands_for_ipv4
from ringfence.plurals import counted
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import BITS, VERSIONS, Network, format_network, parse_network
from ringfence.values.text import printable, rfc3339

MOST_BAD = 1_000
"""The number of lines that cannot be parsed after which the rest of a list is not read."""
MOST_READ = 4
"""The factor by which a list may name more networks than may be denied: some are repeated or local."""
MOST_COMMENTS = 100_000
"""The maximum number of comments and empty lines in a list, beyond one for each network it may name."""
LOOK_EVERY = 5.0
"""Seconds between two checks of the feeds' files."""
KEEP_AGAIN = 60.0
"""Seconds after which a list is written again that could not be written. A full disk has little room."""
NAMED = 20
"""The maximum number of networks that are named as left out. The others are only counted."""

_TEMPORARY = Path("/tmp"), Path("/var/tmp")  # noqa: S108 - folders of which a service has its own

_PART = 65_536  # bytes
_MAX_TEXT = 300


@define
class LeftOutNetworks:
    """The networks of a list that were left out: how many, and the first ones with the reason."""

    number: int = 0
    named: tuple[str, ...] = ()

    def add(self, one: Coded, reason: str) -> None:
        """Count a network that was left out; if it is one of the first, keep its text and the reason."""
        self.number += 1
        if len(self.named) < NAMED:
            self.named += (f"{text_of(*one)} ({reason})",)


@frozen
class TakenFeed:
    """The networks of a block list that was accepted at ``taken`` (seconds since the epoch)."""

    networks: Prefixes
    left_out: LeftOutNetworks
    taken: float


@frozen
class FetchState:
    """The fetcher's report about a feed.

    ``checked`` is when the server last sent the list or confirmed it, None for never. ``error`` is why the
    latest request failed, "" if it succeeded. ``identity`` is the digest of the source that the fetcher
    requests.
    """

    checked: float | None = None
    error: str = ""
    identity: str = ""


def read_feed(file: BinaryIO, source: FeedSource, protected: Iterable[Network], most: int) -> TakenFeed:
    """Read a block list, and return its networks without those that this host needs (``protected``).

    The result's ``taken`` is 0. Raise ListError, with all reasons, if a line cannot be parsed, or if the list
    has more than ``most`` networks.
    """
    parser = FeedParser(source.layout, 2 * MOST_READ * most + MOST_COMMENTS)
    gatherer, left, number_read = Gatherer(), LeftOutNetworks(), 0
    for entries in _parsed(file, parser):
        number_read += _gather(entries, parser, gatherer, left, MOST_READ * most - number_read)
        _check_work(number_read, most, parser, source)
        if len(gatherer) > 2 * most:
            gatherer.compact()
            _check_room(len(gatherer), most)
    _check_bad_lines(parser, source)
    networks = _without(gatherer, protected, left)
    _check_room(len(networks), most)
    return TakenFeed(networks, left, 0.0)


def _gather(
    entries: Sequence[FeedEntry], parser: FeedParser, gatherer: Gatherer, left: LeftOutNetworks, most: int
) -> int:
    """Add each network of some entries to ``gatherer``, or to ``left`` if it must not be denied.

    Return the number of networks. Stop after more than ``most``: a line of ten bytes may be a range of
    hundreds of networks. Entries that cannot be parsed are counted in ``parser.bad``.
    """
    hosts = host_codes([text for _, text in entries])
    if hosts is not None:
        public, local = hosts
        gatherer.add_v4(public)
        for code in local:
            left.add((4, code), "local")
        return len(entries)
    number_read = 0
    for number, text in entries:
        try:
            codes = networks_in(text)
        except ValueError as error:
            parser.bad.add(number, text.encode(), error)
            continue
        for version, code in codes:
            if code & 0xFF < SHORTEST_FED[version]:
                left.add((version, code), "too wide")
            elif overlaps_local(version, code):
                reason = "stands for IPv4" if stands_for_ipv4(version, code) else "local"
                left.add((version, code), reason)
            else:
                gatherer.add_code(version, code)
        number_read += len(codes)
        if number_read > most:
            break
    return number_read


def _check_work(number_read: int, most: int, parser: FeedParser, source: FeedSource) -> None:
    """Raise ListError if too many lines are bad, or if ``number_read`` is more than 4 * ``most`` networks."""
    if parser.bad.number > MOST_BAD:
        _check_bad_lines(parser, source)
    if number_read > MOST_READ * most:
        raise ListError(f"the list has more than {MOST_READ * most} networks before they are merged")


def _check_bad_lines(parser: FeedParser, source: FeedSource) -> None:
    if parser.bad.number:
        first = parser.bad.first[:3]
        shown = "; ".join(f"line {bad.number}" if source.keyed else str(bad) for bad in first)
        lines = counted(parser.lines, "line is", "lines are")
        raise ListError(f"{parser.bad.number} of {lines} not of this format: {shown}")


def _parts(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file in parts; raise ListError if it is or becomes too large while it is read."""
    size = 0
    while part := file.read(_PART):
        size += len(part)
        _check_bytes(size)
        yield part


def _parsed(file: BinaryIO, parser: FeedParser) -> Iterator[list[FeedEntry]]:
    """Yield the entries of a file in parts; raise ListError if it is too large."""
    for part in _parts(file):
        yield parser.receive(part)
    yield parser.end()


def _check_bytes(size: int) -> None:
    if size > MAX_LIST:
        raise ListError(f"the list has more than {MAX_LIST} bytes")


def _digest(file: BinaryIO) -> bytes:
    """Return the SHA-256 hash of a file's content; raise ListError if the file is too large."""
    _check_bytes(os.fstat(file.fileno()).st_size)  # a sparse file has any size
    digest = hashlib.sha256()
    for part in _parts(file):
        digest.update(part)
    return digest.digest()


def _check_room(number: int, most: int) -> None:
    if number > most:
        raise ListError(f"the list has more than {most} networks; fix: raise [firewall] max_bans, and reload")


def _without(gatherer: Gatherer, protected: Iterable[Network], left: LeftOutNetworks) -> Prefixes:
    """Return the gathered networks, merged. Count those that overlap ``protected`` in ``left`` instead."""
    merged = gatherer.prefixes()
    own = [_range_of(*code_of(network)) for network in protected if merged.overlaps(network)]
    if not own:
        return merged
    rest = Gatherer()
    for version, code in gatherer.unmerged().coded():
        _, first, last = _range_of(version, code)
        if any(version == of and first <= end and begin <= last for of, begin, end in own):
            left.add((version, code), "this host needs it")
        else:
            rest.add_code(version, code)
    return rest.prefixes()


def _range_of(version: int, code: int) -> tuple[int, int, int]:
    """Return the IP version, and the first and the last address (numbers) of the network ``code`` encodes."""
    first = code >> 8
    return version, first, first | ((1 << (BITS[version] - (code & 0xFF))) - 1)


# -- which sizes of a list are suspicious
#
# The maker of a list could have any address denied. So no list may cover a large part of the Internet, and a
# new version of a list may not have a far different size than the one before.


MOST_COVERED: Mapping[int, int] = {4: 1 << (32 - 4), 6: 1 << (128 - 7)}
"""The maximum number of addresses in a list without ``force``, by IP version.

This is a sixteenth of the IPv4 addresses, and of the IPv6 addresses that registries assign (2000::/3). The
lists of attackers that we know are far shorter: Spamhaus DROP has about 0.4 % of the IPv4 addresses.
"""

MOST_GROWTH = 10
"""The greatest factor by which a new list may be longer or shorter than the one before, without force."""

_UNREMARKABLE: Mapping[int, int] = {4: 1 << (32 - 12), 6: 1 << (128 - 28)}
"""By IP version, up to how many covered addresses a list may grow by any factor, without force.

One more network, such as a /12, may multiply the addresses of a short list. The number of networks is limited
all the same (``MOST_GROWTH``).
"""


def _check_size(name: str, networks: Prefixes, before: Prefixes) -> None:
    """Raise ListError if the list of the feed ``name`` is empty, too large, or changed too much.

    ``before`` are the networks that it had before. A list that had none may have any number.
    """
    rest = f"fix: look at the list; to accept it: ringfence feeds refresh --force {name}"
    if not len(networks):
        raise ListError(f"the list has no network that can be denied; {rest}")
    for version in VERSIONS:
        covered, old = networks.addresses(version), before.addresses(version)
        if covered > MOST_COVERED[version]:
            raise ListError(f"the list covers a large part of the internet (IPv{version}); {rest}")
        if covered > _UNREMARKABLE[version] and 0 < old * MOST_GROWTH < covered:
            raise ListError(f"the list covers {covered // old} times more addresses (IPv{version}); {rest}")
    number, number_before = len(networks), len(before)
    if 0 < number_before * MOST_GROWTH < number or number * MOST_GROWTH < number_before:
        raise ListError(f"the list has {counted(number, 'network')}, and had {number_before} before; {rest}")


# -- the files: the list as it arrived, the fetcher's state, and the last good list


Signature = tuple[int, int, int]


def _signature(path: Path) -> Signature | None:
    """Return numbers of a file that change when it is replaced or written; None if there is no such file.

    Raise OSError if that is unknown, for example because its folder may not be entered.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_state(list_path: Path, now: float) -> FetchState:
    """Return the fetcher's report about the list ``list_path``; an empty one if missing or invalid.

    A list that was checked after ``now`` (seconds since the epoch) counts as never checked.
    """
    try:
        with kept.opened(list_path.with_name(list_path.name + STATE_SUFFIX)) as file:
            found = json.loads(file.read(MAX_STATE))
    except (OSError, ValueError, RecursionError):
        return FetchState()
    if not isinstance(found, dict):
        return FetchState()
    checked, error, identity = found.get("checked"), found.get("error"), found.get("identity", "")
    return FetchState(
        # JSON also has NaN, infinity and endless numbers; a time in the future would never expire.
        float(checked) if isinstance(checked, int | float) and 0 <= checked <= now else None,
        printable(error[:_MAX_TEXT]) if isinstance(error, str) else "",
        identity if isinstance(identity, str) else "",
    )


def _read_kept(path: Path, identity: str) -> tuple[TakenFeed, float] | None:
    """Read the last good list from ``path``, and when it was last known to be current (epoch seconds).

    Return None if the file is missing, damaged, or not from ``identity``.
    """
    head, lists = kept.read(path)
    if head.get("source") != identity:
        return None
    try:
        left = LeftOutNetworks(int(head["left_out"]), tuple(map(str, head["named"])))
        taken = float(head["taken"])
        return TakenFeed(lists[0], left, taken), float(head.get("checked", taken))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError):
        return None


# -- the feeds of a running daemon


@frozen
class ListFeed:
    """A feed: its accepted block list (``taken``), and what is known about its source.

    ``refused`` is why the source's present file is not accepted, "" if it is. ``judged`` is the signature of
    the file that was read last, and ``digest`` the hash of its content. ``checked`` is when the list was last
    known to be current (seconds since the epoch), and ``kept_checked`` the same in the daemon's own file.
    ``unkept`` is why a restart would lose the list, "" if it would not. Then the daemon tries to write it
    again at ``keep_at`` (seconds since the epoch).
    """

    source: FeedSource
    taken: TakenFeed | None = None
    refused: str = ""
    judged: object = None
    digest: bytes = b""
    checked: float | None = None
    error: str = ""
    kept_checked: float | None = None
    unkept: str = ""
    keep_at: float = 0.0

    @property
    def must_be_kept(self) -> bool:
        """Whether the list must be written again: it could not be, or a restart would take it for older."""
        limit, checked = self.source.max_age, self.checked
        if self.unkept or limit is None or checked is None:
            return bool(self.unkept)
        return abs(checked - (self.kept_checked or 0.0)) > limit / 10

    def expired(self, now: float) -> bool:
        """Whether the feed's list is too old to be in force at ``now`` (seconds since the epoch)."""
        limit = self.source.max_age
        return limit is not None and self.taken is not None and now - (self.checked or 0.0) > limit

    def as_json(self, now: float, networks: Iterable[Network] = ()) -> dict[str, Any]:
        """Return the feed and its state at ``now`` (epoch seconds) as JSON values; times are RFC 3339 in UTC.

        ``denies`` are those of ``networks`` of which the feed denies a part; none if it is not in force.
        """
        taken = self.taken
        state = "waiting" if taken is None else "expired" if self.expired(now) else "in force"
        live = taken.networks if taken is not None and state == "in force" else Prefixes()
        return {
            "name": self.source.name,
            "source": self.source.shown,
            "state": state,
            "networks": len(taken.networks) if taken is not None else 0,
            "left_out": taken.left_out.number if taken is not None else 0,
            "left_out_named": [*taken.left_out.named] if taken is not None else [],
            "taken": rfc3339(taken.taken) if taken is not None else None,
            "checked": rfc3339(self.checked) if self.checked is not None else None,
            "problem": self.refused or self.error or self.unkept,
            "denies": [format_network(one) for one in networks if live.overlaps(one)],
        }

    def alarms(self, now: float) -> Iterator[Alarm]:
        """Yield the alarms about this feed at ``now`` (seconds since the epoch)."""
        name, limit = self.source.name, self.source.max_age
        if self.refused:
            taken = None if self.expired(now) else self.taken
            rest = f"the list of {format_duration(now - taken.taken)} ago stays" if taken else ""
            text = "; ".join(filter(None, [self.refused, rest]))
            yield Alarm(FeedAlarmCode.FEED_REFUSED, name, text)
        if self.expired(now):
            why = f": {self.error}" if self.error else ""
            age = format_duration(limit or 0.0)
            yield Alarm(FeedAlarmCode.FEED_EXPIRED, name, f"older than {age}, so it denies nothing{why}")
        elif self.checked is None and not self.refused:
            text = self.error or f"{self.source.path}: there is no list yet"
            yield Alarm(FeedAlarmCode.FEED_FAILED, name, text)
        elif late := self._why_late(now):
            yield Alarm(FeedAlarmCode.FEED_FAILED, name, late)
        elif self.unkept:
            yield Alarm(FeedAlarmCode.FEED_FAILED, name, self.unkept)

    def _why_late(self, now: float) -> str:
        """Return why the list was not confirmed within half of its ``max_age``; "" if it was.

        Without ``max_age``, return any error of its source. A fetcher that does not run reports none.
        """
        source, checked = self.source, self.checked or 0.0
        if source.max_age is not None and now - checked <= source.max_age / 2:
            return ""
        if self.error or self.refused or source.max_age is None or not source.fetched:
            return self.error
        is_late = now - checked > source.due_within
        return f"it was not fetched since {rfc3339(checked)}" if is_late else ""


def _judged(
    feed: ListFeed, protected: Mapping[Network, str], most: int, now: float, *, force: bool
) -> ListFeed:
    """Read the present file of ``feed``; return ``feed`` with the new list, or with why it is refused.

    If the content is the same as before, return ``feed``. The list has at most ``most`` networks, without
    those of ``protected``, and is taken at ``now`` (seconds since the epoch). With ``force``, any size is
    accepted. So is, without it, the list that is in force already: after a restart the file is judged again.
    Raise OSError if the file cannot be read.
    """
    source, before = feed.source, feed.taken
    with kept.opened(source.path) as file:  # another user may write it, so no link is followed
        digest = b""
        try:
            digest = _digest(file)
            if digest == feed.digest and not force:
                return feed
            file.seek(0)
            found = evolve(read_feed(file, source, protected, most), taken=now)
            known = before.networks if before is not None else Prefixes()
            if not force and (before is None or found.networks != known):
                _check_size(source.name, found.networks, known)
        except ListError as error:
            return evolve(feed, digest=digest, refused=str(error))
    return evolve(feed, taken=found, digest=digest, refused="")


def _looked_at(source: FeedSource, now: float) -> tuple[Signature | None, FetchState]:
    """Return the signature of a source's file, and the fetcher's report at ``now`` (seconds since the epoch).

    A file that the fetcher got from another source counts as missing. The fetcher removes such a file, then
    reports which source it requests, and then writes the new list. So the signature is taken before the
    report is read. Raise OSError as :func:`_signature` does.
    """
    signature = _signature(source.path)
    if not source.fetched:
        return signature, FetchState()
    state = read_state(source.path, now)
    if state.identity == source.requested:
        return signature, state
    old = f"{source.path}: is from another source; fix: systemctl restart ringfence-feeds"
    return None, FetchState(error=old if state.identity else "")


def _checked(feed: ListFeed, signature: Signature | None, state: FetchState, now: float) -> ListFeed:
    """Return ``feed`` with the error of its source, and the time when its list was last known as current.

    ``signature`` is that of the source's file now (None: no file), ``state`` the fetcher's report, and
    ``now`` the time in seconds since the epoch.
    """
    if feed.source.fetched:
        seen, error = state.checked, state.error
    elif signature is None:
        seen, error = None, _absent(feed.source.path)
    else:
        seen, error = min(signature[1] / 1e9, now), ""
    # A new file may be no list, and so may an answer with status 200, which the fetcher counts as checked.
    current = feed.taken is not None and signature == feed.judged and not feed.refused
    if not current or seen is None:
        seen = None if feed.checked is None else min(feed.checked, now)  # the clock may have been ahead
    return evolve(feed, checked=seen, error=error)


def _unjudged(feed: ListFeed) -> ListFeed:
    """Return ``feed`` so that its file is judged again if it is refused."""
    return evolve(feed, judged=None, digest=b"") if feed.refused else feed


def _absent(path: Path) -> str:
    elsewhere = any(path.is_relative_to(folder) for folder in _TEMPORARY)
    return f"{path}: there is no such file" + (" (the service has a /tmp of its own)" if elsewhere else "")


def _unreadable(path: Path, error: OSError) -> str:
    """Return why the file of a feed cannot be read, with the fix."""
    if error.errno == errno.ELOOP:
        return f"{path}: symbolic links are not followed; fix: put the list itself there"
    if not isinstance(error, PermissionError):
        return f"{path}: {error.strerror}"
    fix = "let everybody read it (chmod o+r) in a folder that everybody may enter, not in /home or /root"
    return f"{path}: the user of the daemon may not read it; fix: {fix}"


class Feeds(OtherNetworks):
    """The feeds of the configuration.

    The thread of the lists calls the methods, one at a time. Any thread may call :meth:`configure` and
    :meth:`report`, and read ``look_every`` and ``all``. ``all`` is replaced, and never changed.
    """

    def __init__(self, settings: Settings) -> None:
        self.all: Mapping[str, ListFeed] = {}
        self._settings = settings
        self._used: Settings | None = None
        self._accepted: frozenset[str] = frozenset()
        self._in_force: tuple[Prefixes, ...] = ()
        self._log = structlog.get_logger()

    @property
    def look_every(self) -> float | None:
        """Seconds between two checks of the feeds' files; None without feeds."""
        return LOOK_EVERY if self._settings.of(TABLE) else None

    def configure(self, settings: Settings) -> None:
        """Use the feeds of this configuration from the next call of another method on."""
        self._settings = settings

    def _use_settings(self, now: float) -> None:
        """Use the feeds of the present configuration, and forget all other feeds.

        A feed with another source than before (:attr:`FeedSource.identity`) has no list yet. A refused list
        is judged again, because the configuration may now permit more networks.
        """
        if self._used is self._settings:
            return
        before, self._used = self.all, self._settings
        wanted = {feed.name: feed.source for feed in self._used.of(TABLE)}
        for name in before.keys() - wanted.keys():
            self._forget(name)
        self.all = {
            name: evolve(_unjudged(before[name]), source=source)
            if name in before and before[name].source.identity == source.identity
            else self._kept(source, now)
            for name, source in wanted.items()
        }

    def accept(self, names: frozenset[str]) -> None:
        """Accept any number of networks up to the maximum, for the feeds ``names``, in the next update."""
        self._accepted |= names

    def update(self, protected: Mapping[Network, str], most: int, now: float) -> bool:
        """Apply the lists that changed; return whether other networks are in force than before.

        ``protected`` are networks that this host needs, each with the reason, ``most`` is the maximum number
        of networks of a feed, and ``now`` the time in seconds since the epoch.
        """
        self._use_settings(now)
        force, self._accepted = self._accepted, frozenset()
        self.all = {
            name: self._updated(feed, protected, most, now, force=name in force)
            for name, feed in self.all.items()
        }
        return self.in_force(now) != self._in_force

    def in_force(self, now: float) -> tuple[Prefixes, ...]:
        """Return the networks of each feed whose list is not too old at ``now`` (seconds since the epoch)."""
        return tuple(
            feed.taken.networks
            for feed in self.all.values()
            if feed.taken is not None and not feed.expired(now)
        )

    def compose(self, now: float) -> tuple[Prefixes, ...]:
        """Return the networks of each feed in force at ``now`` (seconds since the epoch).

        Keep them: the next :meth:`update` compares with them.
        """
        self._use_settings(now)
        self._in_force = self.in_force(now)
        return self._in_force

    def holding(self, network: Network, now: float) -> Iterator[Holder]:
        """Yield a deny list entry for each feed in force that contains ``network``, with how to remove it."""
        for feed in self.all.values():
            if feed.taken is None or feed.expired(now):
                continue
            around = feed.taken.networks.containing(network)
            if around is not None:
                text = text_of(*code_of(around))
                entry = ListEntry(ListKind.DENY, text, "", feed.taken.taken, None, f"feed {feed.source.name}")
                yield Holder(entry, around, f"ringfence feeds remove {feed.source.name}")

    def report(self, request: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
        """Return each feed at ``now`` (seconds since the epoch) as JSON values.

        The key ``denies`` has those of the request's ``networks`` that the feed denies.
        """
        networks = [parse_network(text) for text in request.get("networks", ())]
        return [feed.as_json(now, networks) for feed in self.all.values()]

    def _kept_path(self, name: str) -> Path:
        return self._settings.store.path.parent / "feeds" / f"{name}.list"

    def _kept(self, source: FeedSource, now: float) -> ListFeed:
        feed, found = ListFeed(source), _read_kept(self._kept_path(source.name), source.identity)
        if found is not None:
            taken, checked = found
            feed = evolve(feed, taken=taken, checked=min(checked, now), kept_checked=checked)
        try:
            return _checked(feed, *_looked_at(source, now), now)
        except OSError:  # the next update tries it again, and reports the error
            return feed

    def _forget(self, name: str) -> None:
        with suppress(OSError):  # a list that stays is not read again
            kept.forget(self._kept_path(name))

    def _updated(
        self, feed: ListFeed, protected: Mapping[Network, str], most: int, now: float, *, force: bool
    ) -> ListFeed:
        try:
            return self._read(feed, protected, most, now, force=force)
        except OSError as error:
            # Neither a new mode of the file nor one of its folders changes the signature: it is tried again.
            return evolve(feed, judged=None, digest=b"", refused=_unreadable(feed.source.path, error))

    def _read(
        self, feed: ListFeed, protected: Mapping[Network, str], most: int, now: float, *, force: bool
    ) -> ListFeed:
        source = feed.source
        signature, state = _looked_at(source, now)
        feed = _checked(feed, signature, state, now)
        if signature is None:
            return self._keep_again(evolve(feed, judged=None, digest=b"", refused=""), now)
        if signature == feed.judged and not force:
            return self._keep_again(feed, now)
        age = now - signature[1] / 1e9
        if not source.fetched and not force and 0 <= age < SETTLED:
            return feed  # the next update reads it, when it is complete
        judged = _judged(feed, protected, most, now, force=force)
        if _signature(source.path) != signature:
            return feed  # it changed while it was read
        self._report(feed, judged)
        judged = _checked(evolve(judged, judged=signature), signature, state, now)
        return judged if judged.taken is feed.taken else self._keep(judged, now)

    def _report(self, before: ListFeed, after: ListFeed) -> None:
        name = after.source.name
        if after.refused and after.refused != before.refused:
            self._log.warning("feed.refused", feed=name, reason=after.refused)
        elif after.taken is not None and after.taken is not before.taken:
            left, number = after.taken.left_out.number, len(after.taken.networks)
            self._log.info("feed.taken", feed=name, networks=number, left_out=left)

    def _keep_again(self, feed: ListFeed, now: float) -> ListFeed:
        waits = feed.keep_at - KEEP_AGAIN <= now < feed.keep_at  # the clock may have been set back
        return self._keep(feed, now) if feed.must_be_kept and not waits else feed

    def _keep(self, feed: ListFeed, now: float) -> ListFeed:
        if feed.taken is None:
            return feed
        path, left = self._kept_path(feed.source.name), feed.taken.left_out
        checked = feed.taken.taken if feed.checked is None else feed.checked
        head = {"taken": feed.taken.taken, "checked": checked, "left_out": left.number, "named": left.named}
        try:
            kept.write(path, {"source": feed.source.identity, **head}, [feed.taken.networks])
        except OSError as error:
            why = f"{path}: cannot be written, so a restart loses it: {error.strerror}"
            return evolve(feed, unkept=why, keep_at=now + KEEP_AGAIN)
        return evolve(feed, unkept="", kept_checked=checked)


build = Feeds
"""The class that the lists use to get the feature's networks: those of feeds."""
