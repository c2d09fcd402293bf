"""Deduplication of the reports of several sources, compared with a literal transcription of the rule."""

from attrs import Factory, define
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.events import PBX, event

from ringfence.detect.dedup import HORIZON, Bucket, Deduplicator
from ringfence.detect.dedup import bucket_of as bucket_of_address
from ringfence.model import EventKind, SecurityEvent, Service, SourceId

LOG = SourceId("pbx", "log:messages#notice")
WIRE = SourceId("pbx", "wire")
SOURCES = (PBX, LOG, WIRE)
FAILED = EventKind.CHALLENGE_RESPONSE_FAILED


def bucket_of(said: SecurityEvent) -> Bucket:
    """Return the bucket of an event that names the right address."""
    return bucket_of_address(said, said.remote.address)


BUCKET = bucket_of(event(FAILED))


@define
class Naive:
    """The rule: a report matches the oldest attempt within the horizon that its source has not reported."""

    attempts: list[tuple[Bucket, float, set[SourceId]]] = Factory(list)

    def is_new(self, bucket: Bucket, source: SourceId, now: float) -> bool:
        """Whether the report is a new attempt, found by a search of all attempts so far."""
        for of, at, told in self.attempts:
            if of == bucket and now - at < HORIZON and source not in told:
                told.add(source)
                return False
        self.attempts.append((bucket, now, {source}))
        return True


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("a", "b")),
            st.sampled_from(SOURCES),
            st.sampled_from((0.0, 0.3, 4.0, 10.0, 11.0)),
        ),
        max_size=60,
    )
)
def test_reports_match_as_the_rule_requires(tellings: list[tuple[str, SourceId, float]]) -> None:
    """The same reports are new as by the rule itself, whatever the sources report, and when."""
    join, naive, now = Deduplicator(), Naive(), 0.0
    for call, source, pause in tellings:
        now += pause
        bucket = bucket_of(event(FAILED, session=call.encode()))

        assert naive.is_new(bucket, source, now) is (join.record_report(bucket, source, now) is None)


@given(st.lists(st.sampled_from(SOURCES), max_size=60))
def test_the_source_with_most_reports_counts(sources: list[SourceId]) -> None:
    """In any interleaving, the number of attempts is the highest number that one source reports."""
    join = Deduplicator()

    new = sum(join.record_report(BUCKET, source, 0.0) is None for source in sources)

    assert max((sources.count(source) for source in SOURCES), default=0) == new


def test_an_old_surplus_is_no_credit() -> None:
    """A surplus of one source from before the horizon hides no attempt that another source reports now."""
    join = Deduplicator()

    assert [join.record_report(BUCKET, PBX, 0.0) for _ in range(5)] == [None] * 5
    assert [join.record_report(BUCKET, LOG, HORIZON) for _ in range(5)] == [None] * 5


def test_to_forget_counts_again() -> None:
    """With room for one bucket and two attempts, a forgotten attempt counts again and counts as evicted."""
    join = Deduplicator(max_buckets=1, max_attempts=2)
    other = bucket_of(event(FAILED, session=b"other"))

    assert [join.record_report(BUCKET, PBX, 0.0, tag) for tag in (1, 2, 3)] == [None] * 3
    assert [join.record_report(BUCKET, LOG, 0.0, 4) for _ in range(3)] == [2, 3, None]
    assert join.record_report(other, PBX, 0.0) is None
    assert join.record_report(BUCKET, LOG, 0.0) is None
    assert (len(join), join.evicted) == (1, 5)


def test_a_report_that_only_matches_makes_no_attempt() -> None:
    """``match_report`` makes no attempt, and matches each report of another source once."""
    join = Deduplicator()

    assert join.match_report(BUCKET, LOG, 0.0) is None
    assert join.record_report(BUCKET, PBX, 0.0, 7) is None
    assert join.match_report(BUCKET, LOG, 0.0) == 7
    assert join.match_report(BUCKET, LOG, 0.0) is None
    assert join.match_report(BUCKET, WIRE, HORIZON) is None


def test_silent_buckets_are_forgotten() -> None:
    """A bucket without a report within the horizon takes no room."""
    join = Deduplicator()
    for number in range(100):
        join.record_report(bucket_of(event(FAILED, session=b"%d" % number)), PBX, 0.0)

    join.record_report(BUCKET, PBX, HORIZON)

    assert len(join) == 1


def test_what_shares_a_bucket() -> None:
    """PJSIP shares by Call-ID, guesses at chan_sip and AMI share by address, and two PBXs share nothing."""
    sip = Service.SIP
    elsewhere = SourceId("other", "ami")

    assert bucket_of(event(FAILED)) == bucket_of(event(EventKind.INVALID_ACCOUNT_ID, source=LOG, port=1))
    assert bucket_of(event(FAILED)) != bucket_of(event(FAILED, session=b"call-2"))
    assert bucket_of(event(FAILED)) != bucket_of(event(FAILED, address="192.0.2.8"))
    assert bucket_of(event(FAILED)) != bucket_of(event(FAILED, source=elsewhere))
    assert bucket_of(event(FAILED, service=sip)) == bucket_of(event(FAILED, service=sip, session=b""))
    assert bucket_of(event(FAILED, service=sip)) == bucket_of(event(EventKind.INVALID_PASSWORD, service=sip))
    for acl_name in ("device_must_match_acl", "no_extension_match"):
        refused = event(EventKind.FAILED_ACL, service=sip, acl_name=acl_name)
        assert bucket_of(event(FAILED, service=sip)) != bucket_of(refused)
    assert bucket_of(event(FAILED, service=Service.AMI)) == bucket_of(
        event(EventKind.FAILED_ACL, service=Service.AMI, session=b"0x1")
    )


def test_a_long_call_id_takes_little_room() -> None:
    """A Call-ID as long as a datagram is kept as a digest."""
    (_, _, _, what) = bucket_of(event(FAILED, session=b"x" * 60_000))

    assert 0 < len(what) < 100
