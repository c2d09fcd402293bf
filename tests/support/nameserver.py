"""A small DNS server on loopback, which answers as a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Zone = dict[tuple[str, str], list[str]]
"""The records: (name, type) → texts of records."""


class NameServer(asyncio.DatagramProtocol):
    """A server that answers from ``zone``, unless ``silent``, ``failing`` or ``junk`` is set.

    ``silent``: it sends no answer. ``failing``: it answers SERVFAIL for these types. ``junk``: it sends these
    bytes. ``asked`` are the questions so far. A name without a record does not exist.
    """

    def __init__(self, zone: Zone, ttl: int = 300) -> None:
        self.zone = zone
        self.ttl = ttl
        self.silent = False
        self.failing: set[str] = set()  # types of records
        self.junk = b""
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for the answers."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question, as the test wants."""
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
    """Run a server while the block runs, at 127.0.0.1 and its ``port``."""
    server = NameServer(zone, ttl)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
