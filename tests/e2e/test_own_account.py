"""A friend is one by its own account: guesses at others end soon, and forged packets take nothing from it.

The right password of the account that is tried stands at ``RIGHT`` among the wrong ones, as in an attack: if
it were checked, the account would be registered.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.e2e.test_uncounted import HIDDEN, friend_at
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_LOGS, guarded
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_raw import OTHER_REALM, OWN_CHALLENGE, Caller, Digest, Raw, calling, udp_socket

from ringfence.detect.new_friends import MOST_AN_HOUR

pytestmark = pytest.mark.asterisk

LIMIT, UNDER_WAY = 20, 10
"""A friend's guesses in a minute, and how many more a busy machine may check until the ban."""
RIGHT = 40
MANY = 80
PAUSE = 0.1


def tries(caller: Caller, guard: Guard, account: bytes, number: int, call_id: bytes = b"{}") -> int:
    """Guess at an account one after the other; return how many were answered until a ban silences the sender.

    A silence before any ban is that of a busy Asterisk, and ends nothing.
    """
    answered = 0
    for guess in range(1, number + 1):
        password = PASSWORD if guess == RIGHT else f"wrong-{guess}"
        if caller.guess(Raw(from_user=account, call_id=call_id), password, 1.0) in {200, 401}:
            answered += 1
        elif guard.banned():
            break
        time.sleep(PAUSE)
        guard.take_turn()
    return answered


def log_in(caller: Caller, guard: Guard, account: bytes, address: str) -> None:
    """Log in, and wait until the address is a friend."""
    assert caller.guess(Raw(from_user=account), PASSWORD) == 200
    until(lambda: address in guard.friends(), "the friend")


@pytest.mark.parametrize(
    ("transport", "call_id", "host"),
    [
        ("UDP", b"{}", 1),
        ("TCP", HIDDEN, 2),
        ("TLS", HIDDEN, 3),
        pytest.param("UDP", HIDDEN, 4, marks=pytest.mark.long),
        pytest.param("WS", HIDDEN, 5, marks=pytest.mark.long),
    ],
)
def test_a_friend_guesses_twenty_times_at_another_account(
    open22: Lab, tmp_path: Path, transport: str, call_id: bytes, host: int
) -> None:
    """It logs in with its own account, then guesses at another one: SIP by that transport is banned.

    If more guesses were under way, because the machine is busy, those of a stranger follow: all of SIP is.
    """
    source = f"198.19.80.{host}"
    with guarded(open22, tmp_path, logs=NO_LOGS) as guard, calling(open22, source, transport) as caller:
        log_in(caller, guard, b"phone5", source)
        checked = tries(caller, guard, b"phone6", MANY, call_id)
        until(lambda: source in guard.banned(), "the ban")
        [ban] = guard.bans()
        until(lambda: {"friend.banned", "friend.guessing"} <= guard.alarm_codes(), "the alarms")
    print("checked", checked)
    assert checked <= LIMIT + UNDER_WAY
    assert ban["scope"] in {"sip-udp" if transport == "UDP" else "sip-tcp", "sip"}


def test_wrong_passwords_of_its_own_account_hide_no_guess(open22: Lab, tmp_path: Path) -> None:
    """AMI reports those, by TLS, and is silent about the guesses, which have the same Call-ID, by TCP."""
    source, checked = "198.19.80.6", 0
    own = Raw(from_user=b"phone5", call_id=b"one")
    before = OTHER_REALM.replace(b"alice", b"phone6")
    silent = Raw(from_user=b"phone6", call_id=b"one", digest=Digest(before=before))
    with (
        guarded(open22, tmp_path, logs=NO_LOGS) as guard,
        calling(open22, source, "TLS") as phone,
        calling(open22, source, "TCP") as caller,
    ):
        log_in(phone, guard, b"phone5", source)
        for number in range(MANY):
            phone.guess(own, f"wrong-{number}", 1.0)
            if caller.guess(silent, f"wrong-{number}", 1.0) == 401:
                checked += 1
            elif guard.banned():  # a silence before any ban is that of a busy Asterisk
                break
            time.sleep(PAUSE)
            guard.take_turn()
        until(lambda: source in guard.banned(), "the ban")
    print("checked", checked)
    assert checked <= LIMIT + UNDER_WAY


def test_one_account_at_five_addresses_guesses_few_times_in_all(open22: Lab, tmp_path: Path) -> None:
    """After the ban of the first address, the others are no friends, and are banned at their first guess.

    If some guess more often until then, because the machine is busy, their whole network may be banned.
    """
    checked = 0
    with guarded(open22, tmp_path) as guard:
        for host in range(11, 16):
            source = f"198.19.80.{host}"
            with calling(open22, source, "TCP") as caller:
                status = caller.guess(Raw(from_user=b"phone5"), PASSWORD, 10.0)
                if not status and any(ip_address(source) in ip_network(one) for one in guard.banned()):
                    break
                assert status == 200
                if host == 11:
                    until(lambda source=source: source in guard.friends(), "the friend")  # type: ignore[misc]
                checked += tries(caller, guard, b"phone6", 29)
        assert not {one for one in guard.friends() if one.startswith("198.19.80.")}
    print("checked", checked)
    assert checked <= LIMIT + 4 + UNDER_WAY


def test_a_restart_gives_an_account_no_more_friends(open22: Lab, tmp_path: Path) -> None:
    """Eight new addresses an hour are friends; after a restart a ninth one is still none."""
    sources = [f"198.19.81.{host}" for host in range(1, MOST_AN_HOUR + 2)]
    with guarded(open22, tmp_path) as guard:
        for source in sources[:-1]:
            with calling(open22, source, "TCP") as caller:
                log_in(caller, guard, b"phone7", source)
        guard.stop()
        guard.start()
        until(lambda: guard.source_is("listening"), "all sources")
        with calling(open22, sources[-1], "TCP") as caller:
            assert caller.guess(Raw(from_user=b"phone7"), PASSWORD, 10.0) == 200
        until(lambda: "friend.too_many" in guard.alarm_codes(), "the alarm")
        assert sources[-1] not in guard.friends()


@pytest.mark.parametrize(("transport", "host"), [("UDP", 31), ("TLS", 32)])
def test_a_login_that_asterisk_refuses_makes_no_friend(
    open22: Lab, tmp_path: Path, transport: str, host: int
) -> None:
    """The password is right, and the account has no such AOR; then it registers, and is a friend."""
    source = f"198.19.80.{host}"
    with guarded(open22, tmp_path, logs=NO_LOGS) as guard, calling(open22, source, transport) as caller:
        statuses = [caller.guess(Raw(from_user=b"phone5", to_user=b"nobody"), PASSWORD) for _ in range(3)]
        print("statuses", statuses)
        assert set(statuses) <= {403, 404}
        time.sleep(1.0)
        assert source not in guard.friends()
        log_in(caller, guard, b"phone5", source)


@contextmanager
def flooding(lab: Lab, address: str, rate: int) -> Iterator[None]:
    """Send datagrams of one byte with this source address, so many a second, until the block ends."""
    over = threading.Event()

    def send() -> None:
        with udp_socket(lab, address) as flood:
            while not over.is_set():
                for _ in range(rate // 100):
                    flood.sendto(b"x", (PBX_IPV4, 5060))
                time.sleep(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_forged_packets_take_no_registration_from_a_friend(open22: Lab, tmp_path: Path) -> None:
    """Six forged guesses name the friend, which nothing can prove; then 3 000 datagrams a second do."""
    source = "198.19.80.21"
    firewall = {"backend": "ipset", "limit": {"mode": "enforce"}, "ration": {"mode": "enforce"}}
    with (
        guarded(open22, tmp_path, firewall=firewall) as guard,
        friend_at(open22, guard, source, "phone8") as phone,
    ):
        with calling(open22, source) as forger:
            for number in range(6):
                made_up = OWN_CHALLENGE
                request = Raw(from_user=b"phone9").named(f"forged-{number}").answering(made_up, "wrong")
                assert forger.ask(request) is not None
        until(lambda: "evidence.unprovable" in guard.alarm_codes(), "the alarm")
        time.sleep(1.0)  # the lists in the kernel are written
        with flooding(open22, source, 3_000):
            statuses = [phone.register(expires=600) for _ in range(9)]
        assert statuses == [200] * 9
        assert guard.banned() == set()
