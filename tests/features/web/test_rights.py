"""The live page needs no request that the daemon refuses the user of the page."""

import asyncio
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from tests.support.daemon import Guard
from tests.support.web import Browser, daemon_in_thread, web_server

from ringfence import control, control_server
from ringfence.errors import ControlError
from ringfence.guard.request_fields import PeerRole
from ringfence.guard.request_table import check_request


@pytest.fixture(name="limited", scope="module")
def _limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, list[str]]]:
    """Yield a browser at the page of a real daemon, and the refusals of the page's requests."""
    folder = tmp_path_factory.mktemp("limited")
    refusals: list[str] = []

    with Guard(folder) as guard:

        def forward(do: str) -> control_server.Handler:
            async def answer(request: Mapping[str, Any]) -> object:
                try:
                    check_request(PeerRole.PAGE, do, request)
                except ControlError as error:
                    refusals.append(str(error))
                    raise
                return await asyncio.to_thread(lambda: control.ask(folder / "control.sock", do, **request))

            return answer

        names = (
            "account alarms alarms_dismiss allow_add allow_remove ban bans deny_add deny_remove "
            "feeds fence fleet friends history latest lists locations past_bans status top unban why "
            "why_account"
        )
        assert guard.status()
        with (
            daemon_in_thread(folder / "limited.sock", {do: forward(do) for do in names.split()}),
            web_server(folder / "web", folder / "limited.sock") as web,
        ):
            yield web.browser(), refusals


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?period=year",
        "/bans",
        "/past",
        "/log",
        "/log?kind=ban",
        "/alarms",
        "/lists",
        "/fence",
        "/fleet",
        "/why?about=alice",
        "/why?about=198.18.0.0/24",
    ],
)
def test_every_page_works_within_the_limit(limited: tuple[Browser, list[str]], target: str) -> None:
    """No page needs a request that is refused."""
    browser, refusals = limited

    assert browser.get(target).status == 200
    assert refusals == []


def test_every_command_works_within_the_limit(limited: tuple[Browser, list[str]]) -> None:
    """No command needs a request that is refused, also with the longest reason."""
    browser, refusals = limited
    for do in ("ban", "unban", "ban", "unban-allow", "allow-remove", "allow", "allow-remove"):
        length = {"length": "7 days"} if do == "ban" else {}
        assert "Done" in browser.run(do, "198.18.0.1", note="y" * 500, **length).words
    for do in ("deny", "deny-remove"):
        assert "Done" in browser.run(do, "198.18.0.1").words
    assert "this alarm is not active" in browser.run("dismiss", "999999").words

    assert refusals == []


@pytest.mark.parametrize(
    ("do", "fields", "error"),
    [
        ("fence_redeem", {"token": "x", "address": "198.51.100.7"}, ""),
        ("fence_redeem", {"token": "x", "address": "198.51.100.0/24"}, "each a /32|address must be"),
        ("fence_redeem", {"token": "x", "address": "198.51.100.7", "seconds": 60.0}, "no field seconds"),
        ("fence_redeem", {"address": "198.51.100.7"}, "token is missing"),
        ("fence_link", {"seconds": 60.0, "valid": 60.0}, "may not send"),
        ("fence_link_lasting", {"account": "204", "seconds": 60.0}, "may not send"),
        ("fence_unlink", {"account": "204"}, "may not send"),
        ("fence_admit", {"what": "198.51.100.7", "seconds": 60.0}, "may not send"),
        ("fence_confirm", {}, "may not send"),
    ],
)
def test_the_page_only_redeems_tokens(do: str, fields: Mapping[str, object], error: str) -> None:
    """The page may redeem a token for one address. It chooses no time, and makes no token."""
    if not error:
        check_request(PeerRole.PAGE, do, fields)
        return
    with pytest.raises(ControlError, match=error):
        check_request(PeerRole.PAGE, do, fields)


@pytest.mark.parametrize("network", ["198.18.0.0/16", "2001:db8::/32"])
def test_the_page_may_unban_what_a_rule_bans(network: str) -> None:
    """No rule bans a wider network than a /16 or a /32; to ban, the page may name smaller ones only."""
    check_request(PeerRole.PAGE, "unban", {"networks": [network], "allowed": False})
    wider = str(ip_network(network).supernet())
    with pytest.raises(ControlError, match="networks must be"):
        check_request(PeerRole.PAGE, "unban", {"networks": [wider], "allowed": False})
    with pytest.raises(ControlError, match="networks must be"):
        check_request(PeerRole.PAGE, "ban", {"networks": [network], "seconds": 60.0})
