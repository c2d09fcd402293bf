"""Sends messages as mail, by an SMTP server.

The text is plain, without HTML. A report has a page of HTML as an attachment.
"""

import smtplib
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from textwrap import wrap
from typing import Any, BinaryIO

from ringfence import street
from ringfence.cli.plain_text import Line, TextForm
from ringfence.features.notify.message import Message, compose, dropped_lines, without_links
from ringfence.values.text import printable

# -- the report of a week as a mail: the text that ``ringfence report`` prints, and its page of HTML, as the
# feature that makes the report writes them


_FORM = TextForm()


def compose_report(content: Mapping[str, Any], host: str) -> Message:
    """Return the report in ``content`` as text, with times in UTC and lines of at most 80 columns."""
    lines = [f"ringfence on {host}, report of 7 days", ""]
    for report_lines in street.functions("text", "report_lines"):
        for line in report_lines(_without_links(content["report"]), _FORM):
            lines += _wrapped(line)
    lines += dropped_lines(content)
    return Message(f"[ringfence {host}] report of 7 days", "\n".join(lines) + "\n")


def _wrapped(line: Line) -> list[str]:
    text = printable(line.text)
    if len(text) <= _FORM.width:
        return [text]
    return wrap(text, _FORM.width, subsequent_indent=" " * line.indent, break_on_hyphens=False)


def page_of(content: Mapping[str, Any]) -> str:
    """Return the report as one page of HTML."""
    [report_page] = street.functions("page", "report_page")  # slow to load, and needed for a report only
    return str(report_page(_without_links(content["report"])))


def _without_links(value: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
    """Return a part of a report, changed so that no text from outside is a link; alarm codes stay."""
    if isinstance(value, Mapping):
        return {key: one if key == "code" else _without_links(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_links(one) for one in value]
    return without_links(value) if isinstance(value, str) else value


_UNKNOWN = "localhost"
"""A host name for smtplib, so that it does not look up this host's; :func:`name_in_greeting` replaces it."""

MOST_ANSWERED = 256 * 1024
"""The maximum number of bytes of all answers of a mail server to one message."""
CONNECT_SECONDS = 8.0
"""The maximum seconds to connect by TCP to one address of the server: IPv6 may lead nowhere, and IPv4 work.

The kernel asks again after 1, 3 and 7 seconds.
"""
GOODBYE = 2.0
"""Seconds that the server has to answer QUIT, after it has accepted the message."""


class _Answers:
    """The bytes that a mail server sends, up to ``MOST_ANSWERED``: smtplib keeps each line of an answer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MOST_ANSWERED

    def readline(self, size: int) -> bytes:
        """Return the next line, of at most ``size`` bytes; raise OSError if the server has sent too much."""
        line = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("the server answers too much")
        return line

    def close(self) -> None:
        """Close the connection for reading."""
        self._file.close()


class _Smtp(smtplib.SMTP):
    """A connection to a mail server whose answers are bounded, and the wait for each of its addresses."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        wait = min(timeout, CONNECT_SECONDS)
        connection: socket.socket = super()._get_socket(host, port, wait)  # type: ignore[misc]  # not public
        connection.settimeout(timeout)
        return connection

    def getreply(self) -> tuple[int, bytes]:
        """Return the status and the text of the server's next answer."""
        if self.file is None and self.sock is not None:
            self.file = _Answers(self.sock.makefile("rb"))
        return super().getreply()


class _SmtpOverTls(smtplib.SMTP_SSL, _Smtp):
    """The same by TLS from the first byte on. The handshake may take as long as any other answer."""


def send(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> str:
    """Send a mail about the events in ``content``, or the report in it; return a text about the result.

    ``channel`` has the settings of the channel, and ``host`` is the name of this host. Raise OSError or
    ValueError if the mail cannot be sent.
    """
    mail = _mail(channel, content, host)
    try:
        return _by_smtp(channel, mail, host)
    except smtplib.SMTPRecipientsRefused as error:
        answers = (f"{to}: {_answer(*answer)}" for to, answer in error.recipients.items())
        raise ValueError(f"{_server(channel)} refuses the recipients: {'; '.join(answers)}") from None
    except smtplib.SMTPResponseException as error:
        answer = _answer(error.smtp_code, error.smtp_error)
        raise ValueError(f"{_server(channel)} answers {answer}") from None
    except TimeoutError:
        raise
    except (OSError, ssl.CertificateError) as error:
        raise ValueError(f"{_server(channel)}: {getattr(error, 'strerror', None) or error}") from None


def _mail(channel: Mapping[str, Any], content: Mapping[str, Any], host: str) -> EmailMessage:
    is_report = "report" in content
    message = compose_report(content, host) if is_report else compose(content, host)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Address(
        display_name="ringfence", addr_spec=channel["sender"] or f"ringfence@{_domain(host)}"
    )
    mail["To"] = ", ".join(channel["to"])
    mail["Subject"] = message.title
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid("ringfence", _domain(host))
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers by vacation programs
    mail.set_content(message.body)
    if is_report:
        mail.add_attachment(page_of(content), subtype="html", filename="report.html")
    return mail


def _domain(host: str) -> str:
    return host if host.isascii() and host.replace("-", "").replace(".", "").isalnum() else "localhost"


def name_in_greeting(host: str, connection: socket.socket) -> str:
    """Return the name for EHLO (RFC 5321, 4.1.4): the full name of this host, else the connection's address.

    Nothing is looked up. smtplib would ask DNS for the host's own name, and wait if no server answers.
    """
    if "." in host and _domain(host) == host:
        return host
    address = connection.getsockname()[0].partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _by_smtp(channel: Mapping[str, Any], mail: EmailMessage, host: str) -> str:
    security, timeout = channel["security"], channel["timeout"]
    if security == "tls":
        server: smtplib.SMTP = _SmtpOverTls(
            channel["host"], channel["port"], _UNKNOWN, timeout=timeout, context=_context(channel)
        )
    else:
        server = _Smtp(channel["host"], channel["port"], _UNKNOWN, timeout=timeout)
    try:
        if server.sock is not None:
            server.local_hostname = name_in_greeting(host, server.sock)
        if security == "starttls":
            server.starttls(context=_context(channel))
        if channel["username"] is not None:
            server.login(channel["username"], channel["password"])
        refused = server.send_message(mail, to_addrs=channel["to"])
        with suppress(OSError):  # the server has the message: an error here is no reason to send it again
            if server.sock is not None:
                server.sock.settimeout(GOODBYE)
            server.quit()
    finally:
        server.close()
    answers = "; ".join(f"{to} is refused: {_answer(*answer)}" for to, answer in refused.items())
    return f"{_server(channel)} accepted it" + (f"; {answers}" if answers else "")


def _context(channel: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=channel["tls_ca"])
    if not channel["tls_verify"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _server(channel: Mapping[str, Any]) -> str:
    return f"{channel['host']}:{channel['port']}"


def _answer(code: int, text: bytes | str) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {words}"
