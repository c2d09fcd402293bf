"""Asterisk's export of its decrypted SIP messages (HEP): what senders do by TLS and WSS, for the wire.

The kernel copies these datagrams to the wire (``stage.py``), ``ringfence.parse.hep`` parses them, and
``guard.py`` passes on what they show.
"""
