"""The ports on which Asterisk is reached, and what is spoken at each."""

from attrs import frozen

PROTOCOLS = ("udp", "tcp")
_SIP = 5060
_IAX2 = 4569


@frozen
class Ports:
    """The ports of Asterisk, in ascending order.

    ``tcp`` includes the ports of SIP over TLS, WS and WSS, and those of the manager interface. ``sip``,
    ``sips`` and ``other`` are those TCP ports that answered in SIP, in SIP by TLS, and otherwise. The
    protocol of the rest is guessed from their numbers.
    """

    udp: tuple[int, ...] = (_IAX2, 5060)
    tcp: tuple[int, ...] = (5038, 5060, 5061, 8089)
    sip: tuple[int, ...] = ()
    sips: tuple[int, ...] = ()
    other: tuple[int, ...] = ()

    def of(self, protocol: str) -> tuple[int, ...]:
        """Return the ports of a protocol ("udp" or "tcp")."""
        return self.udp if protocol == "udp" else self.tcp

    @property
    def have_sip(self) -> bool:
        """Whether one of the ports may be one of SIP: by TCP or TLS, or a UDP port besides that of IAX2."""
        return bool(self.conversations.udp or self.streams or self.tls)

    @property
    def conversations(self) -> "Ports":
        """The ports whose packets to and from strangers the kernel copies to ringfence.

        The UDP port of IAX2 is left out, because it carries voice, and so are the ports of TLS.
        """
        clear = tuple(port for port in self.tcp if port not in self.tls)
        return Ports(tuple(port for port in self.udp if port != _IAX2), clear)

    @property
    def streams(self) -> tuple[int, ...]:
        """The ports of plain SIP over TCP; by number 5060, and those that have a UDP port of the same number.

        The other TCP ports may serve more than SIP: web pages, ARI, the manager interface.
        """
        guessed = {_SIP, *self.udp}.difference(self.tls, self.other)
        return tuple(port for port in self.tcp if port in guessed.union(self.sip))

    @property
    def tls(self) -> tuple[int, ...]:
        """The ports of SIP over TLS; by number 5061, and the one after each UDP port that is no UDP port."""
        after = {_SIP + 1} | {port + 1 for port in self.udp} - {*self.udp}
        guessed = after.difference(self.sip, self.other)
        return tuple(port for port in self.tcp if port in guessed.union(self.sips))

    def is_like(self, other: "Ports") -> bool:
        """Whether ``other`` needs the same firewall rules as these ports."""
        mine = self.udp, self.tcp, self.streams, self.tls
        return mine == (other.udp, other.tcp, other.streams, other.tls)

    @property
    def web(self) -> tuple[int, ...]:
        """The TCP ports without those of SIP over TCP or TLS, such as those of HTTP (also WS) and of AMI."""
        return tuple(port for port in self.tcp if port not in self.streams + self.tls)
