"""Active bans in fail2ban's SQLite database, which is only read.

Since release 0.11, table ``bips`` has the last ban of each address in each jail, and fail2ban itself restores
bans from it. Table ``bans`` has the history. Older releases have only ``bans``, without the lengths of bans.
Then the jail's ``bantime`` is used as the length. It is also used for rows with the length -2, which an
upgrade of fail2ban writes. A length of -1 means a permanent ban.

Of a damaged database, the readable part is used: rows are read in the order of the file, without indexes. If
``bips`` is damaged, ``bans`` is read as well.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from ipaddress import ip_network
from math import inf, isfinite
from pathlib import Path
from urllib.parse import quote

from attrs import define, field, frozen

from ringfence.errors import StoreError
from ringfence.values.network import Network, parse_network
from ringfence.values.text import printable

LOCK_TIMEOUT = 5.0
"""Seconds to wait while fail2ban has locked the database. After that, reading fails."""

_UNKNOWN = -2
_SELECT = "SELECT jail, ip, timeofban, {length} FROM {table} NOT INDEXED"
_NEEDED = {"jail", "ip", "timeofban"}


@frozen
class Fail2banBan:
    """An active ban of fail2ban. ``expires`` is in seconds since the epoch, infinity for a permanent ban."""

    network: Network
    jail: str
    expires: float


@frozen
class Fail2banBans:
    """The active bans: for each network the one that ends last. They are sorted by their end.

    ``problems`` has a line for each table that could not be read to its end, and one for invalid rows.
    """

    bans: tuple[Fail2banBan, ...]
    problems: tuple[str, ...]


def read_bans(path: Path, bantimes: Mapping[str, float], now: float) -> Fail2banBans:
    """Read the bans that are active at ``now`` (seconds since the epoch).

    ``bantimes`` has a length of bans in seconds for each jail (below 0: permanent). It is used for bans whose
    length the database does not have. Bans of other jails are left out. Raise StoreError if there is no
    database, or if nothing in it can be read.
    """
    gathered = _Gathered(bantimes, now)
    broken = []
    with _errors(path), closing(_opened(path)) as connection:
        tables = _tables(connection)
        for table, length in tables:
            try:
                for row in connection.execute(_SELECT.format(length=length, table=table)):
                    gathered.add(*row)
            except sqlite3.Error as error:
                broken.append(f"{path}: table {table} cannot be read to its end: {error}")
            else:
                break
    if not tables:
        raise StoreError(f"{path}: contains no bans; is this fail2ban's database?")
    if len(broken) == len(tables) and not gathered.bans:
        raise StoreError(broken[0])
    bans = sorted(gathered.bans.values(), key=lambda ban: (ban.expires, str(ban.network)))
    if gathered.malformed:
        broken.append(f"{path}: invalid rows: {gathered.malformed}, such as {gathered.example}")
    return Fail2banBans(tuple(bans), tuple(broken))


@define
class _Gathered:
    """The active bans of fail2ban that were read so far, and the number of invalid rows, with an example."""

    bantimes: Mapping[str, float]
    now: float
    bans: dict[Network, Fail2banBan] = field(factory=dict)
    malformed: int = 0
    example: str = ""

    def add(self, jail: object, ip: object, began: object, length: object) -> None:
        """Add the ban of a row of fail2ban's database if it is active and ``bantimes`` has its jail.

        If the network has a ban already, keep the one that ends last. The values may have any type, because
        SQLite allows that.
        """
        if not isinstance(jail, str) or jail not in self.bantimes:
            return
        length = self.bantimes[jail] if length == _UNKNOWN else length
        try:
            network, expires = _network(ip), _end(began, length)
        except ValueError:
            self.malformed += 1
            self.example = self.example or printable(f"{ip!r:.60}, {began!r:.60}, {length!r:.60}")
            return
        known = self.bans.get(network)
        if expires > self.now and (known is None or known.expires < expires):
            self.bans[network] = Fail2banBan(network, jail, expires)


def _network(ip: object) -> Network:
    if not isinstance(ip, str):
        raise ValueError("not text")  # noqa: TRY004 - a wrong type in a row is a wrong value
    return parse_network(str(ip_network(ip, strict=False)))


def _end(began: object, length: object) -> float:
    if not isinstance(began, int | float) or not isinstance(length, int | float) or not isfinite(began):
        raise ValueError("not times")
    return inf if length < 0 else began + length


def _tables(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the tables of fail2ban's database that have bans, ``bips`` before ``bans``.

    With each comes the SQL expression for the length of a ban: the column ``bantime``, or ``-2`` (unknown) if
    the table lacks that column.
    """
    found = []
    for table in ("bips", "bans"):
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if columns >= _NEEDED:
            found.append((table, "bantime" if "bantime" in columns else str(_UNKNOWN)))
    return found


def _opened(path: Path) -> sqlite3.Connection:
    if not stat.S_ISREG(path.stat().st_mode):
        raise StoreError(f"{path}: is not a file")
    with path.open("rb"):
        pass  # if opening fails, this error has the reason; SQLite's error would not
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT, isolation_level=None)
    connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
    return connection


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        fix = "fix: give it with --database, or see dbfile in fail2ban.conf"
        raise StoreError(f"{path}: there is no such database; {fix}") from None
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        raise StoreError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
