"""Actions outside PJSIP: the exchanges with chan_sip, and the packets of other programs on the host.

It shares no code with ringfence.
"""

from collections.abc import Iterator

from tests.judge.asterisk import Act, Covering, Exchange, Report
from tests.judge.oracle import Sent
from tests.judge.packets import PORT, datagram

RELAY = "nobody"
"""The user of a relay on this host, such as coturn. It sends what strangers request."""
OTHER_SERVER = "198.18.0.9"
"""The address of a container on this host with another SIP server, which has phones of its own."""


class ChanSip(Exchange):
    """An action at chan_sip.

    ``lamp``: a subscription that a wrong password fails. ``lamp refused``: one that is not allowed, after the
    right password. ``call refused``: a call that is not allowed, after the right password. ``registers``: a
    registration, which becomes a contact. ``guesses at chan_sip``: a registration with a wrong password.
    """

    service = "SIP"

    @property
    def method(self) -> str:  # type: ignore[override]  # each exchange has one
        """The method of the requests."""
        return {"lamp": "SUBSCRIBE", "call": "INVITE"}.get(self.act.kind.split()[0], "REGISTER")

    @property
    def session(self) -> str:
        """The session id of the events: an address in the memory of Asterisk."""
        return f"0x7f{self.number:010x}"

    @property
    def nonce(self) -> str:
        """The nonce of chan_sip: a random number."""
        return f"{self.number + 0x10000000:08x}"

    def _events(self) -> Iterator[bytes]:
        kind, right = self.act.kind, ("registers", "call refused")
        yield self._event("ChallengeSent", "Informational", f"Challenge: {self.nonce}")
        if kind in right:
            yield self._event("SuccessfulAuth", "Informational", "UsingPassword: 1")
        elif kind == "guesses at chan_sip":
            returned = f"ReceivedChallenge: {self.nonce}\r\nReceivedHash: {self.response}"
            yield self._event("InvalidPassword", "Error", f"Challenge: {self.nonce}\r\n{returned}")

    def _notices(self) -> Iterator[bytes]:
        return iter(())

    def reports(self, *, copied: bool) -> list[list[Report]]:
        """Return the reports of each source; of a registration, AMI also reports the contact."""
        ami, wire, log = super().reports(copied=copied)
        if self.act.kind == "registers":
            ami.append(Report("contact", f"{self.act.account} {self.source}".encode()))
        return [ami, wire, log]

    def _packets(self) -> Iterator[Report]:
        yield from self._asks(1)
        yield self._answer(self._says("401 Unauthorized", 1))
        yield from self._asks(2)
        if self.act.kind == "registers":
            yield self._answer(self._says("200 OK", 2))
            return
        if self.act.kind == "call refused":
            yield self._answer(self._says("100 Trying", 2))
        why = " (policy)" if self.act.kind == "lamp refused" else ""
        yield self._answer(self._says(f"403 Forbidden{why}", 2))

    def _says(self, status: str, sequence: int) -> bytes:
        account, here = self.act.account, self.act.here
        nonce = f'WWW-Authenticate: Digest algorithm=MD5, realm="asterisk", nonce="{self.nonce}"'
        lines = [
            f"SIP/2.0 {status}",
            f"Via: SIP/2.0/UDP {self.source}:{self.port};branch=z9hG4bK{self.number};received={self.source}",
            *(f"From: <sip:{account}@{here}>;tag=a", f"To: <sip:{account}@{here}>;tag=as{self.number}"),
            f"Call-ID: call-{self.number}",
            *(f"CSeq: {sequence} {self.method}", "Server: Asterisk PBX 16.28.0"),
            *([nonce] if sequence == 1 else []),
            *("Content-Length: 0", "", ""),
        ]
        return "\r\n".join(lines).encode()


class Relayed(Exchange):
    """A relay on the PBX sends ``other`` a text that looks like a hidden guess's refusal."""

    def truth(self) -> list[Sent]:
        """Return nothing: nobody sent Asterisk a request."""
        return []

    def reports(self, *, copied: bool) -> list[list[Report]]:
        """Return the packet of the relay."""
        text = self._challenge(1).replace(b"Call-ID: ", b"Call-ID: \xff")
        packet = datagram(self.act.here, PORT, self.act.other, self.port, text)
        return [[], [Report("wire", packet, program=RELAY)], []]

    @property
    def source(self) -> str:
        """The address that the text names."""
        return self.act.other


class ElsewhereRegistered(Exchange):
    """A phone of the other SIP server logs in there. The server asks again, with a new nonce."""

    @property
    def nonce(self) -> str:
        """The nonce of the other server: of the same form, but from another secret."""
        seconds, _, key = super().nonce.partition("/")
        return f"{seconds}/{key[::-1]}"

    def truth(self) -> list[Sent]:
        """Return nothing: nobody sent Asterisk a request."""
        return []

    def reports(self, *, copied: bool) -> list[list[Report]]:
        """Return the packets of both."""
        packets = [*self._asks(1), *self._answers(1), *self._asks(2), *self._answers(2)]
        return [[], [one for one in packets if copied or one.source == "wire"], []]

    def _answers(self, sequence: int) -> Iterator[Report]:
        packet = datagram(OTHER_SERVER, PORT, self.source, self.port, self._challenge(sequence))
        yield Report("wire", packet, program=OTHER_SERVER)


_KINDS: dict[str, type[Exchange]] = {
    "lamp": ChanSip,
    "lamp refused": ChanSip,
    "call refused": ChanSip,
    "registers": ChanSip,
    "guesses at chan_sip": ChanSip,
    "covers a guess": Covering,
    "relays text": Relayed,
    "logs in at another server": ElsewhereRegistered,
}


def exchange(act: Act, time: float, number: int) -> Exchange:
    """Return an action at a time: the ``number``-th of its world."""
    return _KINDS.get(act.kind, Exchange)(act, time, number)
