"""Messages that were cut within the sender's text: the address before the cut may be the sender's own."""

import pytest
from attrs import evolve
from tests.parse.corpus import SOURCE
from tests.support.asterisk_files import PASSWORD, Kind
from tests.support.captures import FORGED
from tests.support.daemon import until
from tests.support.lab import Lab
from tests.support.sip_raw import Raw, calling

from ringfence.parse.log import LogReader
from ringfence.parse.log_messages import LOG_CUT, LONG_MESSAGE
from ringfence.values.event import SecurityEvent

NOW = 1795154722.0
P = b"[2026-11-20 06:05:22] "
TO_END = b"' failed for '203.0.113.9:5060' - Wrong password"
CALL_ID_END = b'",LocalAddress="IPV4/UDP/198.18.0.1/5060",RemoteAddress="IPV4/UDP/203.0.113.9/5060",'
CALL_ID_END += b'UsingPassword="1"'
REGISTRATION = b"NOTICE[1] chan_sip.c: Registration from '<sip:204@h>;x="
LOGIN = (
    b'SECURITY[1] res_security_log.c: SecurityEvent="SuccessfulAuth",EventTV="2026-11-20T06:05:22.000+0000",'
    b'Severity="Informational",Service="PJSIP",EventVersion="1",AccountID="204",SessionID="'
)
FORGERIES = [(P + REGISTRATION, TO_END), (P + LOGIN, CALL_ID_END)]
NEXT = P + b"NOTICE[1] manager.c: 192.0.2.7 failed to authenticate as 'x'\n"
OTHER_FILE = P + b"NOTICE[1] loader.c: 230 modules will be loaded.\n"
NOT_FOUND = b"' rejected because extension not found in context 'c'."
OPENED = P + b"Asterisk 22.1 built by nobody @ b on a x86_64 running Linux on 2026-07-20 21:35:32 UTC\n"


def events(*parts: bytes) -> list[SecurityEvent]:
    """Return the events of a log that consists of these parts."""
    reader = LogReader(SOURCE)
    results = [result for part in parts for result in reader.receive(part, NOW)] + reader.end(NOW)
    return [result.event for result in results if result.event is not None]


def forged(found: list[SecurityEvent]) -> list[SecurityEvent]:
    """Return the events that name the victim and count without a confirmation, or as a login."""
    named = [event for event in found if event.remote.address == FORGED]
    return [event for event in named if not event.forgeable or event.password]


def filled(head: bytes, end: bytes, size: int = LOG_CUT) -> bytes:
    """Return a line of ``size`` bytes that a sender's text ends."""
    return head + b"x" * (size - len(head) - len(end)) + end


@pytest.mark.parametrize(("head", "end"), FORGERIES)
def test_a_cut_message_does_not_count_for_the_address_at_its_end(head: bytes, end: bytes) -> None:
    """It is forgeable, however the cut shows: at 8191 bytes, or at the end of the log without a LF."""
    own_prefix = head.index(b".c: ") + len(b".c: ")
    for cut, behind in ((LOG_CUT, NEXT), (own_prefix + LOG_CUT, NEXT), (LOG_CUT, b""), (200, b"")):
        found = events(filled(head, end, max(cut, len(head + end))) + behind)
        assert [event.remote.address == FORGED for event in found] == [True, False][: 1 + bool(behind)]
        assert forged(found) == []
    assert [event.forgeable for event in events(filled(head, end, LOG_CUT) + NEXT)] == [True, False]


@pytest.mark.parametrize(("head", "end"), FORGERIES)
@pytest.mark.parametrize(
    "behind",
    [
        NEXT,
        OTHER_FILE,
        OPENED,
        P + b"WARNING[1] chan_iax2.c: Host 192.0.2.7 failed to authenticate as " + TO_END + b"\n",
        P + b"\x1b[1;33mWARNING\x1b[0m[1]: \x1b[1;37ma.c\x1b[0m:1 f: a" + TO_END + b"\n",
    ],
)
def test_a_message_that_lost_its_line_feed_does_not_count(head: bytes, end: bytes, behind: bytes) -> None:
    """An ESC hides the text before the cut, so the message is short. Another one follows on its line."""
    assert forged(events(head + end + behind + NEXT)) == []


def test_a_sender_cannot_begin_a_message_where_asterisk_would_cut() -> None:
    """A line with a short cut message is not split at a prefix that the next message's sender wrote."""
    own = P + b"NOTICE[1] manager.c: 203.0.113.9 failed to authenticate as '"
    line = (P + REGISTRATION + P + REGISTRATION).ljust(LOG_CUT, b"x") + own
    assert forged(events(line + b"' failed for '192.0.2.7:5060' - Wrong password\n")) == []


@pytest.mark.parametrize(
    "added",
    [b"Nov 20 06:05:22 pbx asterisk[9]: ", b"2026-11-20T06:05:22.365000+00:00 pbx asterisk[9]: ", b""],
)
@pytest.mark.parametrize(("head", "end"), FORGERIES)
def test_an_address_after_text_in_a_syslog_is_forgeable(added: bytes, head: bytes, end: bytes) -> None:
    """A syslog ends each line, also one that Asterisk or the daemon cut, so nothing shows a cut."""
    line = head.removeprefix(P).replace(b"] ", b"]: ").replace(b".c: ", b".c:114 in f: ") + end + b"\n"
    found = events(added + line)
    assert [(event.remote.address, event.forgeable, event.password) for event in found] == [
        (FORGED, True, False)
    ]


@pytest.mark.parametrize(
    "message",
    [
        b"NOTICE[1]: manager.c:1 in f: 192.0.2.7 failed to authenticate as '%s'",
        b"NOTICE[1]: chan_sip.c:1 in f: Call from '' (192.0.2.7:5060) to extension '%s" + NOT_FOUND,
        b"NOTICE[1]: acl.c:1 in f: SIP Peer ACL: Rejecting '192.0.2.7' due to a failure to pass ACL '%s'",
    ],
)
def test_an_address_before_the_text_is_true_in_every_log(message: bytes) -> None:
    """Nobody can write an address in front of it."""
    assert [event.forgeable for event in events(message % b"" + b"\n")] == [False]
    assert [event.forgeable for event in events(message % b"] NOTICE[1] x.c: " + b"\n")] == [False]


@pytest.mark.parametrize(("size", "forgeable"), [(LONG_MESSAGE - 1, False), (LONG_MESSAGE, True)])
def test_a_message_that_is_as_long_as_a_cut_one_is_forgeable(size: int, *, forgeable: bool) -> None:
    """So is one that another program may have cut; every honest one is shorter."""
    for head, end in FORGERIES:
        text = head.index(b".c: ") + len(b".c: ")
        (event,) = events(filled(head, end, text + size) + b"\n")
        assert (event.forgeable, event.password) == (forgeable, not forgeable and head.endswith(LOGIN))


def test_the_length_of_a_message_is_that_of_all_its_lines() -> None:
    """An account with a LF continues the message on a line without a prefix; so does its end without a LF."""
    line = P + LOGIN.replace(b'AccountID="204"', b'AccountID="20\n4"').replace(b'"PJSIP"', b'"SIP"')
    whole = line + b"x" + CALL_ID_END
    for text in (line + b"x" * LONG_MESSAGE + CALL_ID_END + b"\n", whole):
        (event,) = events(text)
        assert (event.forgeable, event.password) == (True, False)
    (event,) = events(whole + b"\n")
    assert (event.forgeable, event.tampered) == (False, True)


@pytest.mark.asterisk
@pytest.mark.parametrize("escaped", [False, True])
def test_a_real_asterisk_names_no_victim_by_a_cut_message(each_asterisk: Lab, *, escaped: bool) -> None:
    """A To (chan_sip) or Call-ID (PJSIP) of 10 KB has a victim's address where Asterisk cuts the message."""
    log = each_asterisk.asterisk.logs / "ringfence"
    if each_asterisk.asterisk.kind is Kind.CHAN_SIP:
        request, password = Raw(from_user=b"carol", contact=b"carol", to_tail=b";x=HERE"), "wrong"
        message, end = b"Registration from ", TO_END
    else:
        request, password = Raw(call_id=b"HERE"), PASSWORD
        message, end = b'"SuccessfulAuth"', CALL_ID_END

    with calling(each_asterisk, "198.18.1.77") as caller:

        def written(text: bytes, shown: bytes) -> bytes:
            """Return what Asterisk logs about a request with ``text``, up to the message with ``shown``."""
            before = log.stat().st_size
            values = {name: getattr(request, name).replace(b"HERE", text) for name in ("to_tail", "call_id")}
            assert caller.guess(evolve(request, **values), password)
            until(lambda: shown in log.read_bytes()[before:].partition(message)[2], "the message")
            return log.read_bytes()[before:]

        short = written(b"HERE", b"HERE")
        line = next(line for line in short.split(b"\n") if message in line)
        left = LOG_CUT - line.index(b"HERE") - len(end)
        before = b"\x1b" + b"x" * (left - 2) + b"m" if escaped else b"x" * left
        cut = written(before + end + b"x" * 2_000, end)
    each_asterisk.asterisk.forget_phones()
    assert b"x" * 2_000 not in cut.rpartition(end)[2]
    assert forged(events(cut)) == []
