"""Exchanges by TLS, and what explains them."""

from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds

from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Detector
from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Judgement, Login
from ringfence.detect.new_friends import MOST_STOLEN
from ringfence.detect.rules import RULES
from ringfence.detect.unexplained import (
    BUSY,
    EARLY,
    FEW,
    LATER,
    LONGEST,
    MOST_AT_ONCE,
    MOST_EARLY,
    MOST_PARTS,
    MOST_PHONES,
    MOST_REQUEST,
    MOST_WAITING,
    OPENING,
    OWN,
    PART,
    SILENCE,
    SLOW,
    UNSEEN_FOR,
    USUAL,
    WAIT,
    Exchanges,
)
from ringfence.ledger import Ledger
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import NetworkSet
from ringfence.values.packet import CopiedAnswer, Exchange

A = ip_address("203.0.113.7")
B = ip_address("198.51.100.1")
PORT = 40_000
ONE = Exchange(A, PORT, 1, 5061)
REMOTE = Endpoint(A, PORT, Transport.TLS)
EVENT = SecurityEvent(
    SourceId("pbx", "ami"),
    EventKind.CHALLENGE_SENT,
    Service.PJSIP,
    Endpoint(A, PORT, Transport.TLS),
    0.0,
    "alice",
    b"call",
)
LOGIN = evolve(EVENT, kind=EventKind.SUCCESSFUL_AUTH, password=True)
BY_CHAN_SIP = evolve(LOGIN, service=Service.SIP)


def test_an_exchange_that_nothing_explains() -> None:
    """It counts once, after its time, for the address of its connection."""
    exchanges = Exchanges()
    exchanges.observe(ONE, 10.0)
    assert exchanges.unexplained(10.0 + WAIT - 0.01, 0.0) == []
    assert exchanges.unexplained(10.0 + WAIT, 0.0) == [REMOTE]
    assert exchanges.unexplained(20.0, 0.0) == []


def test_a_late_report_explains_too() -> None:
    """Nothing counts before AMI has been read so far, unless AMI takes longer than a Ping may."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ONE, number=2), 10.0)
    assert exchanges.unexplained(10.0 + LONGEST - 0.01, 0.0, 9.99) == []
    exchanges.explain(EVENT, 10.0 + LONGEST - 0.01)
    assert exchanges.unexplained(10.0 + LONGEST - 0.01, 0.0, 10.0) == [REMOTE]
    exchanges.observe(ONE, 30.0)
    assert exchanges.unexplained(30.0 + LONGEST, 0.0, 29.0) == [REMOTE]


def test_many_of_an_address_wait_until_ami_is_read() -> None:
    """If many of an address wait, on one connection or on several, those before what AMI has shown count."""
    exchanges = Exchanges()
    for port in range(FEW + 1):
        exchanges.observe(evolve(ONE, port=port), 10.0 + port / 100)
    exchanges.observe(evolve(ONE, port=0, number=2), 10.5)
    assert exchanges.unexplained(10.1, 0.0, 9.9) == []
    assert [one.port for one in exchanges.unexplained(10.01 + BUSY / 2, 0.0, 10.2)] == [0]
    assert [one.port for one in exchanges.unexplained(10.1, 0.0, 10.011)] == [1]
    assert [one.port for one in exchanges.unexplained(10.1, 0.0, 10.1)] == [2, 3, 4]


def test_few_of_an_address_wait_for_their_time() -> None:
    """However far AMI has been read: an honest client has only a few."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ONE, number=FEW), 10.0)
    exchanges.observe(evolve(ONE, address=B, number=FEW), 10.0)
    assert exchanges.unexplained(10.0 + WAIT / 2, 0.0, 10.0 + WAIT / 2) == []
    assert not exchanges.waits_for_ami(10.0 + WAIT / 2)


def test_when_ami_must_be_asked() -> None:
    """As soon as many exchanges of an address wait, or one has waited for its time."""
    exchanges = Exchanges()
    for port in range(FEW + 1):
        assert not exchanges.waits_for_ami(10.0)
        exchanges.observe(evolve(ONE, port=port), 10.0)
    found = [exchanges.waits_for_ami(10.0)]
    exchanges.explain(evolve(EVENT, remote=Endpoint(A, 0, Transport.TLS)), 10.0)
    assert [*found, *map(exchanges.waits_for_ami, (10.0, 10.0 + WAIT))] == [True, False, True]


def test_an_event_explains_one_exchange() -> None:
    """It may come before or after the exchange, but not long before."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ONE, number=2), 10.0)
    exchanges.explain(EVENT, 10.1)
    assert exchanges.unexplained(12.0, 0.0) == [REMOTE]
    exchanges.explain(EVENT, 20.0)
    exchanges.observe(evolve(ONE, number=2), 20.0 + EARLY)
    assert exchanges.unexplained(30.0, 0.0) == [REMOTE]
    exchanges.explain(EVENT, 40.0)
    exchanges.observe(ONE, 40.1 + EARLY)
    assert exchanges.unexplained(50.0, 0.0) == [REMOTE]


@pytest.mark.parametrize("before", [True, False])
def test_a_login_at_chan_sip_explains_its_connection(*, before: bool) -> None:
    """Whatever the connection carries before or after the login is a phone's: lamps have no events."""
    exchanges = Exchanges()
    if before:
        exchanges.observe(evolve(ONE, number=9), 10.0)
    exchanges.explain(BY_CHAN_SIP, 10.0)
    exchanges.observe(evolve(ONE, number=9), 10.1)
    exchanges.observe(evolve(ONE, port=PORT + 1), 10.1)
    assert exchanges.unexplained(20.0, 0.0) == [evolve(REMOTE, port=PORT + 1)]


def excused(exchanges: Exchanges, number: int, start: float, every: float) -> list[int]:
    """Observe exchanges of ONE; return the numbers of those after which some count, with how many."""
    found = []
    for index in range(number):
        now = start + index * every
        exchanges.observe(ONE, now)
        if exchanges.unexplained(now + WAIT, 0.0):
            found.append(index + 1)
    return found


@pytest.mark.parametrize(
    ("logins", "every", "first"), [(1, 0.05, 11), (1, 3.3, 161), (1, 3.4, None), (3, 0.05, 15), (3, 2.9, 181)]
)
def test_a_login_excuses_a_phones_own_requests(logins: int, every: float, first: int | None) -> None:
    """Ten within a second and 160 within nine minutes, more for each dialog that a login has begun."""
    exchanges = Exchanges()
    for number in range(2 * logins):
        exchanges.observe(ONE, 10.0)
        exchanges.explain(evolve(LOGIN, session=b"%d" % (number % logins)), 10.0)
    assert exchanges.unexplained(20.0, 0.0) == []
    counted = excused(exchanges, 200, 20.0, every)
    assert (counted[0] if counted else None) == first
    assert len(counted) == (0 if first is None else 201 - first)


@pytest.mark.parametrize("login", [LOGIN, evolve(LOGIN, remote=evolve(REMOTE, transport=Transport.WSS))])
def test_what_a_phone_answers_to_asterisk_is_no_question(login: SecurityEvent) -> None:
    """A phone that rings sends bytes without an answer; more than phones send are a closed window."""
    exchanges = Exchanges()
    exchanges.explain(login, 9.0)
    for number in range(20):
        exchanges.observe(evolve(ONE, number=0, asked=3_000), 10.0 + number / 5)
    exchanges.observe(ONE, 15.0)
    assert exchanges.unexplained(30.0, 0.0) == []
    for number in range(33):
        exchanges.observe(evolve(ONE, number=0, asked=2_000), 40.0 + number / 10)
    assert len(exchanges.unexplained(50.0, 0.0)) > 20


def test_a_login_by_a_websocket_explains_its_connection() -> None:
    """The wire reads the requests of a WebSocket, and those of an unread one are counted by their bytes."""
    exchanges = Exchanges()
    exchanges.explain(evolve(LOGIN, remote=evolve(REMOTE, transport=Transport.WS)), 9.0)
    exchanges.observe(evolve(ONE, number=100), 10.0)
    assert exchanges.unexplained(30.0, 0.0) == []


def test_when_too_many_follow_a_login_all_of_them_count() -> None:
    """The eleventh within a second counts with the ten before it, and each later one counts."""
    exchanges = Exchanges()
    exchanges.explain(LOGIN, 9.0)
    exchanges.observe(evolve(ONE, number=11), 11.0)
    assert exchanges.unexplained(11.0 + WAIT, 0.0) == [REMOTE] * 11
    exchanges.observe(ONE, 20.0)
    assert exchanges.unexplained(30.0, 0.0) == [REMOTE]


def test_all_connections_of_an_account_share_what_its_logins_excuse() -> None:
    """An attacker with one password hides no more guesses by more connections; other accounts have theirs."""
    exchanges = Exchanges()
    for port in range(4):
        exchanges.explain(evolve(LOGIN, remote=evolve(REMOTE, port=port)), 9.0)
        exchanges.observe(evolve(ONE, port=port, number=1 + 5), 9.0)
    exchanges.explain(evolve(LOGIN, account="bob", remote=evolve(REMOTE, port=9)), 9.0)
    exchanges.observe(evolve(ONE, port=9, number=1 + 10), 9.0)
    assert sorted(one.port for one in exchanges.unexplained(20.0, 0.0)) == [2] * 15 + [3] * 5


@pytest.mark.parametrize("phones", [1, 2, MOST_PHONES, MOST_PHONES + 1])
def test_several_phones_with_one_account_may_ring_in_a_queue(phones: int) -> None:
    """Each rings every ten seconds with three messages of Asterisk, if there are at most four."""
    exchanges, found = Exchanges(), []
    for port in range(phones):
        exchanges.explain(evolve(LOGIN, remote=evolve(REMOTE, port=port), session=b"%d" % port), 0.0)
        exchanges.observe(evolve(ONE, port=port), 0.0)
    for call in range(1, 54):
        for message in range(3):
            now = call * 10.0 + message * 2
            for port in range(phones):
                exchanges.observe(evolve(ONE, port=port), now)
            found += exchanges.unexplained(now + 1.5, 0.0, now + 1.5)
    assert bool(found) == (phones > MOST_PHONES)


def test_each_account_of_a_connection_excuses_its_own() -> None:
    """A telephone system with many lines by one connection sends as much as their phones would."""
    exchanges = Exchanges()
    for account in ("alice", "bob"):
        exchanges.explain(evolve(LOGIN, account=account), 9.0)
    exchanges.observe(evolve(ONE, number=2 + 20), 9.0)
    assert exchanges.unexplained(20.0, 0.0) == []
    exchanges.observe(evolve(ONE, number=21), 30.0)
    assert len(exchanges.unexplained(40.0, 0.0)) == 11


def test_the_addresses_of_a_host_share_what_a_login_excuses() -> None:
    """An attacker with one password has a whole /64."""
    exchanges, number = Exchanges(), 0
    for last in range(4):
        address = ip_address(f"2001:db8::{last}")
        exchanges.explain(evolve(LOGIN, remote=evolve(REMOTE, address=address)), 9.0)
        exchanges.observe(evolve(ONE, address=address, number=1 + 5), 9.0)
        number += 5
    assert len(exchanges.unexplained(20.0, 0.0)) == number


@pytest.mark.parametrize(("befriends", "found"), [(True, 0), (False, 20)])
def test_logins_that_make_no_friend_share_what_they_excuse(*, befriends: bool, found: int) -> None:
    """Somebody may use one password from many hosts; the number of friends of an account is bounded."""
    exchanges = Exchanges()
    for last in range(4):
        address = ip_address(f"203.0.113.{last}")
        exchanges.explain(evolve(LOGIN, remote=evolve(REMOTE, address=address)), 9.0, befriends=befriends)
        exchanges.observe(evolve(ONE, address=address, number=1 + 5), 9.0)
    assert len(exchanges.unexplained(20.0, 0.0)) == found


def pinged(exchanges: Exchanges, ports: int, start: float, seconds: int, since: float = 0.0) -> int:
    """Have Asterisk send OPTIONS to phones each minute, which they answer; return how many exchanges count.

    They are phones of A, whose connections were open before the first copy.
    """
    older, found = evolve(ONE, begun=False), 0
    for second in range(seconds):
        for port in range(ports):
            if second % 60 == port % 60:
                exchanges.observe(evolve(older, port=port), start + second)
            if second % 60 == (port + 1) % 60:
                exchanges.observe(evolve(older, port=port, number=0, asked=650), start + second)
        found += len(exchanges.unexplained(start + second, since))
    return found


@pytest.mark.parametrize("ports", [1, 40])
def test_a_phone_whose_connection_is_older_than_the_daemon(ports: int) -> None:
    """Its login came before, so its answers to Asterisk's requests excuse themselves until it registers."""
    exchanges = Exchanges()
    assert pinged(exchanges, ports, 10.0, 1_800) == 0
    for port in range(ports):
        exchanges.observe(evolve(ONE, port=port, begun=False), 1_820.0)
        exchanges.explain(evolve(LOGIN, account=str(port), remote=evolve(REMOTE, port=port)), 1_820.0)
    assert pinged(exchanges, ports, UNSEEN_FOR, 1_200) == 0


def test_connections_older_than_the_daemon_excuse_as_much_as_a_login() -> None:
    """All of a host share it. So an attacker that waited on them for the daemon's start is banned soon."""
    exchanges = Exchanges()
    for port in range(4):
        exchanges.observe(evolve(ONE, port=port, number=4, begun=False), 10.0)
    assert exchanges.unexplained(20.0, 0.0) == []
    for port in range(4):
        exchanges.observe(evolve(ONE, port=port, number=5, begun=False), 30.0)
    assert len(exchanges.unexplained(40.0, 0.0)) == 20
    exchanges.observe(evolve(ONE, address=B, number=11, begun=False), 50.0)
    assert len(exchanges.unexplained(60.0, 0.0)) == 11


def test_a_connection_older_than_the_daemon_is_not_excused_for_ever() -> None:
    """A phone registers again within two hours. An AMI that was away begins these hours again."""
    exchanges, older = Exchanges(), evolve(ONE, begun=False)
    for at, since, found in (
        (10.0, 5.0, 0),
        (4.0 + UNSEEN_FOR, 5.0, 0),
        (5.0 + UNSEEN_FOR, 5.0, 1),
        (20.0 + UNSEEN_FOR, 5.0, 1),
        (40.0 + UNSEEN_FOR, 30.0 + UNSEEN_FOR, 0),
    ):
        exchanges.observe(older, at)
        assert len(exchanges.unexplained(at + WAIT, since)) == found


def test_a_phone_that_registered_while_ami_was_away() -> None:
    """Asterisk restarts, and its phones are back before AMI. Older connections, and later ones, count."""
    exchanges = Exchanges()
    before, gap, after = (evolve(ONE, port=port) for port in (1, 2, 3))
    exchanges.observe(before, 10.0)
    assert len(exchanges.unexplained(20.0, 5.0)) == 1
    exchanges.observe(before, 50.0)
    assert exchanges.unexplained(51.0, None) == []
    exchanges.observe(gap, 60.0)
    assert exchanges.unexplained(61.0, None) == []
    for number in range(9):
        exchanges.observe(gap, 70.4 + 60 * number)
        assert exchanges.unexplained(70.4 + 60 * number + WAIT, 70.0) == []
    exchanges.observe(before, 700.0)
    exchanges.observe(after, 700.0)
    assert [one.port for one in exchanges.unexplained(710.0, 70.0)] == [1, 3]


def test_an_account_is_excused_again_when_its_excess_is_over() -> None:
    """A phone that once sent too much is not counted for ever."""
    exchanges = Exchanges()
    exchanges.explain(LOGIN, 9.0)
    exchanges.observe(evolve(ONE, number=20), 10.0)
    assert len(exchanges.unexplained(20.0, 0.0)) == 19
    exchanges.observe(ONE, 10.0 + OWN[-1][0] - 1.0)
    assert len(exchanges.unexplained(600.0, 0.0)) == 1
    exchanges.observe(ONE, 10.0 + OWN[-1][0])
    assert exchanges.unexplained(700.0, 0.0) == []


def test_the_logins_of_a_connection_are_bounded() -> None:
    """However many dialogs begin, a connection excuses only so many exchanges."""
    exchanges = Exchanges()
    for number in range(200):
        exchanges.explain(evolve(LOGIN, session=b"%d" % number), 0.0)
    exchanges.observe(evolve(ONE, number=MOST_WAITING), 10.0)
    exchanges.observe(evolve(ONE, number=MOST_WAITING), 10.0)
    assert exchanges.unexplained(20.0, 0.0) == []
    exchanges.observe(evolve(ONE, number=MOST_WAITING), 20.0)
    exchanges.unexplained(30.0, 0.0)
    exchanges.observe(evolve(ONE, number=20), 20.5)
    assert len(exchanges.unexplained(40.0, 0.0)) > 20


@pytest.mark.parametrize(
    "event",
    [
        evolve(LOGIN, source=SourceId("pbx", "log:full")),
        evolve(LOGIN, tampered=True),
        evolve(EVENT, service=Service.SIP, kind=EventKind.INVALID_PASSWORD),
        evolve(EVENT, kind=EventKind.FAILED_ACL, acl_name="registrar_attempt_without_configured_aors"),
        evolve(LOGIN, remote=Endpoint(A, PORT, Transport.UDP)),
        evolve(LOGIN, remote=Endpoint(A, PORT + 1, Transport.TLS)),
    ],
)
def test_what_does_not_explain(event: SecurityEvent) -> None:
    """A line of a log, a tampered event, and events of other transports or connections explain nothing.

    Neither does the refusal of a login, whose own event came before.
    """
    exchanges = Exchanges()
    exchanges.observe(ONE, 10.0)
    exchanges.explain(event, 10.0)
    assert exchanges.unexplained(20.0, 0.0) == [REMOTE]


GUESS = Attempt(
    *("pbx", A, AttemptKind.GUESS, Proof.HANDSHAKE, Service.PJSIP, Transport.TLS, "", EventKind.REFUSED, 0.0),
    trusted=True,
)


def test_a_guess_that_the_export_shows_explains_one_exchange() -> None:
    """AMI's report of the same guess explains no second one, but its next reports do."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ONE, number=3), 10.0)
    exchanges.explain_guess(GUESS, PORT, 10.0)
    exchanges.explain(evolve(EVENT, kind=EventKind.CHALLENGE_RESPONSE_FAILED), 10.0, repeated=True)
    exchanges.explain(EVENT, 10.0)
    assert exchanges.unexplained(20.0, 0.0) == [REMOTE]


def test_a_reported_guess_after_a_hidden_one_counts_once() -> None:
    """AMI reports the second guess of a connection before the export does, and never the first."""
    detector = Detector(RULES, sources=KnownSources(frozenset({"pbx"})))
    detector.observe_exchange(evolve(ONE, number=2), 10.0)
    hidden = CopiedAnswer(A, PORT, B, 5061, b"hidden", b"", evasive=True, transport=Transport.TLS)
    detector.observe_answers([hidden], 10.0, 1_000.0, "pbx")
    failed = evolve(EVENT, kind=EventKind.CHALLENGE_RESPONSE_FAILED, session=b"other", time=10.0)
    detector.observe(failed, 10.0)
    assert detector.judge_exchanges(20.0, 1_000.0, "pbx", 0.0) == []
    assert len(detector.summary_of(A, 20.0).attempts) == 2


@pytest.mark.parametrize(
    ("attempt", "port"),
    [
        (evolve(GUESS, event=EventKind.UNEXPLAINED), PORT),
        (evolve(GUESS, transport=Transport.TCP), PORT),
        (GUESS, PORT + 1),
    ],
)
def test_which_attempts_explain_nothing(attempt: Attempt, port: int) -> None:
    """Those of other sources, transports and connections explain nothing."""
    exchanges = Exchanges()
    exchanges.observe(ONE, 10.0)
    exchanges.explain_guess(attempt, port, 10.0)
    assert exchanges.unexplained(20.0, 0.0) == [REMOTE]


def test_an_exported_guess_counts_once() -> None:
    """A hidden guess that the export shows to the detector is not unexplained too."""
    detector = Detector(RULES)
    refusal = CopiedAnswer(A, PORT, B, 5061, b"call", b"", evasive=True, transport=Transport.TLS)
    detector.observe_answers([refusal], 10.0, 1_000.0, "pbx")
    detector.observe_exchange(evolve(ONE, number=2), 10.0)
    assert len(detector.judge_exchanges(20.0, 1_000.0, "pbx", 0.0)) == 1
    assert len(detector.summary_of(A, 20.0).attempts) == 2


@pytest.mark.parametrize("since", [None, 10.0])
def test_nothing_is_concluded_without_ami(since: float | None) -> None:
    """If AMI did not deliver events before the exchange, nothing is known of it."""
    exchanges = Exchanges()
    exchanges.observe(ONE, 10.0)
    assert exchanges.unexplained(20.0, since) == []
    assert exchanges.unexplained(20.0, 0.0) == []


def test_all_is_bounded() -> None:
    """Connections, waiting exchanges and early events have bounds."""
    exchanges = Exchanges(2)
    for port in (1, 2, 3):
        exchanges.observe(evolve(ONE, port=port, number=10 * MOST_WAITING), 10.0)
    assert len(exchanges) == 2
    assert len(exchanges.unexplained(20.0, 0.0)) == 2 * MOST_WAITING
    for _ in range(5 * MOST_EARLY):
        exchanges.explain(EVENT, 30.0)
    exchanges.observe(evolve(ONE, number=MOST_EARLY + 1), 30.0)
    assert exchanges.unexplained(40.0, 0.0) == [REMOTE]


@pytest.mark.parametrize("of_each", [1, FEW + 1])
def test_waiting_exchanges_take_linear_time(of_each: int) -> None:
    """However many wait, of one address or of many, while AMI is read no further."""

    def judge(number: int) -> None:
        exchanges = Exchanges()
        for each in range(number):
            address = ip_address(int(A) + each // of_each)
            exchanges.observe(evolve(ONE, address=address, port=each), 10.0)
        for _ in range(number):
            assert exchanges.unexplained(10.0 + WAIT / 2, 0.0, 9.0) == []
            assert exchanges.waits_for_ami(10.0 + WAIT / 2) == (of_each > FEW)

    assert is_linear_in(lambda size: seconds(judge, size), 1_000)


STEPS = st.lists(st.sampled_from(["exchange", "event", "login", "judge"]), max_size=40)


@given(STEPS)
def test_each_exchange_counts_at_most_once(steps: list[str]) -> None:
    """The naive model: the unexplained are the exchanges less the events in time; none after a login."""
    exchanges, seen, explained, login, found = Exchanges(), 0, 0, False, 0
    for number, step in enumerate(steps):
        now = number / 100
        if step == "exchange":
            exchanges.observe(ONE, now)
            seen += not login
        elif step == "event":
            exchanges.explain(EVENT, now)
            explained += 1
        elif step == "login":
            exchanges.explain(BY_CHAN_SIP, now)
            login = True
        else:
            found += len(exchanges.unexplained(now, -1.0))
    found += len(exchanges.unexplained(100.0, -1.0))
    assert found <= seen
    if not login and "judge" not in steps:
        assert found >= seen - explained


# -- what was asked without an answer

SIZE = 330
ASKED = evolve(ONE, number=0, asked=SIZE)


def counted(exchanges: Exchanges, now: float) -> int:
    """Return how many exchanges are unexplained, a second after ``now``."""
    return sum(len(exchanges.unexplained(now + later, 0.0, now)) for later in (0.0, BUSY, WAIT))


def test_guesses_without_answers_count_by_their_bytes() -> None:
    """A sender that closes its window: more than the longest request waits, so all of it counts."""
    exchanges = Exchanges()
    found = [0]
    for number in range(60):
        now = 10.0 + number / 28
        exchanges.observe(ASKED, now)
        found.append(found[-1] + len(exchanges.unexplained(now + BUSY, 0.0, now)))
    first = next(number for number, count in enumerate(found) if count)
    assert first == MOST_REQUEST // SIZE + 1
    assert found[first] >= 20
    assert 60 * SIZE // PART - FEW - 1 <= found[60] <= 60 * SIZE // PART


def test_one_burst_counts_when_it_has_waited() -> None:
    """The answers to many requests at once may need some time to leave."""
    burst = evolve(ASKED, asked=40 * SIZE)
    exchanges = Exchanges()
    exchanges.observe(burst, 10.0)
    exchanges.observe(evolve(ASKED, asked=1), 10.0 + SLOW / 2)
    assert exchanges.unexplained(10.0 + SLOW / 2, 0.0, 10.0 + SLOW / 2) == []
    exchanges.observe(evolve(ASKED, asked=1), 10.0 + SLOW)
    assert counted(exchanges, 10.0 + SLOW) == 40 * SIZE // PART

    exchanges = Exchanges()
    exchanges.observe(burst, 10.0)
    exchanges.observe(evolve(burst, asked=MOST_REQUEST, port=1), 10.0)
    assert exchanges.unexplained(10.0 + SLOW / 2, 0.0, 10.0) == []
    assert counted(exchanges, 10.0 + 2 * SLOW) == 40 * SIZE // PART


@pytest.mark.parametrize(("size", "after"), [(PART, 5.0), (USUAL, 5.0), (2_000, 5.0), (MOST_AT_ONCE, 0.2)])
def test_an_answer_settles_one_request_of_any_size(size: int, after: float) -> None:
    """It is one exchange, however slow Asterisk is."""
    exchanges = Exchanges()
    for number in range(30):
        now = 10.0 + 20 * number
        exchanges.observe(evolve(ASKED, asked=size), now)
        exchanges.observe(evolve(ONE, number=1), now + after)
    assert counted(exchanges, 2_000.0) == 30


@pytest.mark.parametrize("rate", [2, 5, 28])
def test_answers_that_are_read_slowly_settle_little(rate: int) -> None:
    """A guesser that reads one answer a second pays for its other guesses, and none counts twice."""
    exchanges = Exchanges()
    found, sent, now = 0, 0, 10.0
    while found < 20:
        sent += 1
        now = 10.0 + sent / rate
        exchanges.observe(evolve(ASKED, asked=600), now)
        if sent % rate == 0:
            exchanges.observe(evolve(ONE, number=1), now)
        found += len(exchanges.unexplained(now + BUSY, 0.0, now))
    assert sent <= 25
    exchanges.observe(evolve(ONE, number=9), now + 0.1)
    assert len(exchanges.unexplained(now + WAIT, 0.0, now)) <= FEW


def test_a_flood_of_answered_requests_settles_a_part_each() -> None:
    """If more was asked than one request has, an answer does not show that all were answered."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ASKED, asked=60 * PART), 10.0)
    exchanges.observe(evolve(ONE, number=10), 10.0)
    exchanges.observe(evolve(ASKED, asked=1), 11.0)
    assert counted(exchanges, 11.0) == 60


def test_late_answers_to_counted_requests_count_no_more() -> None:
    """As many as were counted by their bytes; the next answer is to another request."""
    exchanges = Exchanges()
    for number in range(3):
        exchanges.observe(evolve(ASKED, asked=PART), 10.0 + number)
    assert counted(exchanges, 20.0 + SILENCE) == 3
    exchanges.observe(evolve(ONE, number=3), 30.0)
    assert counted(exchanges, 40.0) == 0
    exchanges.observe(ONE, 50.0)
    assert counted(exchanges, 60.0) == 1


def test_one_long_call_leads_to_no_ban() -> None:
    """A browser's call with video that waits may be many guesses, but counts only as some of them."""
    call = evolve(ASKED, asked=8_000)
    exchanges = Exchanges()
    exchanges.observe(call, 10.0)
    exchanges.observe(ONE, 15.0)
    assert counted(exchanges, 20.0) == 1
    exchanges.observe(evolve(call, port=1), 30.0)
    assert counted(exchanges, 31.0 + SILENCE) == MOST_PARTS


def test_a_request_without_an_answer_counts_if_later_ones_have_theirs() -> None:
    """Or after eight seconds; until then, Asterisk may be slow."""
    later = evolve(ONE, address=B, asked=SIZE)
    for after, found in ((LATER - 0.1, 1), (LATER, 2)):
        exchanges = Exchanges()
        exchanges.observe(ASKED, 10.0)
        exchanges.observe(later, 10.0 + after)
        assert counted(exchanges, 12.0) == found
    exchanges = Exchanges()
    exchanges.observe(ASKED, 10.0)
    assert counted(exchanges, 9.0 + SILENCE - WAIT) == 0
    assert counted(exchanges, 10.0 + SILENCE) == 1


@pytest.mark.parametrize(("size", "found"), [(PART - 1, 0), (PART, 1)])
def test_a_part_without_an_answer_counts_after_a_silence(size: int, found: int) -> None:
    """The bytes of a part count as one request when the silence is over, and fewer bytes do not."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ASKED, asked=size), 10.0)
    for quarter in range(1, 4 * int(SILENCE) + 1):  # silent connections are searched for each time
        assert exchanges.unexplained(10.0 + quarter / 4, 0.0) == []
    assert exchanges.unexplained(10.0 + SILENCE + WAIT, 0.0) == [REMOTE] * found


def test_short_messages_are_no_guesses() -> None:
    """Keep-alives add up to a part only after a while."""
    exchanges = Exchanges()
    for number in range(8):
        exchanges.observe(evolve(ASKED, asked=30), 10.0 + 30 * number)
        assert counted(exchanges, 20.0 + 30 * number) == 0
    assert len(exchanges) == 1


def test_a_handshake_is_no_guess() -> None:
    """The bytes with which a client opens TLS or a WebSocket are left out, up to a limit."""
    exchanges = Exchanges()
    exchanges.observe(evolve(ASKED, asked=OPENING), 10.0)
    exchanges.observe(evolve(ASKED, asked=2 * PART, opens=True), 10.0)
    assert counted(exchanges, 20.0) == 2


def test_events_and_logins_explain_what_has_no_answer() -> None:
    """An event explains one part, early or late, and a login all."""
    exchanges = Exchanges()
    exchanges.explain(EVENT, 10.0)
    exchanges.observe(evolve(ASKED, asked=MOST_REQUEST), 10.0)
    exchanges.observe(evolve(ASKED, asked=PART), 10.0 + SLOW)
    exchanges.explain(EVENT, 10.0 + SLOW)
    assert counted(exchanges, 11.0) == MOST_REQUEST // PART + 1 - 2
    exchanges.observe(evolve(ASKED, port=1), 20.0)
    exchanges.explain(evolve(LOGIN, remote=evolve(REMOTE, port=1)), 20.1)
    assert counted(exchanges, 40.0) == 0


def test_unread_streams_in_clear_text() -> None:
    """Their answers are read, so only bytes without one count; events of other connections are left out."""
    exchanges = Exchanges()
    clear = evolve(ASKED, transport=Transport.TCP, local_port=5060)
    remote = evolve(REMOTE, transport=Transport.TCP)
    exchanges.explain(evolve(EVENT, remote=remote), 10.0)
    assert len(exchanges) == 0
    for number in range(20):
        exchanges.observe(evolve(clear, number=1), 10.0 + number)
    assert exchanges.unexplained(40.0, 0.0) == []
    exchanges.observe(evolve(clear, asked=2 * PART), 50.0)
    exchanges.explain(evolve(EVENT, remote=remote), 50.0)
    assert exchanges.unexplained(50.0 + SILENCE, 0.0) == []
    assert exchanges.unexplained(60.0 + SILENCE, 0.0) == [remote, remote]


def test_connections_without_an_answer_are_bounded() -> None:
    """The oldest is forgotten, with what it asked."""
    exchanges = Exchanges(most=2)
    for port in (1, 2, 3):
        exchanges.observe(evolve(ASKED, port=port), 10.0)
    assert counted(exchanges, 20.0) == 2


def judged(detector: Detector, number: int, at: float) -> list[Judgement]:
    """Judge exchanges that nothing explains; return the judgements."""
    for port in range(number):
        detector.observe_exchange(evolve(ONE, port=port + 1), at)
    effects = detector.judge_exchanges(at + WAIT, 1_000.0 + at, "pbx", 0.0)
    return [one for one in effects if isinstance(one, Judgement)]


def test_twenty_lead_to_a_ban_of_tcp() -> None:
    """The ban covers SIP over TCP, with its rule's length, and the attempts keep their kind."""
    detector = Detector(RULES)
    assert all(one.decision is None for one in judged(detector, 19, 10.0))
    [last] = judged(detector, 1, 20.0)
    assert last.decision is not None
    decision = last.decision
    assert (decision.scope, decision.rule.name, decision.seconds) == (Scope.SIP_TCP, "unexplained", None)
    assert {(one.kind, one.proof, one.event) for one in decision.attempts} == {
        ("unexplained", Proof.HANDSHAKE, EventKind.UNEXPLAINED)
    }
    assert len(detector.summary_of(A, 20.0).attempts) == 20


def test_what_was_answered_before_the_ban_is_no_attempt() -> None:
    """Exchanges that wait when the ban begins are dropped."""
    ledger = Ledger()
    detector = Detector(RULES, bans=ledger)
    assert len(judged(detector, 30, 10.0)) == 20


def test_the_answers_to_an_old_friend_are_not_counted() -> None:
    """The logins of its connections may have been before the start of the daemon."""
    friends = Friends()
    friends.add(Friend("pbx", A, "200", FriendReason.AUTHENTICATED, 0.0, 0.0, 9_000.0))
    assert judged(Detector(RULES, friends=friends), 30, 10.0) == []


def test_twelve_answers_to_a_new_friend_are_a_ban_of_tcp() -> None:
    """An attacker that has logged in hides its guesses on other connections."""
    detector = Detector(RULES)
    [login] = [one for one in detector.observe(LOGIN, 5.0) if not isinstance(one, Judgement)]
    assert isinstance(login, Login)
    detector.friends.add(login.friend)
    assert all(one.decision is None for one in judged(detector, 11, 10.0))
    [last] = judged(detector, 1, 20.0)
    assert last.decision is not None
    assert (last.decision.scope, last.decision.rule.name) == (Scope.SIP_TCP, "unexplained")


def log_in(detector: Detector, account: str, port: int) -> None:
    """Log an account in by TLS at A, on the connection with this port; it makes A a friend."""
    event = evolve(LOGIN, account=account, remote=evolve(REMOTE, port=port))
    for effect in detector.observe(event, 5.0):
        if isinstance(effect, Login) and effect.befriends:
            detector.friends.add(effect.friend)


def rung(detector: Detector, port: int, at: float, *, begun: bool = True) -> int:
    """Have a group ring whose lamps are on the phone of a connection; return how many attempts that is."""
    detector.observe_exchange(evolve(ONE, port=port, number=40, begun=begun), at)
    effects = detector.judge_exchanges(at + WAIT, 1_000.0 + at, "pbx", 0.0)
    return sum(isinstance(one, Judgement) for one in effects)


@pytest.mark.parametrize(
    ("logins", "begun", "counted"),
    [
        (["alice"], True, False),
        (["bob"], True, True),
        (["alice", "bob"], True, True),
        ([], True, True),
        ([], False, False),
    ],
    ids=["an old phone", "the new phone", "both", "no login", "an unseen login"],
)
def test_beside_a_new_account_the_lamps_of_an_old_phone_are_no_attempts(
    logins: list[str], *, begun: bool, counted: bool
) -> None:
    """An attacker needs the password of an account that is not new there, or a login before the daemon."""
    friends = Friends()
    friends.add(Friend("pbx", A, "alice", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e9))
    detector = Detector(RULES, friends=friends)
    log_in(detector, "bob", PORT + 1)
    assert A in friends.first_day.addresses
    for account in logins:
        log_in(detector, account, PORT)
    assert (rung(detector, PORT, 10.0, begun=begun) > 0) == counted


@pytest.mark.parametrize("accounts", [MOST_STOLEN, MOST_STOLEN + 1])
def test_the_lamps_of_an_office_with_a_new_address_are_no_attempts(accounts: int) -> None:
    """All its accounts are new there. Fewer may be an attacker's, who has stolen their passwords."""
    detector = Detector(RULES)
    for number in range(accounts):
        log_in(detector, str(number), PORT + number)
    office = accounts > MOST_STOLEN
    assert (rung(detector, PORT, 10.0) == 0) == office
    detector = Detector(RULES)
    for number in range(accounts):
        log_in(detector, str(number), PORT + number)
    assert (rung(detector, PORT - 1, 10.0, begun=False) == 0) == office
    assert rung(detector, PORT - 2, 20.0) > 0


def test_a_new_friend_is_not_banned_for_answers_on_a_connection_older_than_the_daemon() -> None:
    """It was registered when ringfence was installed, and answers Asterisk's OPTIONS for half an hour."""
    detector = Detector(RULES)
    friend = Friend("pbx", A, "200", FriendReason.REGISTERED, 0.0, 0.0, 9_000.0)
    detector.friends.admit(friend)
    detector.friends.add(friend)
    assert A in detector.friends.first_day.addresses
    older, effects = evolve(ONE, begun=False), list[object]()
    for minute in range(30):
        detector.observe_exchange(older, 10.0 + 60 * minute)
        detector.observe_exchange(evolve(older, number=0, asked=650), 10.1 + 60 * minute)
        for second in range(1, 60):
            effects += detector.judge_exchanges(10.0 + 60 * minute + second, 1_000.0, "pbx", 0.0)
    assert effects == []


def test_where_guests_may_call_their_answers_by_tls_are_not_counted() -> None:
    """Calls and hidden guesses look the same by TLS. Unread bytes by TCP and new friends still count."""
    detector = Detector(RULES, sources=KnownSources(guests=True))
    assert judged(detector, 30, 10.0) == []
    detector.observe_exchange(evolve(ONE, transport=Transport.TCP, number=0, asked=20 * PART), 20.0)
    assert detector.judge_exchanges(20.0 + SILENCE, 1_000.0, "pbx", 0.0) == []
    assert len(detector.judge_exchanges(30.0 + SILENCE, 1_000.0, "pbx", 0.0)) == MOST_PARTS
    login = next(iter(detector.observe(evolve(LOGIN, remote=Endpoint(B, PORT, Transport.TLS)), 50.0)))
    assert isinstance(login, Login)
    detector.friends.add(login.friend)
    detector.observe_exchange(evolve(ONE, address=B, port=PORT + 1), 51.0)
    assert len(detector.judge_exchanges(60.0, 1_000.0, "pbx", 0.0)) == 1


def test_the_answers_of_a_proxy_are_not_counted() -> None:
    """Nothing by TLS counts while a proxy's sockets are unknown; then what leaves its ports does not."""
    sources = KnownSources(frozenset({"pbx"}), proxies=NetworkSet([ip_network("127.0.0.1")]))
    detector = Detector(RULES, sources=sources)
    assert judged(detector, 30, 10.0) == []
    detector.set_proxy_sockets(frozenset({Endpoint(B, 5061, Transport.TCP)}))
    assert judged(detector, 30, 20.0) == []
    detector.set_proxy_sockets(frozenset({Endpoint(B, 5060, Transport.TCP)}))
    assert len(judged(detector, 20, 30.0)) == 20


def test_a_login_is_asked_of_the_detector() -> None:
    """An event that the detector observes explains the exchange of its connection."""
    detector = Detector(RULES)
    detector.observe_exchange(ONE, 10.0)
    detector.observe(EVENT, 10.0)
    assert detector.judge_exchanges(20.0, 1_000.0, "pbx", 0.0) == []


def test_the_detector_tells_when_to_ask_ami() -> None:
    """It is worth asking when more answers of one address wait than a phone causes."""
    detector = Detector(RULES)
    detector.observe_exchange(ONE, 0.0)
    assert not detector.waits_for_ami(0.0)

    detector.observe_exchange(evolve(ONE, number=100), 0.0)
    assert detector.waits_for_ami(0.0)
