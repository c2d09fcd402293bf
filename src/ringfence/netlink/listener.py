"""Sockets for the messages that the kernel sends without a request: notifications and copied packets."""

import socket
from collections.abc import Iterable

from ringfence.netlink.connection import SOL_NETLINK

ADD_MEMBERSHIP, DROP_MEMBERSHIP = 1, 2
_SO_RCVBUFFORCE = 33


def open_listener(protocol: int, buffer: int, groups: Iterable[int] = ()) -> socket.socket:
    """Open a socket that never blocks, for messages that the kernel sends without a request.

    ``protocol`` is that of netlink, such as NETLINK_NETFILTER. ``buffer`` is the size of the receive buffer
    in bytes, which the kernel doubles. In a user namespace, ``net.core.rmem_max`` limits it. ``groups`` are
    the kernel's groups to join. Raise OSError if the kernel refuses anything else.
    """
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    try:
        try:
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        except PermissionError:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind((0, 0))
        for group in groups:
            listener.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
    except OSError:
        listener.close()
        raise
    return listener
