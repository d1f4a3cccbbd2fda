"""Seconds in words."""


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(3725), duration(75), duration(9)
    ('1 h 02 min', '1 min 15 s', '9 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
