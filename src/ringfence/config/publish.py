"""``[publish]``: the settings of the list of banned networks that routers fetch."""

import re
from pathlib import Path

from attrs import evolve, frozen

from ringfence.config.converters import PublishSize, read_secret
from ringfence.model import Secret

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,128}")
"""The characters that a URL may contain as they are (RFC 3986 section 2.3)."""


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
        """Whether the configuration asks for the list."""
        return self.token is not None or self.token_file is not None


def publish_problems(publish: PublishSettings, *, listens: bool) -> list[str]:
    """Return a line for each mistake in ``[publish]`` that the check of single values did not find.

    ``listens`` is true if the configuration names an address for the metrics.
    """
    problems: list[str] = []
    if publish.token is not None and publish.token_file is not None:
        problems.append("publish.token: is given twice, here and by token_file; keep one")
    if publish.token is not None and not _is_valid(publish.token):
        problems.append(f"publish.token: {_NEEDED}")
    if publish.wanted and not listens:
        problems.append(
            "publish: the list is served with the metrics; fix: set listen in [metrics], or remove the token"
        )
    return problems


def with_token(publish: PublishSettings) -> tuple[PublishSettings, list[str]]:
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
