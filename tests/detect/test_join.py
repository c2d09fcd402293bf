"""Joining the tellings of several sources, against a transcription of the rule as it is written."""

from attrs import Factory, define
from hypothesis import given
from hypothesis import strategies as st
from tests.detect.events import PBX, event

from ringfence.detect.join import HORIZON, Bucket, Join
from ringfence.detect.join import bucket_of as bucket_of_address
from ringfence.model import EventKind, SecurityEvent, Service, SourceId

LOG = SourceId("pbx", "log:messages#notice")
WIRE = SourceId("pbx", "wire")
SOURCES = (PBX, LOG, WIRE)
FAILED = EventKind.CHALLENGE_RESPONSE_FAILED


def bucket_of(said: SecurityEvent) -> Bucket:
    """Give the bucket of an event that names the right address."""
    return bucket_of_address(said, said.remote.address)


BUCKET = bucket_of(event(FAILED))


@define
class Naive:
    """The rule: a telling joins the oldest attempt younger than the horizon that its source has not told."""

    attempts: list[tuple[Bucket, float, set[SourceId]]] = Factory(list)

    def is_new(self, bucket: Bucket, source: SourceId, now: float) -> bool:
        """Look at every attempt there ever was."""
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
def test_it_joins_as_the_rule_says(tellings: list[tuple[str, SourceId, float]]) -> None:
    """Whatever the sources tell, and when, the same tellings are new as by the rule itself."""
    join, naive, now = Join(), Naive(), 0.0
    for call, source, pause in tellings:
        now += pause
        bucket = bucket_of(event(FAILED, session=call.encode()))

        assert naive.is_new(bucket, source, now) is join.is_new(bucket, source, now)


@given(st.lists(st.sampled_from(SOURCES), max_size=60))
def test_within_the_horizon_the_source_that_tells_most_counts(sources: list[SourceId]) -> None:
    """In any interleaving, the number of attempts is the highest number that one source tells of."""
    join = Join()

    new = sum(join.is_new(BUCKET, source, 0.0) for source in sources)

    assert max((sources.count(source) for source in SOURCES), default=0) == new


def test_an_old_surplus_is_no_credit() -> None:
    """What only one source told of, longer ago than the horizon, hides nothing that another tells of now."""
    join = Join()

    assert [join.is_new(BUCKET, PBX, 0.0) for _ in range(5)] == [True] * 5
    assert [join.is_new(BUCKET, LOG, HORIZON) for _ in range(5)] == [True] * 5


def test_to_forget_counts_again() -> None:
    """With room for one bucket and two attempts, what is forgotten is counted, and is counted as evicted."""
    join = Join(max_buckets=1, max_attempts=2)
    other = bucket_of(event(FAILED, session=b"other"))

    assert [join.is_new(BUCKET, PBX, 0.0) for _ in range(3)] == [True] * 3
    assert [join.is_new(BUCKET, LOG, 0.0) for _ in range(3)] == [False, False, True]
    assert join.is_new(other, PBX, 0.0)
    assert join.is_new(BUCKET, LOG, 0.0)
    assert (len(join), join.evicted) == (1, 5)


def test_a_telling_that_only_joins_makes_no_attempt() -> None:
    """What nobody has told of yet is not there for who only joins; what somebody has, he joins once."""
    join = Join()

    assert not join.joins(BUCKET, LOG, 0.0)
    assert join.is_new(BUCKET, PBX, 0.0)
    assert join.joins(BUCKET, LOG, 0.0)
    assert not join.joins(BUCKET, LOG, 0.0)
    assert not join.joins(BUCKET, WIRE, HORIZON)


def test_silent_buckets_are_forgotten() -> None:
    """A bucket that nobody told anything of within the horizon takes no room."""
    join = Join()
    for number in range(100):
        join.is_new(bucket_of(event(FAILED, session=b"%d" % number)), PBX, 0.0)

    join.is_new(BUCKET, PBX, HORIZON)

    assert len(join) == 1


def test_what_shares_a_bucket() -> None:
    """PJSIP shares by Call-ID, chan_sip by what failed, AMI by the address, and two PBXs share nothing."""
    sip = Service.SIP
    elsewhere = SourceId("other", "ami")

    assert bucket_of(event(FAILED)) == bucket_of(event(EventKind.INVALID_ACCOUNT_ID, source=LOG, port=1))
    assert bucket_of(event(FAILED)) != bucket_of(event(FAILED, session=b"call-2"))
    assert bucket_of(event(FAILED)) != bucket_of(event(FAILED, address="192.0.2.8"))
    assert bucket_of(event(FAILED)) != bucket_of(event(FAILED, source=elsewhere))
    assert bucket_of(event(FAILED, service=sip)) == bucket_of(event(FAILED, service=sip, session=b""))
    assert bucket_of(event(FAILED, service=sip)) != bucket_of(event(EventKind.INVALID_PASSWORD, service=sip))
    assert bucket_of(event(FAILED, service=Service.AMI)) == bucket_of(
        event(EventKind.FAILED_ACL, service=Service.AMI, session=b"0x1")
    )


def test_a_long_call_id_takes_little_room() -> None:
    """A Call-ID as long as a datagram is kept as a digest."""
    (_, _, _, what) = bucket_of(event(FAILED, session=b"x" * 60_000))

    assert 0 < len(what) < 100
