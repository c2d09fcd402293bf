"""The findings of the conversation: those that are put back, and why nothing can be put back of others."""

from tests.judge.faults_of_guesses import FAULTS_OF_GUESSES
from tests.judge.faults_of_sites import FAULTS_OF_SITES

FAULTS = (*FAULTS_OF_GUESSES, *FAULTS_OF_SITES)
"""The findings by their letters; a number follows where one letter has several."""

NOTHING_TO_PUT_BACK = {
    "u: an old EventTV": "No event switches the detection off any more. Challenges without an event are not "
    "searched: the wire shows the guess.",
    "u: nginx before WSS": "What proves a client depends only on the sockets of Kamailio or OpenSIPS. "
    "The judge has no proxy: tests/detect/test_proxies.py tests this.",
    "v": "ringfence sees no look-up of Asterisk. `ringfence check` reports the name of the host that no file "
    "knows: tests/features/audit has its test.",
}
"""Findings whose mechanism was deleted, or was never in the code that the judge drives, with the reason."""
