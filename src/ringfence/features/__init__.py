"""The features of ringfence, one folder each (``street.py`` has the rows).

A feature imports the guard, and no other feature. Nothing imports a feature: the guard collects what it
brings.
"""
