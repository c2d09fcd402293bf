"""The ipset backend: bans in sets of ipset, and rules of iptables that use them."""
