"""Netlink messages: framing, acknowledgements, NFLOG, and the list of sockets.

Netlink is the interface between the kernel and programs for firewall rules and sockets. NFLOG is the kernel's
packet log. A *dump* is a list that the kernel sends in any number of messages, such as the elements of a set.
A netlink *port* is the number of a socket, by which the kernel names the program that sent a message.
"""
