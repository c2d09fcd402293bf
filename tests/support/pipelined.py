"""Guesses that one stranger sends at once, with the right password at a known place among them.

A guesser needs no answer: if the right guess was checked, its contact is registered. So the place of the
right password shows how many guesses Asterisk checked.
"""

import re
import time
from collections.abc import Sequence

from attrs import evolve
from tests.support.asterisk_files import PASSWORD
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_raw import calling, request_of

ACCOUNT = b"alice"
_CHECKED = re.compile(r'SecurityEvent="(?:InvalidPassword|ChallengeResponseFailed)".*')


def guess_at_once(lab: Lab, source: str, transport: str, number: int, places: Sequence[int]) -> None:
    """Get a nonce, wait until the kernel has forgotten that, and send ``number`` guesses with it at once.

    The guesses at ``places`` have the right password. Each has a contact of its own (``guess7``).
    """
    request = request_of(b"REGISTER", ACCOUNT)
    host = "fd00:18::1" if ":" in source else PBX_IPV4
    with calling(lab, source, transport, host=host) as caller:
        challenge = caller.challenged(request, 5.0)
        assert challenge is not None
        time.sleep(4.0)
        for place in range(1, number + 1):
            password = PASSWORD if place in places else f"wrong-{place}"
            guess = evolve(request, contact=b"guess%d" % place, call_id=b"{}-%d" % place)
            caller.send(guess.answering(challenge, password))
        time.sleep(2.0)


def registered(lab: Lab) -> list[str]:
    """Return the guesses that are registered now (``guess7``)."""
    return re.findall(r"guess\d+", lab.asterisk.cli("pjsip show contacts"))


def checked(lab: Lab, source: str) -> int:
    """Return how many wrong guesses of ``source`` Asterisk has checked, as its log has them."""
    text = (lab.asterisk.logs / "ringfence").read_bytes().decode("utf-8", "replace")
    return sum(f"/{source}/" in line for line in _CHECKED.findall(text))
