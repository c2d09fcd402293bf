"""Why attempts do not count, or count as claims."""

from attrs import evolve
from tests.explain.world import known, proven, story
from tests.support.attempts import attempts

from ringfence.explain.as_json import remarks
from ringfence.values.attempt import Proof
from ringfence.values.event import EventKind

_LOG = ("log:/var/log/ringfence/ringfence#notice",)


def test_ordinary_attempts_need_no_remark() -> None:
    """Attempts that count in full, or none, give no sentence."""
    assert remarks(known(story=story(made=proven(3)))) == []
    assert remarks(known(story=None)) == []


def test_attempts_that_only_the_log_names_do_not_count() -> None:
    """The sentence has the number of attempts, and the reason why they are unconfirmed."""
    one, *others = attempts(3)
    listed = tuple(evolve(attempt, trusted=False, sources=_LOG) for attempt in others)

    [all_of_them] = remarks(known(story=story(made=listed)))
    assert all_of_them.startswith("no attempt counts: only the log names this address")
    assert all_of_them.endswith("neither AMI nor the wire nor a TCP connection confirms it")
    [two] = remarks(known(story=story(made=(one, *listed))))
    assert two.startswith("2 of 3 attempts do not count: only the log names")
    [single] = remarks(known(story=story(made=(one, listed[0]))))
    assert single.startswith("1 of 2 attempts does not count: ")


def test_attempts_without_credentials_name_the_fix() -> None:
    """The sentence explains how the administrator ends short bans of a carrier that is not known yet."""
    bare = tuple(evolve(one, credentials=False) for one in attempts(2))

    [sentence] = remarks(known(story=story(made=(*bare, *proven(1)))))
    assert sentence.startswith(
        "2 of 3 attempts had no credentials, so a short ban of their transport follows"
    )
    assert "add its address to an identify in pjsip.conf" in sentence


def test_attempts_of_a_web_page_are_named() -> None:
    """The sentence explains that the user of a browser may not know what its page does."""
    pages = tuple(evolve(one, page=True) for one in attempts(2))

    [sentence] = remarks(known(story=story(made=(*pages, *proven(1)))))
    assert sentence.startswith("2 of 3 attempts came from a browser, by WebSocket")


def test_hidden_attempts_of_a_suspect_await_their_proof() -> None:
    """The sentence explains how the address can still be proven; proven attempts have no sentence."""
    [hidden] = (evolve(one, event=EventKind.HIDDEN, proof=Proof.CLAIMED) for one in attempts(1))

    [sentence] = remarks(known(story=story(made=(hidden, *proven(1)))))
    assert sentence.startswith("1 of 2 attempts are missing in Asterisk's events")
    assert remarks(known(story=story(made=(evolve(hidden, proof=Proof.NONCE),)))) == []
