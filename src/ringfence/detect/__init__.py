"""The detection core: turns security events into attempts, counts attempts, and decides on bans.

A rule decides on a ban if enough attempts lie within its time window. The package performs no I/O and gets
the time as an argument. ``session`` states how events become attempts, ``sender`` has the table of senders
and sessions, ``attribution`` combines the sources. ``history`` keeps the attempts within bounds, ``rules``
lists the limits (one row for each rule), ``detector`` connects the parts.

Words of this package:

- *subject*: what is counted and banned as one sender: an IPv4 address, or the /64 of an IPv6 address. Its
  *key* is the subject as bytes (``history.key_of``). The *prefix* is the /24 or /48 around it.
- *friend*: an address of a phone or trunk of this PBX. Any other address is a *stranger*.
- *wire*: the source that reads SIP challenges and other answers (401, 403, 404, 407) that leave this host.
  The kernel copies them. A *hidden* attempt is one that only the wire shows.
- *session*: the requests of one sender with one session id (in SIP, the Call-ID).
- *proven* attempt: a TCP handshake, or a nonce that was sent only to its address, shows that it came from
  there. A *claimed* attempt lacks such a proof: a sender of UDP datagrams can forge its address.
- *full* ban: at least all but one of the attempts that its rule needs are proven. Any other ban is a
  *claimed* ban: it is shorter, and the number of such bans a minute is limited.
- *confirmed* report: another source, or the kernel, shows that its address is right. An *unconfirmed*
  attempt is listed, but leads to no ban.
- *consumed* attempt: it has led to a ban, and counts for no further one.
"""
