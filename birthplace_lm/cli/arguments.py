"""What several commands take as arguments."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on, as argparse's `type`: ArgumentTypeError for less, ValueError for no number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {number}")
    return number
