"""The firewall: bans out to the kernel, and what the kernel says back.

``contract`` is what the rest of ringfence knows; a backend is one more file and one row in ``BACKENDS``
(``ipset`` drops in the kernel with ipset and iptables, ``memory`` only remembers, for dry runs and demos;
nftables will be the next row). Nothing outside this room names a concrete backend.
"""
