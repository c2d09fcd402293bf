"""The backend ipset: sets of ipset, rules of iptables."""
