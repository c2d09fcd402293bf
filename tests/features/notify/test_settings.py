"""``[notify]``: the channels, their defaults, and every problem with its key."""

import tomllib
from pathlib import Path

import pytest

from ringfence.config.loader import parse
from ringfence.detect.rules import FEATURE_RULES
from ringfence.errors import ConfigError
from ringfence.features.account.guard import BLOCK
from ringfence.features.bare_address.guard import BARE
from ringfence.features.notify.settings import MailSecurity, NotifySettings
from ringfence.features.notify.topics import QuietHours, Severity, Topic
from ringfence.values.secret import Secret

MAIL = "[[notify.mail]]\nto = ['admin@example.com']\n"
ADDRESS = 'must be a mail address such as "admin@example.com"'
PASSWORD = "needs a password; name a file that holds it with password_file"
CLEAR = 'must be "starttls" or "tls", because the password would be sent in clear'
DOMAIN = 'must be a mail address with a domain, such as "ringfence@example.com"'
HOURS = 'must be two different times of the day such as "22:00-07:00"'


def read(text: str, *, secrets: bool = False) -> NotifySettings:
    """Return the channels of a configuration."""
    head = "[[asterisk]]\nami.enabled = false\n"
    return parse(tomllib.loads(head + text), "here", {}, secrets=secrets).of(NotifySettings)


def problems(text: str, *, secrets: bool = False) -> list[str]:
    """Return the problems of a configuration."""
    with pytest.raises(ConfigError) as caught:
        read(text, secrets=secrets)
    return caught.value.problems


def test_without_a_table_there_is_no_channel() -> None:
    """Nothing is sent by default."""
    assert read("").channels == ()


def test_the_defaults_of_a_channel() -> None:
    """A mail channel needs its recipients only, and sends everything by the mail server of this host."""
    [mail] = read(MAIL).mail

    assert (mail.name, mail.host, mail.port, mail.security) == ("mail", "127.0.0.1", 25, MailSecurity.NONE)
    assert (mail.events, mail.rules, mail.severity) == (tuple(Topic), (), Severity.INFO)
    assert (mail.quiet, mail.digest, mail.timeout) == (None, 60.0, 30.0)


def test_a_weekly_report_needs_a_mail_channel() -> None:
    """Reports are off by default and sent by mail only; a mail channel with mistakes is one."""
    weekly = "[notify]\nreport = 'weekly'\n"
    hook = "[[notify.hook]]\ncommand = ['/bin/true']\n"
    missing = "notify.report: is sent by mail only, and there is no mail channel; fix: add [[notify.mail]]"

    assert read(MAIL).report is None
    assert read(weekly + MAIL).report == "weekly"
    assert problems(weekly) == problems(weekly + hook) == [missing]
    assert problems(weekly + "[[notify.mail]]\n") == ["notify.mail[0].to: is missing"]
    assert problems("[notify]\nreport = 'daily'\n" + MAIL) == ['notify.report: must be one of "weekly"']


def test_every_filter_is_read() -> None:
    """Events, rules, severity and quiet hours are values of their own types."""
    text = (
        'events = ["ban", "alarm"]\nrules = ["guess", "admin"]\nseverity = "critical"\nquiet = "22:00-07:30"'
    )
    [mail] = read(MAIL + text).mail

    assert mail.events == (Topic.BAN, Topic.ALARM)
    assert mail.rules == ("guess", "admin")
    assert mail.severity is Severity.CRITICAL
    assert mail.quiet == QuietHours(22 * 60, 7 * 60 + 30)
    assert str(mail.quiet) == "22:00-07:30"


def test_the_rules_of_features_are_known() -> None:
    """Bans for a login elsewhere, and for a request for the bare address, can be chosen."""
    [mail] = read(MAIL + "rules = ['elsewhere', 'bare_address']").mail

    assert mail.rules == (BLOCK.name, BARE.name) == FEATURE_RULES


def test_quiet_hours_may_span_midnight() -> None:
    """The first minute is within, the last one is not."""
    night, noon = QuietHours(22 * 60, 7 * 60), QuietHours(12 * 60, 13 * 60)

    assert [night.has(hour * 60) for hour in (21, 22, 0, 6, 7)] == [False, True, True, True, False]
    assert [noon.has(hour * 60) for hour in (11, 12, 13)] == [False, True, False]


def test_a_password_comes_from_its_file(tmp_path: Path) -> None:
    """The file is read with the secrets only, and the password is masked."""
    file = tmp_path / "password"
    file.write_text("hunter2\n", "utf-8")
    text = MAIL + f"username = 'u'\npassword_file = '{file}'"

    assert read(text).mail[0].password is None
    [mail] = read(text, secrets=True).mail
    assert mail.password == Secret("hunter2")
    assert "hunter2" not in repr(mail)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[notify.mail]]", ["notify.mail[0].to: is missing"]),
        ("[[notify.mail]]\nto = []", ["notify.mail[0].to: must have at least one address"]),
        (
            "[[notify.mail]]\nto = ['-oQ/tmp', 'a b@c', 'x@y\\n']",
            [f"notify.mail[0].to[{at}]: {ADDRESS}" for at in range(3)],
        ),
        (MAIL + "username = 'u'", [f"notify.mail[0].username: {PASSWORD}"]),
        (MAIL + "password = 'p'", ["notify.mail[0].password: needs a username"]),
        (
            MAIL + "username = 'u'\npassword = 'p'\nhost = 'mail.example.com'",
            [f"notify.mail[0].security: {CLEAR}"],
        ),
        (
            MAIL + "username = 'u'\npassword = 'p'\npassword_file = '/x'",
            ["notify.mail[0].password: is given twice, here and by password_file; keep one"],
        ),
        (MAIL + MAIL, ['notify.mail[1].name: "mail" is taken; give each channel its own name']),
        (MAIL + "sender = 'root'", [f"notify.mail[0].sender: {DOMAIN}"]),
        (MAIL + "quiet = '7-8'", [f"notify.mail[0].quiet: {HOURS}"]),
        ("[[notify.hook]]\ncommand = []", ["notify.hook[0].command: must begin with an absolute path"]),
        ("[[notify.hook]]\ncommand = ['x']", ["notify.hook[0].command: must begin with an absolute path"]),
        ("[[notify.apprise]]", ["notify.apprise[0].config: is missing"]),
        ("[notify.mail]\nto = ['a']", ["notify.mail: must be a list"]),
        ("[notify]\nfax = 1", ["notify.fax: unknown key"]),
    ],
)  # fmt: skip
def test_each_mistake_is_named(text: str, expected: list[str]) -> None:
    """A mistake is one line that begins with its key."""
    assert problems(text) == expected


def test_a_login_in_clear_is_possible_at_this_host() -> None:
    """The password does not leave the host."""
    for host in ("127.0.0.1", "::1", "localhost"):
        assert read(MAIL + f"username = 'u'\npassword = 'p'\nhost = '{host}'").mail[0].host == host


def test_an_unreadable_password_file_is_a_problem(tmp_path: Path) -> None:
    """It is named when secrets are read, and only then."""
    text = MAIL + f"username = 'u'\npassword_file = '{tmp_path}/none'"

    assert read(text).mail[0].password is None
    [problem] = problems(text, secrets=True)
    assert problem.startswith(f"notify.mail[0].password_file: {tmp_path}/none cannot be read: No such file")
