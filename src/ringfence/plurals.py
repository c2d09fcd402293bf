"""Numbers with their nouns, in texts for people."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 packet``, ``2 packets``. Without ``many``, the plural adds an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
