"""The notes of ``ringfence setup`` about Asterisk's accounts."""

from collections.abc import Iterator

from ringfence.config.schema import Settings
from ringfence.features.audit.accounts import accounts_in_force
from ringfence.features.audit.hardening import open_to_strangers
from ringfence.firewall.limits import LimitMode
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.host.console import Console


def notes(files: AsteriskFiles, console: Console) -> Iterator[str]:
    """Yield lines if strangers may call without a password: which networks to allow, or which key to set."""
    limited = Settings().plan(None).mode("asking") is not LimitMode.OFF
    if limited and (by := open_to_strangers(accounts_in_force(files, console))):
        yield f"Asterisk takes calls without a password ({by}): a stranger may ask little in a second"
        yield "allow the networks of carriers that call so; `ringfence check` names who does"
        yield "if anybody may call, set guests = true in [[asterisk]]"
