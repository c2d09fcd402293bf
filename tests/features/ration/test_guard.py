"""The alarms and numbers of the rations."""

import asyncio

from tests.support.kept import Kept

from ringfence.features.ration.guard import Rations
from ringfence.firewall.contract import Counters


def read(made: Kept, counters: Counters) -> None:
    """Make the parts read these counters of the rules."""
    made.backend.counters = lambda: counters  # type: ignore[method-assign]  # no kernel counts here
    asyncio.run(made.side.kernel.counters.read())


def test_a_full_ration_is_an_alarm(kept: Kept) -> None:
    """Refusals without room in the ration are an alarm of their own."""
    kept.side.common.listeners.append(Rations(kept.side))
    kept.side.start()
    for full in (0, 9):
        read(kept, Counters(counted={"ration_full": full}))
    assert [alarm.code for alarm in kept.alarms.active] == ["ration.full"]


def test_a_full_ration_of_questions_is_an_alarm(kept: Kept) -> None:
    """So is what strangers asked without room in the ration of questions, each time that more came."""
    kept.side.common.listeners.append(Rations(kept.side))
    kept.side.start()
    for full in (0, 9, 9, 12):
        read(kept, Counters(counted={"asked_full": full}))
    assert [(alarm.code, alarm.times) for alarm in kept.alarms.active] == [("asking.full", 2)]


def test_packets_from_before_the_start_are_no_alarm(kept: Kept) -> None:
    """The rules outlast the daemon, so its first reading may have the packets of a flood that is over."""
    kept.side.common.listeners.append(Rations(kept.side))
    kept.side.start()
    for _ in range(2):
        read(kept, Counters(counted={"ration_full": 9, "asked_full": 9}))
    assert kept.alarms.active == []


def test_the_status_has_the_packets_over_the_rations(kept: Kept) -> None:
    """The status and the metrics have the numbers of the last reading; before it, the metrics have none."""
    rations = Rations(kept.side)
    kept.side.start()
    packets = dict.fromkeys(("rationed", "ration_full", "asked", "asked_full"), 0)
    assert rations.section().as_json() == packets | {"asking_waits": True}
    assert {one.value for one in rations.section().numbers} == {None}
    read(kept, Counters(counted={"rationed": 1, "ration_full": 2, "asked": 3, "asked_full": 4}))

    packets = {"rationed": 1, "ration_full": 2, "asked": 3, "asked_full": 4}
    assert rations.section().as_json() == packets | {"asking_waits": True}
    assert {one.name: one.value for one in rations.section().numbers} == packets
