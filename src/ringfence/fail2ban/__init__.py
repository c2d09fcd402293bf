"""fail2ban's side of a move: what its asterisk jails are told, and whom they have banned.

Only ``import-fail2ban`` needs this. Files and database are read, never written; what cannot be carried over
is said, and the rest is carried all the same.
"""
