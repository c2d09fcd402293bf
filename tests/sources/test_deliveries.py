"""Each event of several sources counts once, at its first delivery."""

from collections import Counter

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.events import PBX, event

from ringfence.sources.standby import Deliveries
from ringfence.values.event import EventKind, SecurityEvent, SourceId

SOURCES = (PBX, SourceId("pbx", "log:a#security"), SourceId("pbx", "log:b#security"))
EVENTS = [
    event(kind, time, port=port)
    for kind in (EventKind.CHALLENGE_SENT, EventKind.INVALID_ACCOUNT_ID)
    for time in (1_000.001, 1_000.002)
    for port in (5060, 5061)
]
DELIVERIES = st.lists(st.tuples(st.sampled_from(SOURCES), st.sampled_from(EVENTS)), max_size=60)


@given(DELIVERIES)
def test_it_counts_like_the_naive_model(delivered: list[tuple[SourceId, SecurityEvent]]) -> None:
    """An event counts as often as its most frequent source delivered it, in any order of deliveries."""
    deliveries = Deliveries()
    counted: Counter[SecurityEvent] = Counter()
    by_source: Counter[tuple[SourceId, SecurityEvent]] = Counter()
    for source, one in delivered:
        most = max(by_source[other, one] for other in SOURCES)
        by_source[source, one] += 1
        assert deliveries.is_new(evolve(one, source=source), 0.0) is (by_source[source, one] > most)
        counted[one] += by_source[source, one] > most
    assert counted == Counter(
        {one: max(by_source[source, one] for source in SOURCES) for _, one in delivered}
    )


@given(DELIVERIES, st.integers(1, 5))
def test_it_remembers_a_bounded_number(delivered: list[tuple[SourceId, SecurityEvent]], most: int) -> None:
    """The earliest delivery is forgotten first."""
    deliveries = Deliveries(most=most)
    for source, one in delivered:
        deliveries.is_new(evolve(one, source=source), 0.0)
        assert len(deliveries) <= most


def test_a_delivery_is_forgotten_in_time() -> None:
    """Much later the same event is another one: the clock of the PBX was set back."""
    deliveries = Deliveries(remembered=35.0)
    assert deliveries.is_new(EVENTS[0], 0.0)
    assert not deliveries.is_new(evolve(EVENTS[0], source=SOURCES[1]), 34.0)
    assert deliveries.is_new(evolve(EVENTS[0], source=SOURCES[2]), 35.0)


def test_the_session_does_not_matter() -> None:
    """A log shows less of a Call-ID with an ESC than AMI does."""
    deliveries = Deliveries()
    assert deliveries.is_new(evolve(EVENTS[0], session=b"a\x1b[1mb"), 0.0)
    assert not deliveries.is_new(evolve(EVENTS[0], source=SOURCES[1], session=b"ab"), 0.0)
