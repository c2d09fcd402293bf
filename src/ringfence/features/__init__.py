"""The features of ringfence, one folder each (``street.py`` has the rows).

A feature imports the guard, and no other feature. Only ``street.py`` imports a feature, by a computed name.
"""
