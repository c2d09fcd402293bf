"""Alarms about what many senders do at the same time."""

from ringfence.detect.judgement import distributed, distributed_cleared, spoofing


def test_a_distributed_attack_and_its_end_are_of_one_subject() -> None:
    """The clearing alarm has the subject of the first one, and hostile text is shown escaped."""
    began, over = distributed("pbx", "2\x1b4"), distributed_cleared("pbx", "2\x1b4")
    assert (began.code, began.subject) == (over.code, over.subject)
    assert (began.cleared, over.cleared) == (False, True)
    assert "\x1b" not in began.subject + began.text


def test_spoofing_names_the_configured_number() -> None:
    """The alarm names the number of the configuration."""
    assert " 600 " in spoofing(600).text
