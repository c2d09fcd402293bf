"""Contents of copied packets: answers that leave, requests of strangers, and streams that cannot be read."""

from ringfence.values import fast
from ringfence.values.event import Service, Transport
from ringfence.values.network import Address


@fast.frozen
class CopiedAnswer:
    """A SIP answer that left this host or one of its containers, as the kernel copied it.

    It is a 401, 403, 404 or 407, or any other answer by UDP to a stranger (not a known phone or trunk).

    ``address`` and ``port`` are its destination, ``local_address`` and ``local_port`` its origin. For a
    container the origin is the address inside the container. ``call_id`` and ``nonce`` are raw bytes, used
    only for comparison, and empty if the packet did not contain them. A 403 or 404 has no nonce. For these,
    ``digest`` is a hash of the answer, by which a retransmission is recognized.

    ``sender`` is the address from which the request came, None if it is uncertain. It may differ from the
    destination, because the sender can name another destination (``maddr`` in the Via header). Asterisk
    writes the real source address into the topmost Via, where the sender cannot change it.

    ``transport`` is ``UDP``, or ``TCP`` for TCP and WebSocket. With ``TCP``, the kernel has completed a
    handshake with the destination, so that address is not forged. ``relayed`` means that the answer has more
    than one Via, so its destination may forward it (RFC 3261 §16.7).

    ``sequence`` is the number in its CSeq header, which is that of the request; None if it is unknown.
    ``accepted`` means that the answer shows that the password was right: only the nonce was too old, or the
    right password does not permit the request.

    ``evasive`` means that the request contained bytes that suppress or forge Asterisk's own events. No phone
    sends such bytes. ``account`` is the sender's own text, for display. ``service`` is the part of Asterisk
    that answered: PJSIP or chan_sip.
    """

    address: Address
    port: int
    local_address: Address
    local_port: int
    call_id: bytes
    nonce: bytes
    sender: Address | None = None
    evasive: bool = False
    account: str = ""
    service: Service = Service.PJSIP
    status: int = 401
    transport: Transport = Transport.UDP
    relayed: bool = False
    digest: bytes = b""
    sequence: int | None = None
    accepted: bool = False


@fast.frozen
class CopiedRequest:
    """A request of a stranger to a SIP port, which the kernel copied: a datagram, or a message by TCP.

    ``nonces``, ``call_ids`` and ``sequences`` (the numbers in CSeq headers) are the first few of the request,
    in every way in which an Asterisk may read it. ``credentials``: it may answer a challenge. ``digest`` is a
    hash of the request, by which a retransmission is recognized. ``dropped``: a ban drops it, so Asterisk
    does not get it. ``account`` is the user name of its credentials, "" if they may name several. ``method``
    is one of ``METHODS``, "" for another. ``transport`` is TCP also for a WebSocket. ``crowded``: it has more
    nonces, Call-IDs or numbers than are kept, so the true ones may be missing. A request can be forged. But
    if it repeats a nonce that Asterisk sent only to this address, its sender receives packets there: the
    address is proven.

    ``fingerprint`` is a number for the nonce and the response in its credentials, 0 without credentials. AMI
    reports both of a wrong password, so its report of this request has the same number. If Asterisk may read
    several, the request is ambiguous, and no report has the number
    (:func:`~ringfence.values.event.ambiguous_fingerprint`): of several headers AMI shows the first one, and
    reports nothing if that is not UTF-8. But Asterisk may check another one.

    ``unread``: only the beginning of a datagram was copied. ``diverted``: its answer may not reach its
    sender, because the datagram has a ``maddr`` somewhere, or because the sender has closed its receive
    window (TCP). ``redirected``: the Via of a datagram has the answer sent to another address than its
    sender's.

    Some values are no request, but facts about a TCP connection; they have no Call-ID. ``unread``: the wire
    cannot read the connection any more. ``diverted``: the sender's window is closed, so the answers to its
    earlier requests may not reach it. ``page``: a browser opens a WebSocket for a web page of another site.
    """

    address: Address
    port: int
    nonces: tuple[bytes, ...]
    call_ids: tuple[bytes, ...]
    sequences: tuple[int, ...] = ()
    credentials: bool = False
    digest: bytes = b""
    dropped: bool = False
    unread: bool = False
    account: str = ""
    transport: Transport = Transport.UDP
    method: str = ""
    crowded: bool = False
    diverted: bool = False
    redirected: bool = False
    page: bool = False
    fingerprint: int = 0


@fast.frozen
class Exchange:
    """What a packet that this host sent shows of a stranger's requests that cannot be read, such as by TLS.

    ``number`` answers begin in it, and it acknowledges ``asked`` bytes of the stranger. ``address`` and
    ``port`` are its destination. The kernel has completed a handshake with it. ``local_port`` is the port
    that sent it. ``opens``: bytes acknowledged before belonged to the TLS handshake, not to a request.
    ``transport`` is TLS (also for WSS), or TCP (also for WS) if only the stranger's requests cannot be read,
    but the answers can. ``begun``: the kernel copied the beginning of the connection. Otherwise it may have
    begun, and logged in, before this daemon.
    """

    address: Address
    port: int
    number: int
    local_port: int
    asked: int = 0
    opens: bool = False
    transport: Transport = Transport.TLS
    begun: bool = True
