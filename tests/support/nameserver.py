"""A small DNS server on loopback, which says what a test wants it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Zone = dict[tuple[str, str], list[str]]
"""What is known: (name, kind) → texts of records."""


class NameServer(asyncio.DatagramProtocol):
    """Answers from ``zone``; with ``silent``, ``failing`` or ``junk`` it does not, or fails, or raves.

    ``asked`` are the questions so far. A name of which nothing is known does not exist.
    """

    def __init__(self, zone: Zone, ttl: int = 300) -> None:
        self.zone = zone
        self.ttl = ttl
        self.silent = False
        self.failing: set[str] = set()  # kinds of records
        self.junk = b""
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Know where to answer from."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question, or what the test wants."""
        assert self._transport is not None
        if self.silent:
            return
        self._transport.sendto(self.junk or self._answer(data), addr)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        [question] = query.question
        name = question.name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if kind in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif (name, kind) in self.zone:
            records = self.zone[name, kind]
            response.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *records))
        elif name not in {known for known, _ in self.zone}:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()


@asynccontextmanager
async def name_server(zone: Zone, ttl: int = 300) -> AsyncIterator[NameServer]:
    """Answer while the block runs, at 127.0.0.1 and the server's ``port``."""
    server = NameServer(zone, ttl)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
