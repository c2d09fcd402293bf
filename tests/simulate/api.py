"""CrowdSec's local API of a simulated host. Its decisions end, and its requests fail as a story wants.

A connection is an object in memory. The daemon's own HTTP client writes the request and reads the answer in
one action of the schedule, because that is a thread's work.
"""

import errno
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from typing import Any

from attrs import Factory, define
from tests.features.fleet.server import KEY, MACHINE, PASSWORD, FakeApi

from ringfence.features.fleet.lapi import parse_duration
from ringfence.features.fleet.messages import ORIGIN

Key = tuple[str, str]
"""The scenario and the value of a decision."""

OTHERS = ("203.0.113.201", "203.0.113.202", "203.0.113.203")
"""Addresses that only other hosts ban. No sender of a story has them."""
_GUESS = "ringfence/guess"


@define
class LocalApi(FakeApi):
    """The API, which outlives the daemon. While it is not up, it refuses connections."""

    is_up: bool = True
    deleted_by_hand: dict[Key, float] = Factory(dict)
    """When somebody deleted decisions (epoch): this host must not send bans from before again."""
    others: set[Key] = Factory(set)
    """What other hosts banned. The stream does not distinguish such a decision from this host's own."""
    forgotten: set[str] = Factory(set)
    """The addresses that were banned when the database was lost. No answer reports the end of these bans."""
    _until: dict[int, float] = Factory(dict)

    def settings(self, folder: Path) -> dict[str, object]:
        """Write the credentials into a folder, and return the table ``[crowdsec]``."""
        files = {"password_file": PASSWORD, "key_file": KEY}
        for name, secret in files.items():
            (folder / name).write_text(secret, "utf-8")
        paths = {name: str(folder / name) for name in files}
        return {"url": "http://127.0.0.1:8080", "machine": MACHINE, "interval": "5s", **paths}

    def connect(self, *_: object) -> "Connection":
        """Return a new connection. Raise ConnectionRefusedError while the API is down."""
        if not self.is_up:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return Connection(self)

    # -- what others do there

    def ban(self, value: str, seconds: float) -> None:
        """Let another host ban an address."""
        self.others.add((_GUESS, value))
        self.add(value, _GUESS, f"{seconds:.0f}s", f"{ORIGIN}other")

    def delete(self, value: str) -> None:
        """Let somebody delete all decisions about an address, as `cscli decisions delete --ip` does."""
        for scenario, found in sorted(self.values()):
            if found == value:
                self.deleted_by_hand[scenario, value] = self.clock()
                self._delete(value, scenario)

    def lose(self) -> None:
        """Begin with an empty database."""
        # Also those that were deleted before the daemon's next request.
        self.forgotten |= {row["value"] for row in (*self.decisions.values(), *self.deleted)}
        self.decisions.clear()
        self.deleted.clear()
        self._until.clear()
        self._sent.clear()
        self.forget_tokens()

    # -- what it has

    @property
    def own(self) -> Mapping[Key, float]:
        """This host's decisions, each with the seconds that it has left."""
        return self._left(lambda origin: origin == ORIGIN + MACHINE)

    @property
    def every(self) -> Mapping[Key, float]:
        """The decisions of all hosts, as :attr:`own` has them."""
        return self._left(lambda _: True)

    def _left(self, wanted: Callable[[str], bool]) -> Mapping[Key, float]:
        self._expire()
        found = dict[Key, float]()
        for number, row in self.decisions.items():
            if wanted(row["origin"]):
                key = row["scenario"], row["value"]
                found[key] = max(found.get(key, 0.0), self._until[number] - self.clock())
        return found

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes, sender: str
    ) -> tuple[int, Any]:
        """Carry out a request. A decision's duration is the time that it has left, or that has passed."""
        self._expire()
        for row in (*self.decisions.values(), *self.deleted):
            row["duration"] = f"{self._until[row['id']] - self.clock():.6f}s"
        return super().answer(method, target, headers, body, sender)

    def add(
        self, value: str, scenario: str = "ringfence/guess", duration: str = "1h", origin: str = "x"
    ) -> None:
        """Store a decision."""
        super().add(value, scenario, duration, origin)
        self._until[max(self.decisions)] = self.clock() + parse_duration(duration)

    def _store(self, alerts: list[dict[str, Any]]) -> list[str]:
        for alert in alerts:
            stop = datetime.fromisoformat(alert["stop_at"]).timestamp()
            for one in alert["decisions"]:
                # CrowdSec counts the duration from the time that the alert names.
                left = stop + parse_duration(one["duration"]) - self.clock()
                self.add(one["value"], one["scenario"], f"{left:.6f}s", one["origin"])
        return ["1"] * len(alerts)

    def _delete(self, value: str, scenario: str) -> int:
        for number, row in self.decisions.items():
            if (row["value"], row["scenario"]) == (value, scenario):
                self._until[number] = self.clock()
        return super()._delete(value, scenario)

    def _expire(self) -> None:
        now = self.clock()
        for number in [one for one in self.decisions if self._until[one] <= now]:
            self._changes += 1
            self.deleted.append({**self.decisions.pop(number), "change": self._changes})


class Connection:
    """One connection to the API, as a socket of the HTTP client."""

    def __init__(self, api: LocalApi) -> None:
        self._api = api
        self._asked = b""

    def settimeout(self, _: float) -> None:
        """Do nothing: the answer comes at once."""

    def sendall(self, data: bytes) -> None:
        """Record a part of the request."""
        self._asked += bytes(data)

    def makefile(self, _mode: str) -> BytesIO:
        """Return the answer, which may be cut after the request was carried out."""
        api = self._api
        head, _blank, body = self._asked.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, _version = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): text.strip() for name, _colon, text in pairs}
        fault = api.fault_for(target)
        api.requests.append(f"{method} {target}")
        status, content = api.respond(fault, method, target, headers, body, "127.0.0.1")
        date = formatdate(api.clock(), usegmt=True)
        begin = f"HTTP/1.1 {status} -\r\nDate: {date}\r\nContent-Length: {len(content)}\r\n\r\n"
        return BytesIO(begin.encode() + content[: fault.cut])

    def close(self) -> None:
        """Do nothing."""
