"""Strangers that ask for the bare address of the PBX, as scanners do, and not for a name of its own.

``target`` reads what a copied request asks for, and ``habits`` keeps what friends ask for. Both are pure.
``guard`` judges the requests of strangers.
"""
