"""Numbers in sentences."""


def counted(number: int, what: str) -> str:
    """So many things; the name is that of one of them.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"
