"""The report of a week as a mail."""

from tests.features.notify.samples import HOSTILE, report_content

from ringfence.features.notify.mail import compose_report, page_of


def test_the_text_is_that_of_the_command() -> None:
    """A title with the name of the host, and the lines of the report."""
    message = compose_report(report_content(), "pbx1")

    assert message.title == "[ringfence pbx1] report of 7 days"
    assert "\nAccounts with the most attempts\nACCOUNT  ATTEMPTS  NOTE\nalice           6\n" in message.body


def test_earlier_messages_that_were_dropped_are_mentioned() -> None:
    """A report after a failure mentions what could not be sent, as other messages do."""
    content = report_content() | {"dropped": {"messages": 1, "events": 7}}

    assert compose_report(content, "h").body.endswith(
        "\n1 earlier message with 7 events could not be sent.\n"
    )


def test_long_lines_are_wrapped() -> None:
    """Alarms can be long, also without a blank: a mail has lines of at most 80 characters."""
    for name in HOSTILE:
        body = compose_report(report_content(name), "h").body
        assert max(map(len, body.split("\n"))) <= 80


def test_the_page() -> None:
    """The page is that of ``ringfence report --html``."""
    page = page_of(report_content())

    assert page is not None
    assert page.startswith("<!doctype html>")


def test_no_text_from_outside_is_a_link() -> None:
    """Neither the text nor the page has a link that a sender or an operator wrote."""
    content = report_content("evil.com/login")

    for text in (compose_report(content, "h").body, page_of(content)):
        assert "evil.com" not in text
        assert r"evil\x2ecom/login" in text
