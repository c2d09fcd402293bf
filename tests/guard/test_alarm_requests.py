"""Alarms that are kept over a restart, and marked by commands."""

import asyncio
import json
import os
import threading
from pathlib import Path
from pwd import getpwuid, struct_passwd
from typing import Any

import pytest

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.control_server import PEER, Encoded, Peer
from ringfence.errors import ControlError
from ringfence.guard.firewall_side import KeptAlarms
from ringfence.guard.requests import AlarmRequests
from ringfence.store.database import Store

HOSTILE = "\x1b[2J\u202e" + "\U000e0001" * 65_536
ME = getpwuid(os.geteuid()).pw_name


def ask(alarms: Alarms, store: Store, do: str, **request: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return the answer to a request of this process."""
    handlers = AlarmRequests(alarms, KeptAlarms(alarms, store), store, Clock()).handlers()
    PEER.set(Peer(os.geteuid(), 1))
    answer: Any = handlers[do](request)
    return json.loads(b"".join(answer.parts)) if isinstance(answer, Encoded) else asyncio.run(answer)


def test_alarms_are_dismissed_and_kept(tmp_path: Path) -> None:
    """A dismissal has the user of the socket and the name of the person, and survives a restart."""
    path = tmp_path / "ringfence.db"
    with Store.open(path, owner=True) as store:
        alarms = Alarms(Clock())
        alarms.activate(AlarmCode.PHONE_BROKEN, "204", HOSTILE)
        alarms.activate(AlarmCode.EVIDENCE_HIDDEN, "192.0.2.1", "hides")
        done = ask(alarms, store, "alarms_dismiss", numbers=[1, 9], by=HOSTILE)
        assert done["unknown"] == [9]
        assert ask(alarms, store, "alarms_dismiss", numbers=[2])["done"][0]["dismissed_by"] == ME

    with Store.open(path, owner=True) as store:
        alarms = Alarms(Clock())
        KeptAlarms(alarms, store).restore()
        rows = ask(alarms, store, "alarms")
        alarms.clear(AlarmCode.PHONE_BROKEN, "204")
        KeptAlarms(alarms, store).save()
        past = ask(alarms, store, "alarms", past=True)

    assert [row["number"] for row in rows] == [1, 2]
    assert rows[0]["dismissed_by"].endswith(f" (as {ME})")
    assert len(rows[0]["dismissed_by"]) < 200
    assert all(str(value).isprintable() for row in rows for value in row.values())
    assert [(row["number"], row["cleared"] is not None) for row in past] == [(1, True)]


def test_the_list_shows_the_alarms_of_the_request(tmp_path: Path) -> None:
    """A thread that makes the list for a client does not touch the alarms, which the event loop changes."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        alarms = Alarms(Clock())
        alarms.activate(AlarmCode.PHONE_BROKEN, "204", "fails")
        answer = AlarmRequests(alarms, KeptAlarms(alarms, store), store, Clock()).handlers()["alarms"]({})
        alarms.clear(AlarmCode.PHONE_BROKEN, "204")

    assert isinstance(answer, Encoded)
    assert [row["subject"] for row in json.loads(b"".join(answer.parts))] == ["204"]


def test_a_user_database_that_hangs_delays_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a user may come from a server, so a thread looks it up."""
    looked_up: list[threading.Thread] = []

    def lookup(user: int) -> struct_passwd:
        looked_up.append(threading.current_thread())
        return getpwuid(user)

    monkeypatch.setattr("ringfence.guard.requests.getpwuid", lookup)
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        ask(Alarms(Clock()), store, "alarms_dismiss", all=True)

    assert looked_up
    assert threading.main_thread() not in looked_up


def test_all_alarms_at_once(tmp_path: Path) -> None:
    """``all`` marks every alarm that is shown; numbers must be numbers."""
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        alarms = Alarms(Clock())
        for subject in "ab":
            alarms.activate(AlarmCode.EVIDENCE_HIDDEN, subject, "hides")
        assert len(ask(alarms, store, "alarms_dismiss", all=True)["done"]) == 2
        assert alarms.active == []
        for wrong in ({}, {"by": "Ann"}):
            with pytest.raises(ControlError):
                ask(alarms, store, "alarms_dismiss", **wrong)
