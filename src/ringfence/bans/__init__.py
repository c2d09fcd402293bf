"""From decisions to bans in the kernel, and the account of them.

``enforce`` places and lifts bans; what it knows of them is the ``ledger``, what outlasts it is in the
``records``. ``exempt`` says who is not banned, ``lifting`` lets in again, ``reconcile`` keeps kernel and
account together, and ``ineffective`` tells of bans that do not work.
"""
