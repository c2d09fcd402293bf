"""Mail to a real SMTP server, with and without TLS and login."""

import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from tests.features.notify.samples import HOSTILE, WALL, ban, content, hostile_content, report_content
from tests.support.certificate import certificate_in
from tests.support.peers import PASSWORD, Mailbox, free_port, mail_server, raw_server

from ringfence.config.converters import Port, Text
from ringfence.features.notify import mail, notifications
from ringfence.features.notify.delivery import channel_as_json
from ringfence.features.notify.mail import page_of
from ringfence.features.notify.settings import MailAddress, MailSecurity, MailSettings
from ringfence.values.secret import Secret

CONTENT = content(notifications.of_ban(ban(7), WALL))
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # it is SMTPS
TO = (MailAddress("admin@example.com"), MailAddress("root"))


def settings(port: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any key
    """Return a mail channel as the sender gets it."""
    return channel_as_json(MailSettings(**{"to": TO, "port": Port(port), "timeout": 2.0, **changes}))


@pytest.fixture(scope="module", name="certificate")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate of 127.0.0.1 with its key."""
    return certificate_in(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(name="box")
def _box() -> Iterator[Mailbox]:
    """Return the mailbox of a server without TLS."""
    with mail_server(Mailbox()) as box:
        yield box


def context(certificate: Path) -> ssl.SSLContext:
    """Return the TLS context of a server."""
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.load_cert_chain(certificate)
    return found


def test_a_mail_arrives(box: Mailbox) -> None:
    """It is plain text for all recipients, with a title and the mark of automatic mails."""
    answer = mail.send(settings(box.port), CONTENT, "pbx1")
    [found] = box.mails

    assert answer == f"127.0.0.1:{box.port} accepted it"
    assert box.recipients == [["admin@example.com", "root"]]
    assert found["Subject"] == "[ringfence pbx1] 198.18.0.7 banned (guess)"
    assert found["From"] == "ringfence <ringfence@pbx1>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found.get_content_type() == "text/plain"
    assert "198.18.0.7  guess (1h); accounts: alice" in found.get_content()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_change_nothing(box: Mailbox, name: str) -> None:
    """No name adds a header, a recipient, a part or a control character to a mail."""
    mail.send(settings(box.port), hostile_content(name), "pbx1")
    [found] = box.mails

    assert {key.lower() for key in found} - {"x-peer", "x-mailfrom", "x-rcptto"} == {
        "from", "to", "subject", "date", "message-id", "auto-submitted",
        "content-type", "content-transfer-encoding", "mime-version",
    }  # fmt: skip
    assert box.recipients == [["admin@example.com", "root"]]
    assert all(line.isprintable() for line in found.get_content().split("\r\n"))


def parts_of(mail: EmailMessage) -> tuple[str, EmailMessage]:
    """Return the text of a report's mail, and its attachment."""
    text, page = mail.iter_parts()
    assert isinstance(page, EmailMessage)
    return text.get_content().replace("\r\n", "\n"), page


def elements(html: str) -> list[str]:
    """Return the tags of a page, with their attributes."""
    return re.findall(r"<[^>]*>", html)


def test_a_report_has_its_page(box: Mailbox) -> None:
    """A report is a text as the command prints it, and a page of HTML as an attachment."""
    mail.send(settings(box.port), report_content(), "pbx1")
    [found] = box.mails
    text, page = parts_of(found)

    assert found["Subject"] == "[ringfence pbx1] report of 7 days"
    assert found.get_content_type() == "multipart/mixed"
    assert text.startswith("ringfence on pbx1, report of 7 days\n\n2026-11-14 00:00 to 2026-11-21 00:00 UTC")
    assert "\nalice           6\n" in text
    assert (page.get_content_type(), page.get_filename()) == ("text/html", "report.html")
    assert page.get_content_disposition() == "attachment"
    assert "<h1>ringfence report</h1>" in page.get_content()


def test_a_page_needs_no_package_of_the_live_page(box: Mailbox) -> None:
    """Where Starlette and uvicorn are missing, the report has its page all the same."""
    code = (
        "import json, sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None; "
        "from ringfence.features.notify import mail; mail.send(*json.load(sys.stdin))"
    )
    given = json.dumps([settings(box.port), report_content(), "pbx1"])
    subprocess.run([sys.executable, "-c", code], input=given, check=True, text=True)
    [found] = box.mails

    assert found.get_content_type() == "multipart/mixed"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_in_a_report_change_nothing(box: Mailbox, name: str) -> None:
    """No name adds a header, a part, a control character or an element of HTML."""
    mail.send(settings(box.port), report_content(name), "pbx1")
    [found] = box.mails
    text, page = parts_of(found)
    html = page.get_content()

    assert found["Bcc"] is None
    assert box.recipients == [["admin@example.com", "root"]]
    assert all(line.isprintable() and len(line) <= 80 for line in text.split("\n"))
    assert all(line.isprintable() for line in html.replace("\r\n", "\n").split("\n"))
    assert elements(html) == elements(page_of(report_content()))


@pytest.mark.parametrize("security", [MailSecurity.STARTTLS, MailSecurity.TLS])
def test_tls_and_a_login(certificate: Path, security: MailSecurity) -> None:
    """With the server's certificate as trusted one, the login works, encrypted from the right moment."""
    served = {"starttls" if security is MailSecurity.STARTTLS else "tls": context(certificate)}
    login = {"security": security, "username": Text("u"), "tls_ca": certificate}
    with mail_server(Mailbox(), **served) as box:
        mail.send(settings(box.port, password=Secret(PASSWORD), **login), CONTENT, "h")
        with pytest.raises(ValueError, match="answers 535 "):
            mail.send(settings(box.port, password=Secret("wrong"), **login), CONTENT, "h")

    assert len(box.mails) == 1


@pytest.mark.parametrize("security", [MailSecurity.STARTTLS, MailSecurity.TLS])
def test_an_unknown_certificate_is_refused(certificate: Path, security: MailSecurity) -> None:
    """The password is not sent to a server that cannot prove its name, unless that is configured."""
    served = {"starttls" if security is MailSecurity.STARTTLS else "tls": context(certificate)}
    login = {"security": security, "username": Text("u"), "password": Secret(PASSWORD)}
    with mail_server(Mailbox(), **served) as box:
        with pytest.raises(ValueError, match="certificate verify failed"):
            mail.send(settings(box.port, **login), CONTENT, "h")
        assert box.mails == []
        mail.send(settings(box.port, tls_verify=False, **login), CONTENT, "h")

    assert len(box.mails) == 1


def test_a_server_without_starttls_gets_no_password(box: Mailbox) -> None:
    """STARTTLS is required, not tried: someone between could remove it from the answer."""
    with pytest.raises(ValueError, match="STARTTLS extension not supported"):
        mail.send(settings(box.port, security=MailSecurity.STARTTLS), CONTENT, "h")
    assert box.mails == []


def test_a_refused_mail_is_an_error_with_the_answer() -> None:
    """The server's answer is in the error."""
    with (
        mail_server(Mailbox("554 policy")) as box,
        pytest.raises(ValueError, match=rf"^127.0.0.1:{box.port} answers 554 policy$"),
    ):
        mail.send(settings(box.port), CONTENT, "h")


def test_a_refused_recipient_is_named() -> None:
    """The others get the mail; if all are refused, it is an error."""
    with mail_server(Mailbox(refused=("root",))) as box:
        assert mail.send(settings(box.port), CONTENT, "h").endswith(
            "accepted it; root is refused: 550 no such user <b>here</b>"
        )
        with pytest.raises(ValueError, match="refuses the recipients: root: 550 no such user"):
            mail.send(settings(box.port, to=(MailAddress("root"),)), CONTENT, "h")
    assert box.recipients == [["admin@example.com"]]


def test_a_server_that_is_down_is_an_error() -> None:
    """The error names the server and the reason."""
    port = free_port()
    with pytest.raises(ValueError, match=rf"^127.0.0.1:{port}: Connection refused$"):
        mail.send(settings(port), CONTENT, "h")


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first address of a server leads nowhere, the mail arrives by another one."""
    place = ("127.0.0.1", box.port)
    found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)] * 2
    connect, waits = socket.socket.connect, list[float | None]()

    def connected(connection: socket.socket, where: tuple[str, int]) -> None:
        waits.append(connection.gettimeout())
        if len(waits) == 1:
            raise TimeoutError("timed out")
        connect(connection, where)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket.socket, "connect", connected)
    assert "accepted it" in mail.send(settings(box.port, timeout=60.0), CONTENT, "pbx1")

    assert waits == [mail.CONNECT_SECONDS] * 2
    assert len(box.mails) == 1


def test_a_server_may_begin_tls_late(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that first looks up the name of this host has as much time for TLS as for an answer."""
    monkeypatch.setattr(mail, "CONNECT_SECONDS", 0.2)

    def serve(connection: socket.socket) -> None:
        time.sleep(1.0)
        with suppress(OSError):
            context(certificate).wrap_socket(connection, server_side=True).close()

    login = {"security": MailSecurity.TLS, "tls_ca": certificate}
    with raw_server(serve) as port, pytest.raises(ValueError, match="unexpectedly closed"):
        mail.send(settings(port, timeout=20.0, **login), CONTENT, "h")


def test_a_server_that_says_nothing_ends_in_time() -> None:
    """A server that accepts the connection and hangs costs one timeout."""
    with raw_server(lambda _: None) as port, pytest.raises(ValueError, match="timed out"):
        mail.send(settings(port, timeout=0.2), CONTENT, "h")


def test_a_server_that_hangs_up_is_an_error() -> None:
    """So is one that does not speak SMTP."""
    with raw_server(socket.socket.close) as port, pytest.raises(ValueError, match=f"127.0.0.1:{port}"):
        mail.send(settings(port), CONTENT, "h")


@pytest.mark.parametrize("line", [b"220-a\r\n", b"220-" + b"a" * 8_000 + b"\r\n"])
def test_an_answer_without_an_end_is_an_error(line: bytes) -> None:
    """Of a server that never ends its answer, a bounded number of bytes is read, and the rest is refused."""
    sent = 0

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        lines = line * (65_536 // len(line))
        with suppress(OSError):
            while sent < 64 << 20:
                sent += connection.send(lines)

    with raw_server(serve) as port, pytest.raises(ValueError, match="the server answers too much"):
        mail.send(settings(port), CONTENT, "h")
    assert sent < 64 << 20


def test_a_goodbye_that_fails_does_not_send_twice() -> None:
    """The server has accepted the mail; what it answers to QUIT no longer matters."""

    def serve(connection: socket.socket) -> None:
        for answer in (b"220 x", b"250 x", b"250 ok", b"250 ok", b"354 go", b"250 accepted"):
            connection.sendall(answer + b"\r\n")
            time.sleep(0.05)
            connection.recv(65_536)
        connection.close()

    with raw_server(serve) as port:
        assert "accepted it" in mail.send(settings(port, to=(MailAddress("root"),)), CONTENT, "h")
