"""Recorded reports of real Asterisks (16.28 and 22.10) about phones and trunks."""

from ringfence.parse.roster import RosterEvent, parse_roster_event

TREE = (
    b"Event: DBGetTreeResponse\n"
    b"Key: /registrar/contact/alice;@8ab3db4645e2d7bad84f15cfefd659bd\n"
    rb'Val: {"via_addr":"10.9.9.9","qualify_timeout":"3.000000","qualify_2xx_only":"false",'
    rb'"call_id":"c53733","reg_server":"","prune_on_boot":"no","path":"","endpoint":"alice","via_port":"53733",'
    rb'"authenticate_qualify":"no","uri":"sip:alice@198.18.1.10:53733","qualify_frequency":"0",'
    rb'"user_agent":"Phone \"x\"","expiration_time":"1795193107","outbound_proxy":""}'
    b"\nActionID: abc123"
)

CONTACT_LIST = b"""Event: ContactList
ActionID: abc123
ObjectType: contact
ObjectName: carol;@61ee4d93f078a2601bef0eb77a19c20d
ViaAddr: 10.9.9.9
QualifyTimeout: 3.000000
Qualify2xxOnly: false
CallId: c57925
RegServer:
PruneOnBoot: no
Path:
Endpoint: carol
ViaPort: 57925
AuthenticateQualify: no
Uri: sip:carol@198.18.1.13:57925;x-ast-orig-host=10.0.0.5:5060
QualifyFrequency: 1
UserAgent: Phone "x"
ExpirationTime: 1795193477
OutboundProxy:
Status: Reachable
RoundtripUsec: 448"""

SIP_PEER = b"""Event: PeerEntry
ActionID: abc123
Channeltype: SIP
ObjectName: dave
ChanObjectType: peer
IPaddress: 198.18.1.21
IPport: 43139
Dynamic: yes
AutoForcerport: no
Forcerport: yes
AutoComedia: no
Comedia: yes
VideoSupport: no
TextSupport: no
ACL: no
Status: OK (1 ms)
RealtimeDevice: no
Description:
Accountcode:"""

IAX_PEER = b"""Event: PeerEntry
ActionID: abc123
Channeltype: IAX
ObjectName: iaxstatic
ChanObjectType: peer
IPaddress: 198.18.1.56
Mask: 255.255.255.255
Port: 4569
Dynamic: no
Trunk: no
Encryption: no
Status: UNKNOWN"""

IAX_PHONE = b"""Event: PeerEntry
ActionID: abc123
Channeltype: IAX
ObjectName: carol
ChanObjectType: peer
IPaddress: 198.18.1.40
Mask: (null)
Port: 49408
Dynamic: yes
Trunk: no
Encryption: no
Status: Unmonitored"""

IAX_REGISTERED = b"""Event: PeerStatus
Privilege: system,all
ChannelType: IAX2
Peer: IAX2/carol
PeerStatus: Registered
Address: 198.18.1.40"""

REGISTRATION = b"""Event: OutboundRegistrationDetail
ActionID: abc123
ObjectType: registration
ObjectName: named
MaxRetries: 10
ClientUri: sip:me@carrier.example
SecurityNegotiation: no
AuthRejectionPermanent: true
ServerUri: sips:sip.carrier.example;transport=tls
MaxRandomInitialDelay: 10
SupportPath: false
RetryInterval: 60
ContactHeaderParams:
Expiration: 3600
Transport: udp4
Line: false
ContactUser:
Endpoint:
UserAgent:
ForbiddenRetryInterval: 0
OutboundAuth: carrier
OutboundProxy:
FatalRetryInterval: 0
SupportOutbound: no
Status: Rejected
NextReg: 0"""

SIP_REGISTRY = b"""Event: RegistryEntry
ActionID: abc123
Host: sip.other.example
Port: 5061
Username: me
Domain: sip.other.example
DomainPort: 5060
Refresh: 120
State: Request Sent
RegistrationTime: 0"""

IAX_REGISTRY = b"""Event: RegistryEntry
ActionID: abc123
Host: 198.18.1.55:4569
DNSmanager: N
Username: me
Perceived: <Unregistered>
Refresh: 60
State: Request Sent"""

CONTACT_STATUS = b"""Event: ContactStatus
Privilege: system,all
URI: sip:carol@198.18.1.13:50244;x-ast-orig-host=10.0.0.5:5060
ContactStatus: Reachable
AOR: carol
EndpointName: carol
RoundtripUsec: 202"""

PJSIP_PEER_STATUS = b"""Event: PeerStatus
Privilege: system,all
ChannelType: PJSIP
Peer: PJSIP/carol
PeerStatus: Reachable"""

SIP_REGISTERED = b"""Event: PeerStatus
Privilege: system,all
ChannelType: SIP
Peer: SIP/dave
PeerStatus: Registered
Address: 198.18.1.21:43139"""

SIP_REACHABLE = b"""Event: PeerStatus
Privilege: system,all
ChannelType: SIP
Peer: SIP/dave
PeerStatus: Reachable"""


def packet(recorded: bytes, **changes: str) -> bytes:
    """Return a recorded event, with other values of some of its headers."""
    lines = [line.partition(b":") for line in recorded.split(b"\n")]
    return b"\r\n".join(
        b"%s: %s" % (name, changes.get(name.decode(), "").encode() or value.removeprefix(b" "))
        for name, _, value in lines
    )


def item(recorded: bytes, **changes: str) -> RosterEvent:
    """Return a recorded event's headers, with other values of some of them."""
    found = parse_roster_event(packet(recorded, **changes))
    assert found is not None
    return found
