"""Headers of every answer, the check of the host, and errors of the daemon and of HTTP."""

import re
from pathlib import Path

import pytest
from tests.features.web.conftest import Served
from tests.support.daemon import Guard
from tests.support.web import web_server

from ringfence.features.web.app import Site

PAGES = ("/", "/bans", "/past", "/log", "/alarms", "/lists", "/why?about=alice", "/why?about=198.18.1.101")


@pytest.mark.parametrize("target", [*PAGES, "/login", "/nothing", "/confirm?do=nothing"])
def test_every_answer_has_the_headers(served: Served, target: str) -> None:
    """No answer may be framed, kept or guessed, and only the script with the nonce of the answer runs."""
    answer = served.browser.get(target)
    policy = answer.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]{22})'", policy)

    assert nonce is not None
    assert policy.startswith("default-src 'none'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    scripts = [values for tag, values in answer.document.elements if tag == "script"]
    assert {values.get("nonce") for values in scripts} == {nonce[1]}
    assert served.browser.get(target).headers["Content-Security-Policy"] != policy


@pytest.mark.parametrize("target", PAGES)
def test_no_page_asks_another_site(served: Served, target: str) -> None:
    """Every address in a page is of this site, and no element has a style or a handler of its own."""
    document = served.browser.get(target).document

    for _, values in document.elements:
        addresses = [str(values[name]) for name in ("href", "src", "action") if name in values]
        assert all(re.match(r"/(?!/)|#", address) for address in addresses), values
        assert not any(name.startswith("on") or name == "style" for name in values)


def test_files_have_an_address_for_each_version(served: Served) -> None:
    """The page names the script by its content, and the answer may be kept."""
    document = served.browser.get("/").document
    [address] = [str(values["src"]) for tag, values in document.elements if tag == "script"]
    answer = served.browser.get(address)

    assert re.fullmatch(r"/static/live\.js\?v=[0-9a-f]{16}", address)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "[",
        "",
        "10.0.0.1:8721",
        "evil.example@localhost",
        "localhost/x",
        "localhost?x",
        "localhost#",
        "localhost\\x",
    ],
)
def test_another_name_leads_nowhere(served: Served, host: str) -> None:
    """A request that names another site gets nothing, also with the cookie of a session."""
    answer = served.browser.get("/", Host=host)

    assert answer.status in {400, 421}
    assert "Overview" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8721", "[::1]:8721"])
def test_a_tunnel_may_have_any_port(served: Served, host: str) -> None:
    """Loopback names are accepted with any port."""
    assert served.browser.get("/", Host=host).status == 200


def test_the_host_of_a_proxy() -> None:
    """The name of --url is accepted, and HTTPS makes the cookie secure."""
    site = Site("https://pbx.example.com")

    assert site.secure
    assert site.is_host("pbx.example.com")
    assert not site.is_host("example.com")
    assert not Site("http://127.0.0.1:8721").secure


def test_unknown_addresses_and_methods(served: Served) -> None:
    """They are errors with a page."""
    assert served.browser.get("/nothing").status == 404
    assert served.browser.get("/static/nothing").status == 404
    assert served.browser.get("/run").status == 405
    assert served.browser.post("/bans", {}).status == 405


def test_without_the_daemon_the_page_names_it(tmp_path: Path) -> None:
    """While the daemon does not run, each page reports that; it works again when the daemon does."""
    with (
        Guard(tmp_path) as guard,
        web_server(tmp_path / "web", tmp_path / "control.sock") as web,
    ):
        browser = web.browser()
        assert browser.get("/").status == 200
        guard.stop()
        answer = browser.get("/bans")
        assert answer.status == 503
        assert "start it: systemctl start ringfence" in answer.words
        guard.start()
        assert browser.get("/bans").status == 200
