"""The parameters of the sources (addresses, logins, paths of logs), from the configuration.

The daemon and ``ringfence check`` both use this module, so that both connect in the same way.
"""

import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ringfence.config.loader import AmiSettings, AsteriskSettings, CustomSettings
from ringfence.errors import SourceError
from ringfence.sources.ami import AmiTarget
from ringfence.sources.logs import LogPlan

if TYPE_CHECKING:
    from ringfence.parse.custom import Custom


def target_of(pbx: AsteriskSettings) -> AmiTarget:
    """Return the address of the manager interface (AMI) of ``pbx``, with the login and the TLS settings.

    Raise SourceError if the configuration was loaded without its secrets.
    """
    ami = pbx.ami
    if ami.secret is None:
        raise SourceError(f"{pbx.name}: the configuration was loaded without its secrets")
    return AmiTarget(
        asterisk=pbx.name,
        host=ami.host,
        port=ami.port,
        username=ami.username,
        secret=ami.secret,
        tls=_tls(ami) if ami.tls else None,
    )


def logs_of(pbx: AsteriskSettings) -> LogPlan:
    """Return which logs of ``pbx`` are read, their time zone, and the administrator's own line patterns."""
    logs = pbx.logs
    return LogPlan(pbx.name, logs.paths, logs.journal, logs.timezone, tuple(_customs(logs.custom)))


def _customs(settings: Sequence[CustomSettings]) -> "Iterator[Custom]":
    if not settings:
        return
    from ringfence.parse.custom import Custom  # noqa: PLC0415 - loaded where it is asked for

    for own in settings:
        yield Custom.compile(own.pattern, level=own.level, file=own.file, name=own.name)


def _tls(ami: AmiSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ami.tls_ca)
    if not ami.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
