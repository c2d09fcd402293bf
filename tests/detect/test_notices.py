"""Notices of what many do at once."""

from ringfence.detect.notices import siege, siege_over, spoofing


def test_a_siege_and_its_end_are_of_one_subject() -> None:
    """So that the one takes back the other; hostile text is shown as it may be."""
    began, over = siege("pbx", "2\x1b4"), siege_over("pbx", "2\x1b4")
    assert (began.name, began.subject) == (over.name, over.subject)
    assert (began.over, over.over) == (False, True)
    assert "\x1b" not in began.subject + began.text


def test_spoofing_says_how_many_are_too_many() -> None:
    """The number is that of the configuration."""
    assert " 600 " in spoofing(600).text
