"""Lengths of time, as people read them."""


def span(seconds: float) -> str:
    """Write a length of time in its two largest units: ``6d 3h``, ``59m 12s``."""
    units = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, letter in units:
        number, left = divmod(left, size)
        if number or (size == 1 and not parts):
            parts.append(f"{number}{letter}")
    return " ".join(parts[:2])
