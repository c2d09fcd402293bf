"""Lines that a connection confirms, and addresses whose connections confirm nothing any more."""

from ipaddress import ip_address

from tests.detect.events import SENDER, Connected

from ringfence.detect.confirmation import GUESS, LOGIN, UNBACKED, WITHIN, Backing, NoConnections
from ringfence.detect.sessions import Senders
from ringfence.values.event import Endpoint, Service, Transport

HERE = Endpoint(ip_address(SENDER), 5062, Transport.UNKNOWN)


def test_a_line_needs_the_very_address_and_port() -> None:
    """A line needs a connection of its exact address and port; one of UDP, or without a port, has none."""
    backing = Backing(Connected((SENDER, 5062)), Senders())

    assert backing.confirms(HERE, Service.SIP, 0.0)
    assert not backing.confirms(Endpoint(HERE.address, 5063, Transport.TLS), Service.SIP, 0.0)
    assert not backing.confirms(Endpoint(HERE.address, 0, Transport.UNKNOWN), Service.SIP, 0.0)
    assert not backing.confirms(Endpoint(HERE.address, 5062, Transport.UDP), Service.SIP, 0.0)


def test_a_line_needs_the_bytes_of_its_request() -> None:
    """A connection confirms as many lines as it has sent requests; a login to the manager is shorter."""

    class Counted(Connected):
        def __init__(self, received: int) -> None:
            super().__init__((SENDER, 5062))
            self.received = received

        def backs(self, remote: Endpoint, length: int, now: float) -> bool:
            self.received -= length
            return super().backs(remote, length, now) and self.received >= 0

    guesses, logins = Backing(Counted(2 * GUESS + LOGIN), Senders()), Backing(Counted(2 * LOGIN), Senders())

    assert [guesses.confirms(HERE, Service.SIP, 0.0) for _ in range(3)] == [True, True, False]
    assert [logins.confirms(HERE, Service.AMI, 0.0) for _ in range(3)] == [True, True, False]


def test_misses_beyond_the_hits_end_the_belief() -> None:
    """Ten misses are forgiven for each line with a connection; after an hour the count begins again."""
    backing = Backing(Connected((SENDER, 5062)), Senders())
    for _ in range(UNBACKED + 1):
        backing.record_unbacked(HERE, 0.0)

    assert not backing.confirms(HERE, Service.SIP, 0.0)
    assert backing.confirms(HERE, Service.SIP, 1.0)
    for _ in range(2 * UNBACKED):
        backing.record_unbacked(HERE, 1.0)
    assert not backing.confirms(HERE, Service.SIP, WITHIN - 0.1)
    assert backing.confirms(HERE, Service.SIP, WITHIN)


def test_a_sender_hides_one_guess_with_ten_forged_lines() -> None:
    """Eleven forged lines about itself hide one guess of a sender: its true lines count for it too."""
    backing = Backing(Connected((SENDER, 5062)), Senders())
    for _ in range(UNBACKED + 1):
        backing.record_unbacked(HERE, 0.0)

    assert [backing.confirms(HERE, Service.SIP, 0.0) for _ in range(6)] == [False] + [True] * 5


def test_a_line_that_another_source_confirms_is_no_miss() -> None:
    """A line that another source confirms is taken back from the count."""
    backing = Backing(Connected((SENDER, 5062)), Senders())
    for _ in range(3 * UNBACKED):
        backing.record_unbacked(HERE, 0.0)
        backing.forgive(HERE, 0.0)

    assert backing.confirms(HERE, Service.SIP, 0.0)


def test_an_address_is_excluded_only_if_the_kernel_had_no_connection() -> None:
    """An address without any connection is excluded; without a kernel none is."""
    other = ip_address("203.0.113.9")
    for connections, excluded in ((Connected((SENDER, 5062)), True), (NoConnections(), False)):
        backing = Backing(connections, Senders())
        assert not backing.excludes(HERE.address, 0.0)
        assert backing.excludes(other, 0.0) is excluded


def test_without_a_kernel_nothing_is_confirmed_or_excluded() -> None:
    """Without a kernel, as in a replay, no connection is confirmed and none is excluded."""
    assert not NoConnections().backs(HERE, GUESS, 0.0)
    assert NoConnections().had_any(HERE.address, 0.0) is None


def test_a_replay_knows_no_connection() -> None:
    """The substitute for the kernel in a replay confirms nothing."""
    none = NoConnections()
    assert (none.has(HERE, 0.0), none.backs(HERE, 1, 0.0)) == (False, False)
