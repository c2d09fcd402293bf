"""``[publish]``: the settings of the list of banned networks that routers fetch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NewType

from attrs import evolve, frozen

from ringfence.config.converters import HOOKS, read_secret, whole_number
from ringfence.values.secret import Secret

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,128}")
"""The form of a token: characters that a URL may contain as they are (RFC 3986 section 2.3)."""

MAX_PUBLISHED = 50_000
"""The highest number of networks of an IP version in the list for routers: a page of 0.8 MB."""

PublishSize = NewType("PublishSize", int)
HOOKS[PublishSize] = whole_number(1, MAX_PUBLISHED)


@frozen
class PublishSettings:
    """``[publish]``: the list of banned networks for routers. Without a token it is off.

    The token is ``token``, or the content of ``token_file``. The list has at most ``max_entries`` networks of
    each IP version.
    """

    token: Secret | None = None
    token_file: Path | None = None
    max_entries: PublishSize = PublishSize(4_000)

    @property
    def wanted(self) -> bool:
        """Whether the configuration asks for the list: it has a token, or a file with one."""
        return self.token is not None or self.token_file is not None

    @property
    def secrets(self) -> list[tuple[Secret | None, Path | None]]:
        """The token, with the file that may contain it instead."""
        return [(self.token, self.token_file)]


TABLE = PublishSettings
RESTART = True


def problems(publish: PublishSettings, tree: Mapping[str, object]) -> list[str]:
    """Return a line for each mistake in ``[publish]`` that the check of single values did not find."""
    found: list[str] = []
    if publish.token is not None and publish.token_file is not None:
        found.append("publish.token: is given twice, here and by token_file; keep one")
    if publish.token is not None and not _is_valid(publish.token):
        found.append(f"publish.token: {_NEEDED}")
    metrics = tree.get("metrics")  # an invalid address counts, because it is reported elsewhere
    if publish.wanted and not (isinstance(metrics, Mapping) and "listen" in metrics):
        found.append(
            "publish: the list is served with the metrics; fix: set listen in [metrics], or remove the token"
        )
    return found


def with_secrets(publish: PublishSettings) -> tuple[PublishSettings, list[str]]:
    """Return ``publish`` with the token of its file, and a list with the problem of this file, if any."""
    if publish.token_file is None or publish.token is not None:
        return publish, []
    try:
        token = read_secret(publish.token_file, "token_file")
    except ValueError as error:
        return publish, [f"publish.{error}"]
    if not _is_valid(token):
        return publish, [f"publish.token_file: {publish.token_file} {_NEEDED}"]
    return evolve(publish, token=token), []


_NEEDED = 'must have 16 to 128 letters, digits and characters of "-._~"; make one with: openssl rand -hex 16'


def _is_valid(token: Secret) -> bool:
    return _TOKEN.fullmatch(token.reveal()) is not None
