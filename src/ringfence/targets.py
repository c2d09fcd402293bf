"""From the configuration to what a source needs: the daemon and ``check`` connect in the same way."""

import ssl

from ringfence.config import AmiSettings, AsteriskSettings
from ringfence.errors import SourceError
from ringfence.sources.ami import AmiTarget


def target_of(pbx: AsteriskSettings) -> AmiTarget:
    """Give where and as whom to listen to ``pbx``, whose secret has been read."""
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


def _tls(ami: AmiSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ami.tls_ca)
    if not ami.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
