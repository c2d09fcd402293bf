"""The fleet's options of ``ringfence setup``."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ringfence.features.fleet.setup import Joining

UrlOption = Annotated[
    str, typer.Option("--crowdsec", metavar="URL", help="Share bans by CrowdSec's local API at this address.")
]
MachineOption = Annotated[
    str, typer.Option("--crowdsec-machine", metavar="NAME", help="The name of this host at that API.")
]
PasswordOption = Annotated[
    Path | None,
    typer.Option("--crowdsec-password-file", metavar="FILE", help="The password of a registered machine."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--crowdsec-key-file", metavar="FILE", help="The key of a registered bouncer.")
]


def setup(
    crowdsec: UrlOption = "",
    crowdsec_machine: MachineOption = "",
    crowdsec_password_file: PasswordOption = None,
    crowdsec_key_file: KeyOption = None,
) -> "Joining | None":
    """Return the fleet's part of a run of setup with these options; None without them."""
    if crowdsec:
        from ringfence.features.fleet.setup import Joining  # noqa: PLC0415 - other commands load these options

        machine = crowdsec_machine or socket.gethostname()
        return Joining(crowdsec, machine, crowdsec_password_file, crowdsec_key_file)
    if crowdsec_machine or crowdsec_password_file or crowdsec_key_file:
        raise typer.BadParameter("is missing", param_hint="--crowdsec")
    return None
