"""Events to attempts, attempts to windows, windows to bans; pure, with the time as an argument.

``fold`` makes attempts of security events, ``window`` counts them exactly and within bounds, ``rules`` says
what is counted and what follows (one row a rule), ``detector`` puts the three together.
"""
