"""The command line: ``ringfence COMMAND``, one file for each group of commands.

A *friend* is a known phone or trunk of this PBX. A *source* reports events of one Asterisk: its manager
interface (AMI), a log, or the *wire*, which reads copies of the challenges that Asterisk sends. A *challenge*
is the SIP answer 401 or 407, which asks the sender for a password. A *finding* is one line of
``ringfence check``. A *decoy* is an account that should not exist: an attempt on it causes a ban.
"""
