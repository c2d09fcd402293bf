"""``[crowdsec]``: CrowdSec's local API, by which bans are shared with other hosts."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NewType
from urllib.parse import urlsplit

from attrs import evolve, frozen

from ringfence.config.converters import HOOKS, Duration, Name, is_url, read_secret, text_from
from ringfence.features.fleet.network_list import LIST
from ringfence.firewall.contract import FirewallPlan
from ringfence.values.secret import Secret

if TYPE_CHECKING:
    from ringfence.config.schema import Settings

ApiUrl = NewType("ApiUrl", str)
MIN_INTERVAL = 1.0  # seconds


def _api_url(value: object, _: object) -> str:
    text = text_from(value)
    if "?" in text or "#" in text:  # requests would not have it
        raise ValueError('must have no query ("?...") and no fragment ("#...")')
    if not is_url(text, ("http", "https")):
        raise ValueError('must be an address such as "http://127.0.0.1:8080"')
    return text


def _crosses_in_clear(url: str) -> bool:
    """Whether requests to a valid ``url`` leave this host unencrypted: not by https, nor to loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return parts.scheme == "http" and not local


HOOKS[ApiUrl | None] = _api_url


@frozen
class Access:
    """The URL of CrowdSec's local API, and this host's name and credentials there.

    ``password`` and ``key`` read a file, and raise ValueError if that is impossible.
    """

    url: str
    machine: str
    password: Callable[[], Secret]
    key: Callable[[], Secret]


@frozen
class Sharing:
    """Access to CrowdSec's local API, and ``interval``, the seconds between two requests for decisions."""

    access: Access
    interval: float


@frozen
class CrowdsecSettings:
    """``[crowdsec]``: the local API, and the files with the credentials of a machine and of a bouncer.

    Without ``url``, no ban is shared. ``interval`` is the time between two requests for decisions.
    ``allow_http``: the API may be on another host without TLS.
    """

    url: ApiUrl | None = None
    machine: Name | None = None
    password_file: Path | None = None
    key_file: Path | None = None
    interval: Duration = Duration(10.0)
    allow_http: bool = False

    @property
    def sharing(self) -> Sharing | None:
        """The API by which bans are shared with other hosts; None if they are not shared."""
        password, key = self.password_file, self.key_file
        if self.url is None or self.machine is None or password is None or key is None:
            return None
        access = Access(
            self.url,
            self.machine,
            partial(read_secret, password, "crowdsec.password_file"),
            partial(read_secret, key, "crowdsec.key_file"),
        )
        return Sharing(access, self.interval)

    @property
    def secrets(self) -> list[tuple[Secret | None, Path | None]]:
        """The files with the credentials; the configuration itself has none."""
        return [(None, self.password_file), (None, self.key_file)]


TABLE = CrowdsecSettings
RESTART = True


def with_rules(plan: FirewallPlan, settings: "Settings") -> FirewallPlan:
    """Return ``plan``, the wanted rules, which drop the networks that other hosts ban, if they share bans."""
    shared = settings.of(CrowdsecSettings).url is not None
    return evolve(plan, new_only=True, dropped=(*plan.dropped, LIST)) if shared else plan


def problems(settings: CrowdsecSettings, _: Mapping[str, object]) -> Iterator[str]:
    """Yield a line for each mistake that the check of single values did not find; it begins with the key."""
    if settings.url is not None:
        for name in ("machine", "password_file", "key_file"):
            if getattr(settings, name) is None:
                yield f"crowdsec.{name}: is missing; it is needed with a url"
        if _crosses_in_clear(settings.url) and not settings.allow_http:
            yield (
                "crowdsec.url: must begin with https, because anybody between the hosts could read the "
                "password and invent bans; if a tunnel protects the connection, set allow_http = true"
            )
    if settings.interval < MIN_INTERVAL:
        yield "crowdsec.interval: must be at least a second"
