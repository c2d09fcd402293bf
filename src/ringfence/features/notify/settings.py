"""``[notify]``: the channels that notify administrators, and the checks that concern several of its keys."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NewType

from attrs import Factory, evolve, frozen

from ringfence.config.converters import HOOKS, Duration, Name, Port, Text, member, one_of, read_secret
from ringfence.detect.rules import FEATURE_RULES, RULES
from ringfence.features.notify.hook_variables import HOOK_VARIABLES
from ringfence.features.notify.topics import QuietHours, Severity, Topic
from ringfence.values.ban import Origin
from ringfence.values.network import is_loopback
from ringfence.values.secret import Secret

ReportName = NewType("ReportName", str)
MailAddress = NewType("MailAddress", str)
RuleName = NewType("RuleName", str)


class MailSecurity(StrEnum):
    """How a connection to a mail server is encrypted: not, after STARTTLS, or from its beginning."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


_QUIET = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


def _quiet_hours(value: object, _: object) -> QuietHours:
    match = _QUIET.fullmatch(value) if isinstance(value, str) else None
    numbers = [int(number) for number in match.groups()] if match else [0, 0, 0, 0]
    start, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if match is None or start == end:
        raise ValueError('must be two different times of the day such as "22:00-07:00"')
    return QuietHours(start, end)


_MAILBOX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,63}(@[A-Za-z0-9][A-Za-z0-9.-]{0,252})?")


def _mail_address(value: object, _: object) -> MailAddress:
    """Parse a mail address that is safe in commands and headers; raise ValueError for any other text."""
    if not isinstance(value, str) or not _MAILBOX.fullmatch(value):
        raise ValueError('must be a mail address such as "admin@example.com"')
    return MailAddress(value)


HOOKS.update(
    {
        ReportName | None: one_of(("weekly",)),
        Topic: member,
        Severity: member,
        MailSecurity: member,
        MailAddress: _mail_address,
        MailAddress | None: _mail_address,
        RuleName: one_of((*(rule.name for rule in RULES), *FEATURE_RULES, Origin.ADMIN)),
        QuietHours | None: _quiet_hours,
    }
)


@frozen(kw_only=True)
class ChannelSettings:
    """The keys that every channel has: its name, what it sends, and when.

    The channel sends events of the kinds ``events``, except those less urgent than ``severity``. Of bans, it
    sends those by the rules ``rules``, or all if ``rules`` is empty.

    The channel collects bans for ``digest`` seconds, and other events for at most a few seconds, and sends
    them as one message. During ``quiet`` it sends only messages with a critical event; None means no quiet
    hours. One try to send takes at most ``timeout`` seconds.
    """

    name: Name
    events: tuple[Topic, ...] = tuple(Topic)
    rules: tuple[RuleName, ...] = ()
    severity: Severity = Severity.INFO
    quiet: QuietHours | None = None
    digest: Duration = Duration(60.0)
    timeout: Duration = Duration(30.0)


@frozen(kw_only=True)
class MailSettings(ChannelSettings):
    """``[[notify.mail]]``: mail by an SMTP server."""

    name: Name = Name("mail")
    to: tuple[MailAddress, ...]
    sender: MailAddress | None = None
    host: Text = Text("127.0.0.1")
    port: Port = Port(25)
    security: MailSecurity = MailSecurity.NONE
    tls_ca: Path | None = None
    tls_verify: bool = True
    username: Text | None = None
    password: Secret | None = None
    password_file: Path | None = None


@frozen(kw_only=True)
class ProgramSettings(ChannelSettings):
    """The key of the channels that run a program: ``socket`` is that of the service which runs it."""

    socket: Path = Path("/run/ringfence-notify.socket")


@frozen(kw_only=True)
class AppriseSettings(ProgramSettings):
    """``[[notify.apprise]]``: any service of Apprise, by its command and its configuration file."""

    name: Name = Name("apprise")
    config: Path
    tag: Text | None = None
    command: Path = Path("/usr/bin/apprise")


@frozen(kw_only=True)
class HookSettings(ProgramSettings):
    """``[[notify.hook]]``: a command of the administrator."""

    name: Name = Name("hook")
    command: tuple[Text, ...]


@frozen
class NotifySettings:
    """``[notify]``: all channels, and the settings for their messages.

    If ``report`` is not None, all mail channels send a report once a week.
    """

    report: ReportName | None = None
    mail: tuple[MailSettings, ...] = Factory(tuple)
    apprise: tuple[AppriseSettings, ...] = Factory(tuple)
    hook: tuple[HookSettings, ...] = Factory(tuple)

    @property
    def channels(self) -> tuple[ChannelSettings, ...]:
        """All channels: those by mail, then those by Apprise, then the commands."""
        return (*self.mail, *self.apprise, *self.hook)

    @property
    def secrets(self) -> list[tuple[Secret | None, Path | None]]:
        """The password of each mail server, with the file that may contain it instead."""
        return [(mail.password, mail.password_file) for mail in self.mail]


TABLE = NotifySettings
VARIABLES = HOOK_VARIABLES


def problems(notify: NotifySettings, tree: Mapping[str, object]) -> list[str]:
    """Return a line for each mistake in ``[notify]`` that the check of single values did not find.

    A line begins with the path of the key. ``tree`` is the whole TOML document.
    """
    return [
        *_taken_names(notify),
        *(f"notify.mail[{at}].{problem}" for at, mail in enumerate(notify.mail) for problem in _mail(mail)),
        *(
            f"notify.hook[{at}].command: must begin with an absolute path"
            for at, hook in enumerate(notify.hook)
            if not hook.command or not hook.command[0].startswith("/")
        ),
        *_report_without_mail(notify, tree),
    ]


def with_secrets(notify: NotifySettings) -> tuple[NotifySettings, list[str]]:
    """Return ``notify`` with the passwords that are in password files, and a list of problems.

    The list has a line for each password file that cannot be used.
    """
    problems: list[str] = []
    mails: list[MailSettings] = []
    for at, mail in enumerate(notify.mail):
        found = mail.password
        if mail.password_file is not None and found is None:
            try:
                found = read_secret(mail.password_file, "password_file")
            except ValueError as error:
                problems.append(f"notify.mail[{at}].{error}")
        mails.append(evolve(mail, password=found))
    return evolve(notify, mail=tuple(mails)), problems


def _taken_names(notify: NotifySettings) -> Iterator[str]:
    kinds: Sequence[tuple[str, Sequence[ChannelSettings]]] = (
        ("mail", notify.mail),
        ("apprise", notify.apprise),
        ("hook", notify.hook),
    )
    names: set[str] = set()
    for kind, channels in kinds:
        for at, channel in enumerate(channels):
            if channel.name in names:
                yield f'notify.{kind}[{at}].name: "{channel.name}" is taken; give each channel its own name'
            names.add(channel.name)


def _mail(mail: MailSettings) -> Iterator[str]:
    has_password = mail.password is not None or mail.password_file is not None
    if not mail.to:
        yield "to: must have at least one address"
    if mail.sender is not None and "@" not in mail.sender:
        yield 'sender: must be a mail address with a domain, such as "ringfence@example.com"'
    if mail.password is not None and mail.password_file is not None:
        yield "password: is given twice, here and by password_file; keep one"
    if mail.username is not None and not has_password:
        yield "username: needs a password; name a file that holds it with password_file"
    if has_password and mail.username is None:
        yield "password: needs a username"
    if has_password and mail.security is MailSecurity.NONE and not is_loopback(mail.host):
        yield 'security: must be "starttls" or "tls", because the password would be sent in clear'


def _report_without_mail(notify: NotifySettings, tree: Mapping[str, object]) -> list[str]:
    """Return a problem if reports are wanted and there is no mail channel.

    A mail channel with mistakes counts as one, because its mistakes are reported elsewhere.
    """
    table = tree.get("notify")
    if notify.report is None or (isinstance(table, Mapping) and table.get("mail")):
        return []
    return ["notify.report: is sent by mail only, and there is no mail channel; fix: add [[notify.mail]]"]
