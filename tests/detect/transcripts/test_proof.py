"""Transcripts: which evidence proves the address of an attempt, and which does not."""

import pytest
from attrs import evolve
from tests.detect.transcripts.reports import (
    AMI,
    ATTACKER,
    BYSTANDER,
    NOTICE,
    PHONE,
    SECURITY,
    challenged,
    copied,
    failed,
    login,
    misdialled_by_notice,
    probed,
    sent,
    wrong,
    wrong_by_notice,
)
from tests.support.transcript import Backlog, Banned, Exempt, Happened, Loss, Player, Step, at, ticks

from ringfence.values.event import EventKind, SecurityEvent, Service, Transport

FULL = ["guess bans 192.0.2.7/32 by sip after 5"]
NARROW = ["guess bans 192.0.2.7/32 by sip-udp for 600 s after 5"]


def guesses(*receivers: str) -> list[Step]:
    """Return five guesses of the attacker, each with a nonce that was sent to ``receivers``."""
    steps = []
    for index in range(5):
        call, nonce = b"call-%d" % index, b"nonce-%d" % index
        asked = [sent(receiver, call, nonce=nonce, sender=ATTACKER) for receiver in receivers]
        steps += [at(index, *asked), at(index + 0.1, failed(ATTACKER, call, nonce=nonce))]
    return steps


def test_a_nonce_that_went_to_one_address_proves_it() -> None:
    """Five guesses that carry nonces sent to their address alone are a full ban."""
    happened = Player().play(*guesses(ATTACKER))
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"] * 5
    assert happened.bans == FULL


def test_forged_senders_that_fill_the_table_save_no_slow_guesser() -> None:
    """A guess each 100 s, and between them more forged senders than sessions are kept: the fifth is a ban."""
    steps = []
    for index in range(5):
        forged = [failed(f"198.51.{index}.{n}", b"f%d-%d" % (index, n)) for n in range(100)]
        call, nonce = b"call-%d" % index, b"nonce-%d" % index
        steps += [
            at(100 * index, sent(ATTACKER, call, nonce=nonce, sender=ATTACKER)),
            at(100 * index + 0.1, failed(ATTACKER, call, nonce=nonce)),
            at(100 * index + 50, *forged),
        ]
    assert Player(sessions=64).play(*steps).bans == FULL


def test_a_nonce_sent_to_two_receivers_proves_no_address() -> None:
    """The guesses are claims of the address that asked, and an alarm reports that they are unprovable."""
    happened = Player().play(*guesses(ATTACKER, BYSTANDER))
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 5
    assert happened.bans == NARROW
    assert set(happened.alarms) == {"evidence.unprovable of 192.0.2.7"}


def test_an_unprovable_guesser_does_not_compete_with_forged_ones() -> None:
    """The minute's claimed bans are used up, but it has returned nonces that this host sent."""
    guard = Player(claimed_per_minute=1)
    guard.play(*(at(0, failed(PHONE, b"forged-%d" % n, nonce=b"invented")) for n in range(5)))
    steps = guesses(ATTACKER, BYSTANDER)
    assert guard.play(*steps).bans == NARROW


@pytest.mark.parametrize("ami", [True, False])
def test_a_guesser_during_losses_does_not_compete_with_forged_ones(*, ami: bool) -> None:
    """The flood that uses up the minute's claimed bans also makes the wire lose copies, and AMI late."""
    guard = Player(claimed_per_minute=1)
    guard.play(*(at(0, failed(PHONE, b"forged-%d" % n, nonce=b"invented")) for n in range(5)))
    steps = [at(0, sent(ATTACKER, nonce=b"1/n")), at(0.1, Loss())]
    for n in range(5):
        call = b"g-%d" % n
        reported = [failed(ATTACKER, call, nonce=b"1/n")]
        seen = [copied(ATTACKER, call, nonce=b"1/n"), sent(ATTACKER, call, nonce=b"2/n", sequence=2)]
        steps.append(at(0.2 + n, *(reported if ami else seen)))
    happened = guard.play(*steps)
    assert happened.attempts == [f"{ATTACKER} counted, claimed"] * 5
    assert (happened.bans, happened.alarms) == (NARROW, [])


def test_a_nonce_that_two_addresses_asked_for_proves_no_address() -> None:
    """A second sender had the same nonce sent to the attacker, so either of them may have answered."""
    steps = []
    for index in range(5):
        call, nonce = b"call-%d" % index, b"nonce-%d" % index
        both = [sent(ATTACKER, call, nonce=nonce, sender=sender) for sender in (ATTACKER, BYSTANDER)]
        steps.append(at(index, *both, failed(ATTACKER, call, nonce=nonce)))
    happened = Player().play(*steps)
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 5
    assert happened.bans == NARROW


def test_a_nonce_asked_for_by_another_address_proves_no_address() -> None:
    """The challenge went to the attacker alone, but a forged source asked for it, so it proves nothing."""
    happened = Player().play(
        at(0, sent(nonce=b"n", sender=BYSTANDER)),
        at(0.1, failed(nonce=b"n")),
    )
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


def phones(address: str, *accounts: str, port: int = 5060) -> Step:
    """Return the logins of these accounts from one socket."""
    return at(0, *(login(address, b"in-%d" % n, account=a, port=port) for n, a in enumerate(accounts)))


def test_a_via_below_the_topmost_decides_nothing() -> None:
    """The answer goes to the topmost Via, so five guesses whose requests have two Vias are a full ban."""
    guard = Player()
    steps = [
        at(
            number,
            sent(ATTACKER, b"%d" % number, nonce=b"n%d" % number, relayed=True),
            failed(ATTACKER, b"%d" % number, nonce=b"n%d" % number),
        )
        for number in range(5)
    ]
    happened = guard.play(*steps)
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"] * 5
    assert happened.bans == FULL


@pytest.mark.parametrize(
    ("accounts", "proof"),
    [
        (("1", "2", "3"), "claimed"),
        (("1", "2", "3", "4", "1"), "claimed"),
        (("1", "2", "2"), "proven by nonce"),
    ],
)
def test_a_relay_is_known_by_the_phones_behind_it(accounts: tuple[str, ...], proof: str) -> None:
    """Three accounts at one socket show a relay, which may forward a nonce by the Via below its own."""
    for later in ([], [sent(nonce=b"n")]):
        guard = Player()
        guard.play(phones(ATTACKER, *accounts))
        challenges = at(1, sent(nonce=b"n", relayed=True), *later)
        happened = guard.play(challenges, at(1.1, failed(nonce=b"n")))
        assert [line.partition(", ")[2] for line in happened.attempts] == [proof]


@pytest.mark.parametrize(
    ("asked_as", "proof"),
    [
        (("1", "2", "3"), "claimed"),
        (("sip:1@pbx", "sip:1@pbx", "sip:1@pbx"), "proven by nonce"),
        (("1", "1", "1"), "proven by nonce"),
        ((), "proven by nonce"),
    ],
    ids=["registrations", "calls", "calls with the nonce of a registration", "no challenge"],
)
def test_calls_at_chan_sip_make_no_relay(asked_as: tuple[str, ...], proof: str) -> None:
    """Their logins name the dialled number, which one password makes three accounts of.

    The challenge before names the account whose password is asked. Phones behind a proxy register.
    """
    guard = Player()
    calls = [f"0x{number}".encode() for number in range(3)]
    challenges = [
        challenged(ATTACKER, call, account=account, service=Service.SIP)
        for call, account in zip(calls, asked_as, strict=False)
    ]
    logins = [
        login(ATTACKER, call, account=f"{number}", service=Service.SIP)
        for number, call in enumerate(calls, 1)
    ]
    guard.play(at(0, sent()), at(0, *challenges), at(0.1, *logins))
    happened = guard.play(at(1, sent(nonce=b"n", relayed=True)), at(1.1, failed(nonce=b"n")))
    assert [line.partition(", ")[2] for line in happened.attempts] == [proof]


def test_the_sockets_of_an_office_are_no_relay() -> None:
    """Three phones behind a NAT have a socket each, and a guesser beside them cannot hide by two Vias."""
    guard = Player()
    for number, account in enumerate(("1", "2", "3")):
        guard.play(phones(ATTACKER, account, port=5060 + number))
    happened = guard.play(at(1, sent(nonce=b"n", relayed=True)), at(1.1, failed(nonce=b"n")))
    assert [line.partition(", ")[2] for line in happened.attempts] == ["proven by nonce"]


def test_a_relay_without_a_login_for_two_hours_is_none() -> None:
    """Phones register at least once an hour, so a host without them is a relay no longer."""
    guard = Player()
    guard.play(phones(ATTACKER, "1", "2", "3"))
    happened = guard.play(at(7_200, sent(nonce=b"n", relayed=True)), at(7_200.1, failed(nonce=b"n")))
    assert [line.partition(", ")[2] for line in happened.attempts] == ["proven by nonce"]


@pytest.mark.parametrize(
    ("asker", "attempt"),
    [(ATTACKER, "192.0.2.7 counted, proven by nonce"), (BYSTANDER, None)],
)
def test_a_cut_via_of_chan_sip_above_another(asker: str, attempt: str | None) -> None:
    """chan_sip cuts a long Via; the receiver is proven only if the request came from there.

    A sender may otherwise name any proxy in the world in the Via that is cut.
    """
    guard = Player()
    challenge = sent(ATTACKER, nonce=b"n", sender=None, relayed=True, service=Service.SIP)
    guess = wrong(ATTACKER, nonce=b"n", response=b"r")
    happened = guard.play(at(0, copied(asker)), at(0.1, challenge), at(0.2, guess))
    blamed = [line for line in happened.attempts if line.startswith(ATTACKER)]
    assert blamed == ([attempt] if attempt is not None else [])


def test_a_nonce_that_went_by_tcp_proves_no_datagram() -> None:
    """A nonce sent by TCP proves no datagram, as its segment may begin within a body of another sender."""
    happened = Player().play(
        at(0, sent(nonce=b"n", transport=Transport.TCP)),
        at(0.1, failed(nonce=b"n")),
    )
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


@pytest.mark.parametrize(("age", "proof"), [(47.9, "proven by nonce"), (48.0, "claimed")])
def test_a_nonce_of_pjsip_proves_for_48_seconds(age: float, proof: str) -> None:
    """A nonce proves for 48 s: Asterisk accepts it for 32 s, and closed connections are kept longer."""
    happened = Player().play(at(0, sent(nonce=b"n")), at(age, failed(nonce=b"n")))
    assert happened.attempts == [f"192.0.2.7 counted, {proof}"]


@pytest.mark.parametrize(
    ("lost", "proof"),
    [(-2.1, "proven by nonce"), (-1.9, "claimed"), (1.9, "claimed"), (2.9, "claimed")],
)
def test_a_nonce_before_a_loss_or_soon_after_it_proves_no_address(lost: float, proof: str) -> None:
    """The lost packet may have carried the same nonce to another address."""
    steps = [at(8.0, sent(BYSTANDER, b"other", nonce=b"before")), at(10.0, sent(nonce=b"n"))]
    steps = sorted([*steps, at(10.0 + lost, Loss())], key=lambda step: step.time)
    happened = Player().play(steps, at(13.0, failed(nonce=b"n")))
    assert happened.attempts == [f"192.0.2.7 counted, {proof}"]


@pytest.mark.parametrize(
    ("waiting", "proof"), [(10.5, "claimed"), (12.9, "claimed"), (7.0, "proven by nonce")]
)
def test_a_nonce_proves_no_address_while_packets_wait_unread(waiting: float, proof: str) -> None:
    """A packet that nobody has read yet may carry the same nonce to another address."""
    steps = [at(10.0, sent(nonce=b"n")), at(waiting, Backlog())]
    steps.sort(key=lambda step: step.time)
    happened = Player().play(steps, at(13.0, failed(nonce=b"n")))
    assert happened.attempts == [f"192.0.2.7 counted, {proof}"]


def test_a_loss_before_the_first_nonce_affects_no_later_one() -> None:
    """A loss does not affect later nonces before the first one, as every start of the wire has a loss."""
    happened = Player().play(at(0, Loss()), at(0.5, sent(nonce=b"n")), at(1, failed(nonce=b"n")))
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"]


def test_a_nonce_that_went_by_udp_and_by_tcp_proves_its_receiver() -> None:
    """A nonce that went to the same address by UDP and by TCP proves it."""
    both = [sent(nonce=b"n"), sent(nonce=b"n", transport=Transport.TCP)]
    for first, second in (both, both[::-1]):
        happened = Player().play(at(0, first, second), at(1, failed(nonce=b"n")))
        assert happened.attempts == ["192.0.2.7 counted, proven by nonce"]


def test_the_answer_of_a_session_proves_its_earlier_attempts() -> None:
    """Four probes under one Call-ID are claims until the nonce comes back; the next guess is a full ban."""
    guard = Player()
    claims = guard.play(*(at(n, probed(), challenged()) for n in range(4)))
    assert (claims.counted, claims.bans) == (4, [])
    proven = guard.play(at(4, sent(nonce=b"n"), failed(nonce=b"n")), at(5, probed(), challenged()))
    assert proven.bans == FULL


def test_a_proof_that_the_wire_shows_late_raises_the_attempt() -> None:
    """A proof counts for guesses that AMI reported before the wire showed where their nonces went."""
    guard = Player()
    claims = guard.play(*(at(n, failed(call=b"%d" % n, nonce=b"n%d" % n)) for n in range(4)))
    assert claims.attempts == ["192.0.2.7 counted, claimed"] * 4
    guard.play(at(4, *(sent(call=b"%d" % n, nonce=b"n%d" % n) for n in range(4))))
    assert guard.play(at(5, failed(call=b"4"))).bans == FULL


def test_a_challenge_that_went_elsewhere_proves_no_earlier_guess() -> None:
    """A guess that AMI reports before the wire shows its challenge stays a claim if that went elsewhere."""
    guard = Player()
    calls = [b"%d" % n for n in range(4)]
    guard.play(*(at(n, failed(call=call, nonce=call)) for n, call in enumerate(calls)))
    guard.play(at(4, *(sent(BYSTANDER, call, nonce=call, sender=ATTACKER) for call in calls)))
    assert guard.play(at(5, failed(call=b"4"))).bans == NARROW


def test_the_proof_of_one_session_proves_no_other() -> None:
    """A proof counts for its session alone: a forger of other sessions does not know this Call-ID."""
    guard = Player()
    guard.play(*(at(n, failed(call=b"%d" % n, nonce=b"n%d" % n)) for n in range(4)))
    assert guard.play(at(4, sent(nonce=b"n"), failed(nonce=b"n"))).bans == NARROW


def test_a_session_stays_proven_for_64_seconds() -> None:
    """A session that answered one challenge stays proven for 64 s, and needs a new proof then."""
    guard = Player()
    guard.play(at(0, sent(nonce=b"n"), failed(nonce=b"n")))
    assert guard.play(at(63.9, failed())).attempts == ["192.0.2.7 counted, proven by nonce"]
    assert guard.play(at(128, failed())).attempts == ["192.0.2.7 counted, claimed"]


def test_a_proof_by_nonce_replaces_no_handshake() -> None:
    """An attempt by TLS is proven by its handshake, also in a session that a datagram has proven."""
    guard = Player()
    guard.play(at(0, sent(nonce=b"n"), failed(nonce=b"n")))
    assert guard.play(at(1, by_tls())).attempts == ["192.0.2.7 counted, proven by handshake"]


def test_an_empty_session_is_never_proven() -> None:
    """The proof of an attempt without a Call-ID raises no other, as they share no session."""
    guard = Player()
    guard.play(*(at(n, failed(call=b"", nonce=b"old-%d" % n)) for n in range(3)))
    happened = guard.play(
        at(3, sent(call=b"", nonce=b"n"), failed(call=b"", nonce=b"n")),
        at(4, failed(call=b"", nonce=b"old-4")),
    )
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce", "192.0.2.7 counted, claimed"]
    assert happened.bans == NARROW


def test_a_copied_request_proves_the_sessions_that_it_names() -> None:
    """A nonce that a stranger alone received and sends back proves its hidden attempts, also later ones."""
    guard = Player()
    for index in range(4):
        call = b"%d\xff" % index
        hidden = guard.play(at(index, sent(call=call, nonce=b"n%d" % index, evasive=True)))
        assert (hidden.attempts, hidden.hidden) == (["192.0.2.7 counted, claimed"], [ATTACKER])
        assert guard.play(at(index + 0.1, copied(call=call, nonce=b"n%d" % index))).bans == []
    assert guard.play(at(5, sent(call=b"5\xff", nonce=b"n5", evasive=True))).bans == FULL


@pytest.mark.parametrize("again", [{"receiver": BYSTANDER}, {"relayed": True}, {"sender": BYSTANDER}])
def test_a_copied_nonce_with_other_receivers_proves_no_address(again: dict[str, object]) -> None:
    """A nonce that was also sent elsewhere, forwarded, or requested by another address proves nothing."""
    guard = Player()
    receiver = str(again.pop("receiver", ATTACKER))
    for index in range(5):
        call, nonce = b"%d\xff" % index, b"n%d" % index
        other = sent(receiver, b"other", nonce=nonce, **again)  # type: ignore[arg-type]
        guard.play(at(index, sent(call=call, nonce=nonce, evasive=True), other))
        assert guard.play(at(index + 0.1, copied(call=call, nonce=nonce))).bans == []


def test_a_late_proof_bans_no_address_that_has_become_exempt() -> None:
    """A proof bans no address that became exempt after its claims."""
    for exempt, bans in (((), FULL), (("192.0.2.0/24",), [])):
        guard = Player()
        guard.play(*(at(n, failed(call=b"%d" % n, nonce=b"n%d" % n)) for n in range(4)), at(4, probed()))
        guard.play(at(4.5, Exempt(exempt)))
        late = guard.play(at(5, *(sent(call=b"%d" % n, nonce=b"n%d" % n) for n in range(4))))
        assert late.bans[:1] == bans


def test_a_late_proof_bans_no_address_that_is_banned_already() -> None:
    """A proof that comes during a full ban leads to no second one."""
    guard = Player()
    guard.play(*(at(n, failed(call=b"%d" % n, nonce=b"n%d" % n)) for n in range(4)), at(4, probed()))
    guard.play(at(4.5, Banned("192.0.2.7/32", 600.0)))
    late = guard.play(at(5, *(sent(call=b"%d" % n, nonce=b"n%d" % n) for n in range(4))))
    assert late.bans == []


def by_tls(*, by: str = AMI, tampered: bool = False) -> SecurityEvent:
    """Return a guess by TLS."""
    return failed(transport=Transport.TLS, by=by, tampered=tampered)


@pytest.mark.parametrize("tampered", [False, True])
def test_a_tampered_event_of_tls_proves_nothing_by_itself(*, tampered: bool) -> None:
    """An event outside Asterisk's grammar proves its address only if the kernel knows the connection."""
    proven = "192.0.2.7 counted, proven by handshake"
    alone = Player().play(at(0, by_tls(tampered=tampered)), *ticks(1, 2))
    assert alone.attempts == (["192.0.2.7 unconfirmed, claimed"] if tampered else [proven])
    connected = Player(connected=[(ATTACKER, 5062)]).play(at(0, by_tls(tampered=tampered)))
    assert connected.attempts == [proven]


def test_an_event_that_a_client_of_http_can_forge_proves_nothing() -> None:
    """An event of TLS that may be forged is a claim, and unconfirmed."""
    forgeable = failed(transport=Transport.TLS, forgeable=True)
    happened = Player().play(at(0, forgeable), *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_tampered_answer_proves_no_earlier_attempt() -> None:
    """A nonce in a tampered answer leaves the four probes of its session claims."""
    for tampered, bans in ((False, FULL), (True, NARROW)):
        guard = Player()
        guard.play(*(at(n, probed(), challenged()) for n in range(4)))
        answered = at(4, sent(nonce=b"n"), failed(nonce=b"n", tampered=tampered))
        assert guard.play(answered, at(5, probed(), challenged())).bans == bans


@pytest.mark.parametrize("source", [NOTICE, SECURITY])
def test_a_line_proves_nothing_by_itself(source: str) -> None:
    """A line over TLS is proven only by its connection, because its sender chose the address in it."""
    waits = [at(0, by_tls(by=source)), *ticks(0, 2)]
    assert Player().play(*waits).attempts == ["192.0.2.7 forged, claimed"]
    assert Player(sources=("AMI", "log")).play(*waits).attempts == ["192.0.2.7 unconfirmed, claimed"]
    connected = Player(connected=[(ATTACKER, 5062)]).play(*waits)
    assert connected.attempts == ["192.0.2.7 counted, proven by handshake"]


def test_a_bystander_that_is_challenged_all_day_confirms_no_forged_lines() -> None:
    """It asks chan_sip without credentials, and each forged line about it stays unconfirmed."""
    asks = [
        at(
            index,
            copied(BYSTANDER, b"ask-%d" % index, sequence=1),
            sent(BYSTANDER, b"ask-%d" % index, nonce=b"n%d" % index, service=Service.SIP, sequence=1),
            wrong_by_notice(BYSTANDER),
        )
        for index in range(8)
    ]
    happened = Player().play(*asks, *ticks(9, 12))
    assert (happened.counted, happened.bans) == (0, [])


@pytest.mark.parametrize("earlier", [False, True], ids=["after the challenge", "before the challenge"])
def test_a_question_to_pjsip_confirms_no_forged_line_about_a_password(*, earlier: bool) -> None:
    """The lines have the Call-IDs of a bystander that asks without credentials, and stay unconfirmed."""
    played = []
    for index in range(8):
        call = b"ask-%d" % index
        line = failed(BYSTANDER, call, by=NOTICE, transport=Transport.UNKNOWN)
        answered = sent(BYSTANDER, call, nonce=b"n%d" % index, sequence=1)
        order = (line, answered) if earlier else (answered, line)
        played.append(at(index, copied(BYSTANDER, call, sequence=1), *order))
    happened = Player().play(*played, *ticks(9, 12))
    assert (happened.counted, happened.bans) == (0, [])


def test_a_question_in_parts_may_have_a_password() -> None:
    """Of a fragmented request nothing is known, so its challenge confirms the line about its password."""
    asked = evolve(copied(sequence=1), unread=True)
    line = failed(by=NOTICE, transport=Transport.UNKNOWN)
    happened = Player().play(at(0, asked, sent(nonce=b"n", sequence=1), line), *ticks(1, 3))
    assert happened.counted == 1


# -- chan_sip, whose events name whatever address a Via header says --------------------------------------


def of_chan_sip(nonce: bytes, receiver: str = ATTACKER, sender: str | None = ATTACKER) -> Step:
    """Return chan_sip's challenge with ``nonce``, which ``sender`` asked for."""
    return at(0, sent(receiver, nonce=nonce, sender=sender, service=Service.SIP))


def returned() -> Step:
    """Return the guess that sends the nonce back, as chan_sip reports it for the attacker."""
    return at(0.1, wrong(nonce=b"n", response=b"r"))


def settled(*steps: Step) -> Happened:
    """Return what follows if a guard plays the steps and waits for all confirmations."""
    return Player().play(*steps, *ticks(1, 3))


def test_a_returned_nonce_of_chan_sip_proves_its_requester() -> None:
    """A random nonce that came back from the address that asked for it proves that address."""
    assert settled(of_chan_sip(b"n"), returned()).attempts == ["192.0.2.7 counted, proven by nonce"]


@pytest.mark.parametrize(
    "others",
    [
        [of_chan_sip(b"n", receiver=BYSTANDER, sender=BYSTANDER)],
        [of_chan_sip(b"n", receiver=BYSTANDER), of_chan_sip(b"n", receiver=BYSTANDER, sender=BYSTANDER)],
    ],
    ids=["each asked for its own", "one asked for both"],
)
def test_a_nonce_of_chan_sip_with_several_receivers_names_no_address(others: list[Step]) -> None:
    """A guess whose nonce two addresses received or requested is listed and bans nothing."""
    happened = settled(of_chan_sip(b"n"), *others, returned())
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_challenge_of_chan_sip_sent_to_a_bystander_counts_for_its_requester() -> None:
    """An event that names a bystander is a claim of the address that asked, which the wire knows."""
    happened = settled(
        of_chan_sip(b"n", receiver=BYSTANDER),
        at(0.1, wrong(BYSTANDER, nonce=b"n", response=b"r")),
    )
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


def test_an_unknown_sender_of_a_nonce_is_its_receiver() -> None:
    """A nonce that came back proves its receiver if the wire does not know the sender.

    chan_sip cuts a long Via, and then the sender is unknown.
    """
    happened = settled(of_chan_sip(b"n", sender=None), returned())
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"]


def test_the_nonce_that_chan_sip_has_just_sent_is_a_claim() -> None:
    """An event with the next challenge shows the address that asked, and does not prove that it answered."""
    for response in (b"", b"r"):
        happened = settled(
            of_chan_sip(b"n"),
            at(0.1, failed(service=Service.SIP, nonce=b"n", response=response)),
        )
        assert happened.attempts == ["192.0.2.7 counted, claimed"]


def test_a_nonce_of_chan_sip_that_also_went_by_tls_is_a_claim() -> None:
    """A nonce that also went by TLS, which the wire cannot read, may be answered from another address."""
    by_tls = challenged(service=Service.SIP, transport=Transport.TLS, nonce=b"n")
    happened = settled(at(0, by_tls), of_chan_sip(b"n"), returned())
    assert happened.attempts == ["192.0.2.7 counted, claimed"]


@pytest.mark.parametrize(
    ("age", "standing"), [(599.9, "counted, proven by nonce"), (600.0, "unconfirmed, claimed")]
)
def test_a_nonce_of_chan_sip_is_known_for_ten_minutes(age: float, standing: str) -> None:
    """A nonce of chan_sip is kept for ten minutes, as it lives as long as the guesser's dialogue."""
    guess = at(age, wrong(nonce=b"n", response=b"r"))
    happened = Player().play(of_chan_sip(b"n"), guess, *ticks(age + 1, age + 2))
    assert happened.attempts == [f"192.0.2.7 {standing}"]


def test_a_later_nonce_of_chan_sip_replaces_no_earlier_one() -> None:
    """A nonce that comes back after 100 s proves its address, also if another one was sent meanwhile."""
    later = at(100, sent(call=b"call-2", nonce=b"m", service=Service.SIP))
    guess = at(101, wrong(nonce=b"n", response=b"r"))
    happened = Player().play(of_chan_sip(b"n"), later, guess, *ticks(102, 104))
    assert happened.attempts == ["192.0.2.7 counted, proven by nonce"]


def test_an_event_of_chan_sip_under_a_bystanders_address_is_an_alarm_about_its_sender() -> None:
    """A notice names the sender, and the event of the same guess a bystander, which the alarm reports."""
    happened = settled(
        of_chan_sip(b"n", receiver=BYSTANDER),
        at(0.1, wrong_by_notice(), wrong(BYSTANDER, nonce=b"n", response=b"r")),
    )
    assert (happened.counted_addresses, happened.alarms) == ([ATTACKER], ["evidence.forged_by of 192.0.2.7"])


def test_each_answer_of_chan_sip_confirms_one_line() -> None:
    """A forger of lines gains nothing beyond the answers that really went to that address."""
    answers = [sent(call=b"%d" % n, nonce=b"%d" % n, service=Service.SIP) for n in range(2)]
    happened = settled(at(0, *answers), at(0.1, *[wrong_by_notice()] * 4))
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 2 + ["192.0.2.7 unconfirmed, claimed"] * 2


def test_a_repeated_answer_of_chan_sip_confirms_no_further_line() -> None:
    """Asterisk repeats an answer to INVITE until the ACK, and a forger of lines gains nothing by it."""
    answer = sent(nonce=b"n", service=Service.SIP, sequence=2)
    happened = settled(at(0, copied(nonce=b"m"), *[answer] * 3), at(0.1, *[wrong_by_notice()] * 4))
    assert happened.attempts == ["192.0.2.7 counted, claimed"] * 2 + ["192.0.2.7 unconfirmed, claimed"] * 2


@pytest.mark.parametrize(("age", "standing"), [(9.9, "counted"), (10.0, "unconfirmed")])
def test_an_answer_of_chan_sip_confirms_a_line_for_ten_seconds(age: float, standing: str) -> None:
    """An answer confirms a line for ten seconds; the latest line that was seen came 3 s late."""
    answer = at(0, sent(nonce=b"n", service=Service.SIP))
    happened = Player().play(answer, at(age, wrong_by_notice()), *ticks(age + 1, age + 2))
    assert happened.attempts == [f"192.0.2.7 {standing}, claimed"]


def test_a_line_of_chan_sip_is_a_claim_without_the_wire() -> None:
    """Without the wire a line of chan_sip is a claim, and an event of AMI only another report of it."""
    for named, others in ((ATTACKER, []), (BYSTANDER, ["203.0.113.9 unconfirmed, claimed"])):
        guard = Player(sources=("AMI", "log"))
        happened = guard.play(at(0, wrong(named), wrong_by_notice()), *ticks(1, 3))
        assert happened.attempts == ["192.0.2.7 counted, claimed", *others]


def test_an_event_and_a_line_of_chan_sip_that_agree_need_an_answer_on_the_wire() -> None:
    """The wire sees each answer of chan_sip, so an event and a line without one are unconfirmed."""
    assert settled(at(0, wrong(), wrong_by_notice())).attempts == ["192.0.2.7 unconfirmed, claimed"]


@pytest.mark.parametrize("status", [401, 404])
def test_a_line_of_chan_sip_needs_an_answer_of_its_own_kind(status: int) -> None:
    """A 404 confirms a call to an unknown extension, and a challenge or a 403 confirms a guess."""
    answer = at(0, sent(nonce=b"n", service=Service.SIP, status=status))
    guess = Player().play(answer, at(0.1, wrong_by_notice()), *ticks(1, 3))
    call = Player().play(answer, at(0.1, misdialled_by_notice()), *ticks(1, 3))
    assert (guess.counted, call.counted) == ((1, 0) if status == 401 else (0, 1))


def test_an_answer_by_tcp_confirms_no_line() -> None:
    """An answer by TCP confirms no line, as it may begin within another sender's body.

    The kernel knows the connection.
    """
    answer = sent(nonce=b"n", service=Service.SIP, transport=Transport.TCP)
    happened = Player().play(at(0, answer), at(0.1, wrong_by_notice()), *ticks(1, 3))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_with_ami_alone_an_event_of_chan_sip_is_unconfirmed_at_once() -> None:
    """With AMI alone an event of chan_sip is unconfirmed at once, as no other source is read."""
    happened = Player(sources=("AMI",)).play(at(0, wrong()))
    assert happened.attempts == ["192.0.2.7 unconfirmed, claimed"]


def test_a_guess_with_a_nonce_that_went_elsewhere_counts_against_no_receiver() -> None:
    """The guess is a claim about the address that the event names, and an alarm; never the receiver's."""
    happened = Player().play(
        at(0, probed(), sent(BYSTANDER, nonce=b"n", sender=ATTACKER)),
        at(0.1, failed(nonce=b"n")),
    )
    assert (happened.counted_addresses, happened.alarms) == ([ATTACKER], ["evidence.unprovable of 192.0.2.7"])


def test_a_line_with_a_nonce_of_another_address_does_not_count_for_it() -> None:
    """A line with another address's nonce does not count for that address, as its sender chose the text."""
    happened = Player().play(
        at(0, probed(), sent(BYSTANDER, nonce=b"n", sender=ATTACKER)),
        at(0.1, failed(by=SECURITY, nonce=b"n")),
        *ticks(1, 3),
    )
    assert happened.counted_addresses == [ATTACKER]


def test_a_line_of_chan_sip_first_and_its_nonce_later_is_one_proven_attempt() -> None:
    """An attempt has the best proof that any source gives, whichever source reports last."""
    steps = []
    for index in range(5):
        nonce = b"n%d" % index
        steps.append(at(index, sent(nonce=nonce, service=Service.SIP), wrong_by_notice()))
        steps.append(at(index + 0.1, wrong(call=nonce, nonce=nonce, response=b"r")))
    happened = Player().play(*steps)
    assert (happened.counted, happened.bans[-1:]) == (5, FULL)


def test_the_kind_that_no_table_knows_is_no_attempt() -> None:
    """Events of limits and of bad formats are no part of an attempt."""
    for kind in (EventKind.SESSION_LIMIT, EventKind.REQUEST_BAD_FORMAT, EventKind.UNEXPECTED_ADDRESS):
        assert Player().play(at(0, failed()), at(1, evolved(kind))).counted == 1


def evolved(kind: EventKind) -> SecurityEvent:
    """Return an event of ``kind`` in the attacker's session."""
    event = failed()
    return SecurityEvent(event.source, kind, event.service, event.remote, 0.0, "204", event.session)
