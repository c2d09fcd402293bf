"""The detection core: turns security events into attempts, counts attempts, and decides on bans.

A rule decides on a ban if enough attempts lie within its time window. The package performs no I/O and gets
the time as an argument. ``sessions`` has the table of senders and their sessions, and states how events
become attempts. ``attribution`` combines the sources. ``conversation`` and ``nonces`` interpret copied
packets, and ``unexplained`` counts the requests that could not be read. ``history`` has the subjects, and
keeps their attempts within bounds. ``rules`` lists the limits (one row for each rule), and ``judge`` applies
them. ``friend_attempts`` applies those for known phones. ``detector`` connects the parts.

Words of this package:

- *attempt*: one guess or probe of a sender. A *report* is the statement of one source that there was an
  attempt: several sources may report the same one.
- *subject*: what is counted and banned as one sender: an IPv4 address, or the /64 of an IPv6 address. Its
  *key* is the subject as bytes (``history.pack_network``). The *prefix* is the /24 or /48 around it.
- *friend*: an address of a phone or trunk of this PBX. Any other address is a *stranger*.
- *wire*: the source that reads SIP answers that leave this host, and the requests of strangers. The kernel
  copies them. *Observed* friends are copied like strangers. A *hidden* attempt is one that only the wire
  shows.
- *session*: the requests of one sender with one session id (in SIP, the Call-ID).
- *proven* attempt: a TCP handshake, or a nonce that was sent only to its address, shows that it came from
  there. A *claimed* attempt lacks such a proof: a sender of UDP datagrams can forge its address.
- *full* ban: all attempts that its rule needs are proven, or all but one. Any other ban is a *claimed* ban:
  it is shorter, and the number of such bans a minute is limited.
- *confirmed* report: another source, or the kernel, shows that its address is right. An *unconfirmed*
  attempt is *listed* (shown to the administrator), but leads to no ban.
- *consumed* attempt: it has led to a full ban, and counts for no further ban. An attempt that has led to a
  claimed ban usually still counts for a full one.
- *conversation*: the requests of a stranger with one Call-ID, and Asterisk's answers to them.
"""
