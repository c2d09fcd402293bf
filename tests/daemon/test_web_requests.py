"""What the user of the live page may send: all that the page sends, and nothing else."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from pwd import getpwuid
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.contrib import unit
from tests.support.daemon import Guard
from tests.support.web import Browser, daemon_in_thread, web_server

from ringfence import control
from ringfence.daemon.web_requests import MOST_TEXT, WEB_USER, WebLimit, web_refusal
from ringfence.errors import ControlError

ANOTHER = 65_534
"""A user without privileges, which runs the client."""
REFUSED = [
    ("off", {}),
    ("on", {}),
    ("confirm", {}),
    ("reload", {}),
    ("follow", {}),
    ("notify_test", {}),
    ("friends_import", {"friends": []}),
    ("lists_reload", {}),
    ("unban", {"all": True}),
    ("unban", {"networks": ["198.18.0.1", "198.18.0.2"]}),
    ("unban", {"networks": "198.18.0.1"}),
    ("ban", {"networks": ["198.18.0.1"], "seconds": 60, "force": True}),
    ("deny_add", {"what": ["198.18.0.1"], "force": True}),
    ("allow_add", {"what": ["198.18.0.1", "198.18.0.2"]}),
    ("allow_remove", {"origin": "a file"}),
    ("alarms_dismiss", {"all": True}),
    ("bans", {"networks": ["198.18.0.1"]}),
    ("why_account", {"account": "x" * (MOST_TEXT + 1)}),
    ("allow_add", {"what": ["x" * (MOST_TEXT + 1)]}),
]


@pytest.mark.parametrize(("do", "arguments"), REFUSED)
def test_what_the_page_does_not_send_is_refused(do: str, arguments: Mapping[str, Any]) -> None:
    """Requests, arguments and numbers of networks that no page needs are refused."""
    assert web_refusal(do, arguments) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")
def test_the_limit_is_that_of_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports the user of a client; only the user of the page is limited."""
    handlers = WebLimit({"off": lambda _: "off", "status": lambda _: "status"}).handlers()
    monkeypatch.setattr("ringfence.daemon.web_requests.WEB_USER", getpwuid(ANOTHER).pw_name)

    def answers(path: Path, user: int) -> list[str]:
        found = []
        for do in handlers:
            os.seteuid(user)
            try:
                found.append(control.ask(path, do))
            except ControlError as error:
                found.append(str(error))
            finally:
                os.seteuid(0)
        return found

    with TemporaryDirectory() as folder, daemon_in_thread(Path(folder, "socket"), handlers):
        path = Path(folder, "socket")
        path.parent.chmod(0o755)
        path.chmod(0o666)
        limited, root, other = (answers(path, user) for user in (ANOTHER, 0, ANOTHER - 1))

    assert limited == ["the live page may not send the request off; use the command line", "status"]
    assert root == ["off", "status"]
    assert other == ["off", "status"]


def test_the_user_is_that_of_the_unit() -> None:
    """The daemon limits the user with which the unit of the page runs."""
    assert unit.read(unit.FILE.with_name("ringfence-web.service"))["User"] == [WEB_USER]


@pytest.fixture(name="limited", scope="module")
def _limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, list[str]]]:
    """Yield a browser at the page of a real daemon, and the refusals of the page's requests."""
    folder = tmp_path_factory.mktemp("limited")
    refusals: list[str] = []

    with Guard(folder) as guard:

        def forward(do: str) -> control.Handler:
            async def answer(request: Mapping[str, Any]) -> object:
                refusal = web_refusal(do, request)
                if refusal is not None:
                    refusals.append(refusal)
                    raise ControlError(refusal)
                return await asyncio.to_thread(lambda: control.ask(folder / "control.sock", do, **request))

            return answer

        names = (
            "alarms alarms_acknowledge alarms_dismiss allow_add allow_remove ban bans deny_add deny_remove "
            "friends friends_forget history latest lists past_bans status top unban why why_account"
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
    assert "is not a friend" in browser.run("forget", "198.18.0.1").words
    for do in ("acknowledge", "dismiss"):
        assert "this alarm is not active" in browser.run(do, "999999").words

    assert refusals == []
