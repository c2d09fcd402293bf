"""The configuration of a PBX with every transport, guest calls, and a manager port open to the network.

PJSIP treats a caller from the domain ``GUESTS`` as a guest; chan_sip treats any unknown caller as one.
The account ``carol`` of chan_sip may use every transport. WebSocket belongs to PJSIP on Asterisk 22 and to
chan_sip on Asterisk 16, where both would otherwise use the same HTTP server.
"""

from tests.support import carrier, iax, phones
from tests.support.asterisk_files import CERTIFICATE_NAME, PASSWORD, pjsip_account
from tests.support.network import PBX_IPV4, SECOND_IPV4

GUESTS = "guests.example"
HTTP_PORT = 8088
HTTPS_PORT = 8089
TRUNK = "198.19.255.3"
"""The trunk at which the PBX registers, and therefore a friend."""
LAMPS = "lamps"
"""An account that may not subscribe."""

EXPORT_TO = ("127.0.0.1", 9060)
EXPORT = "[general]\nenabled = yes\ncapture_address = {}:{}\nuuid_type = call-id\n".format(*EXPORT_TO)
"""The hep.conf of an Asterisk that exports its SIP messages."""

_HTTP = f"[general]\nenabled = yes\nbindaddr = {PBX_IPV4}\nbindport = {HTTP_PORT}\nsessionlimit = 2000\n"
_HTTPS = (
    f"tlsenable = yes\ntlsbindaddr = {PBX_IPV4}:{HTTPS_PORT}\n"
    f"tlscertfile = /etc/asterisk/{CERTIFICATE_NAME}\n"
)
_MANAGER = "\n[general](+)\nbindaddr = 0.0.0.0\nwebenabled = no\nauthlimit = 2000\n"
_TLS = f"""
[tls4]
type = transport
protocol = tls
bind = {PBX_IPV4}:{{port}}
cert_file = /etc/asterisk/{CERTIFICATE_NAME}
priv_key_file = /etc/asterisk/{CERTIFICATE_NAME}
method = tlsv1_2
"""
_SECOND = f"""
[udp-second]
type = transport
protocol = udp
bind = {SECOND_IPV4}:{{port}}

[tcp-second]
type = transport
protocol = tcp
bind = {SECOND_IPV4}:{{port}}
"""
_WS = f"""
[ws4]
type = transport
protocol = ws
bind = {PBX_IPV4}

[wss4]
type = transport
protocol = wss
bind = {PBX_IPV4}
"""
_WSS = f"""
tlsenable = yes
tlsbindaddr = {PBX_IPV4}:8089
tlscertfile = /etc/asterisk/{CERTIFICATE_NAME}
"""
_GUESTS = f"""
[anonymous@{GUESTS}]
type = endpoint
context = public
disallow = all
allow = ulaw
"""
_CHAN_SIP = f"""
[general](+)
udpbindaddr = 0.0.0.0:5060
tcpbindaddr = 0.0.0.0:5060
tlsenable = yes
tlsbindaddr = {PBX_IPV4}:5061
tlscertfile = /etc/asterisk/{CERTIFICATE_NAME}
websocket_enabled = yes
tcpauthlimit = 2000
tcpauthtimeout = 600

[carol]
type = friend
host = dynamic
context = internal
transport = udp,tcp,tls,ws,wss
secret = {PASSWORD}

[{LAMPS}]
type = friend
host = dynamic
context = internal
allowsubscribe = no
secret = {PASSWORD}
"""
_LAMPS = "\n" + pjsip_account(
    LAMPS, context="internal", endpoint="allow_subscribe = no\n", aor="max_contacts = 1\n"
)


def exporting(release: str) -> dict[str, str]:
    """Return that configuration with WSS, and with Asterisk's export of its SIP messages (HEP)."""
    texts = configured(release)
    return {
        **texts,
        "http.conf": f"{texts['http.conf']}{_WSS}",
        "pjsip.conf": f"{texts['pjsip.conf']}{_WS.replace('ws', 'wss')}",
        "hep.conf": EXPORT,
    }


def configured(release: str) -> dict[str, str]:
    """Return the configuration of a laboratory's Asterisk."""
    chan_sip = release == "16"
    texts = {
        "http.conf": _HTTP + _HTTPS,
        "manager.conf": _MANAGER,
        "pjsip.conf": _TLS.format(port=5081 if chan_sip else 5061)
        + _SECOND.format(port=5080 if chan_sip else 5060)
        + _GUESTS
        + _LAMPS
        + ("" if chan_sip else _WS),
    }
    if chan_sip:
        texts["sip.conf"] = _CHAN_SIP
        texts["modules.conf"] = "noload = res_pjsip_transport_websocket.so\n"
    for more in (phones.configured(release), carrier.configured(TRUNK), iax.configured()):
        for name, text in more.items():
            texts[name] = texts.get(name, "") + "\n" + text
    return texts
