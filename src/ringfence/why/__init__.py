"""Why an address is banned, or is not: all that is known of it, and what would have to happen.

What is asked of the daemon is gathered by ``asking``, what can be told without one by ``alone``; both give a
``known.Known``. ``outlook`` says in sentences what follows from it, ``document`` writes it as JSON.
"""
