"""The configuration of the laboratory's Asterisk: one text for each file of /etc/asterisk.

Two kinds of PBX: ``PJSIP`` (Asterisk 17 and later: PJSIP on 5060) and ``CHAN_SIP`` (Asterisk 16: chan_sip
on 5060, PJSIP on 5080). Accounts: PJSIP endpoints ``alice`` and ``locked`` (its ACL refuses everyone),
chan_sip peers ``bob`` and ``aclbob``. All have the same password, which the recordings were made with.
"""

import enum

from tests.support.network import PBX_IPV4, PBX_IPV6

PASSWORD = "correct-horse"
MANAGER_USER = "ringfence"
MANAGER_PORT = 5038
MANAGER_TLS_PORT = 5039
CERTIFICATE_NAME = "ami.pem"


class Kind(enum.Enum):
    """The channel driver that answers on port 5060."""

    PJSIP = "pjsip"
    CHAN_SIP = "chan_sip"


_ASTERISK = """\
[directories]
astetcdir => /etc/asterisk
astvarlibdir => /var/lib/asterisk
astdbdir => /var/lib/asterisk
astkeydir => /var/lib/asterisk
astdatadir => /usr/share/asterisk
astagidir => /usr/share/asterisk/agi-bin
astspooldir => /var/spool/asterisk
astrundir => /run/asterisk
astlogdir => /var/log/asterisk

[options]
verbose = 0
debug = 0
"""

_MANAGER = """\
[general]
enabled = yes
bindaddr = 127.0.0.1
port = {port}
tlsenable = yes
tlsbindaddr = 127.0.0.1:{tls_port}
tlscertfile = /etc/asterisk/{certificate}
displayconnects = no

[{user}]
secret = {secret}
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
read = security,system
write = reporting
writetimeout = 10000
"""

_LOGGER = """\
[general]
dateformat = %F %T.%3q

[logfiles]
ringfence => notice,security
messages => notice,warning,error
"""

_EXTENSIONS = """\
[internal]
exten => 100,1,Answer()
 same => n,Wait(1)
 same => n,Hangup()

[public]
exten => 100,1,Answer()
 same => n,Wait(1)
 same => n,Hangup()
"""

_PJSIP_ENDPOINTS = """\
[alice]
type = endpoint
context = internal
disallow = all
allow = ulaw
auth = alice
aors = alice

[alice]
type = auth
auth_type = userpass
username = alice
password = {password}

[alice]
type = aor
max_contacts = 100

[locked]
type = endpoint
context = internal
disallow = all
allow = ulaw
auth = locked
aors = locked
deny = 0.0.0.0/0.0.0.0
deny = ::/0

[locked]
type = auth
auth_type = userpass
username = locked
password = {password}

[locked]
type = aor
max_contacts = 100
"""

_CHAN_SIP = """\
[general]
context = public
allowguest = yes
udpbindaddr = {address}:5060
tcpenable = yes
tcpbindaddr = {address}:5060
disallow = all
allow = ulaw

[bob]
type = friend
host = dynamic
context = internal
secret = {password}

[aclbob]
type = friend
host = dynamic
context = internal
secret = {password}
deny = 0.0.0.0/0.0.0.0
"""


def pjsip_account(
    name: str, *, context: str = "phones", endpoint: str = "", auth: str = "", aor: str = ""
) -> str:
    """Return the sections of a phone of PJSIP for pjsip.conf; the last three are further lines of each."""
    return (
        f"[{name}]\ntype = endpoint\ncontext = {context}\ndisallow = all\nallow = ulaw\nauth = {name}\n"
        f"aors = {name}\n{endpoint}\n"
        f"[{name}]\ntype = auth\nauth_type = userpass\nusername = {name}\npassword = {PASSWORD}\n{auth}\n"
        f"[{name}]\ntype = aor\nremove_existing = yes\n{aor}\n"
    )


def files(kind: Kind, secret: str) -> dict[str, str]:
    """Return the text of every configuration file by its name."""
    texts = {
        "asterisk.conf": _ASTERISK,
        "manager.conf": _MANAGER.format(
            port=MANAGER_PORT,
            tls_port=MANAGER_TLS_PORT,
            certificate=CERTIFICATE_NAME,
            user=MANAGER_USER,
            secret=secret,
        ),
        "logger.conf": _LOGGER,
        "extensions.conf": _EXTENSIONS,
        "modules.conf": _modules(kind),
        "pjsip.conf": _pjsip(5080 if kind is Kind.CHAN_SIP else 5060),
    }
    if kind is Kind.CHAN_SIP:
        texts["sip.conf"] = _CHAN_SIP.format(address=PBX_IPV4, password=PASSWORD)
    return texts


def _modules(kind: Kind) -> str:
    return "[modules]\nautoload = yes\n" + ("noload = chan_sip.so\n" if kind is Kind.PJSIP else "")


def _pjsip(port: int) -> str:
    transports = "".join(
        f"[{protocol}{family}]\ntype = transport\nprotocol = {protocol}\nbind = {host}:{port}\n\n"
        for family, host in ((4, PBX_IPV4), (6, f"[{PBX_IPV6}]"))
        for protocol in ("udp", "tcp")
    )
    return transports + _PJSIP_ENDPOINTS.format(password=PASSWORD)
