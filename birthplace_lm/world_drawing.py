"""The random draws of the invented world: pure functions of a seed, a purpose and the number of the person.

Nothing has a state, so any person can be made alone, in any order and on any machine, and comes out the same.
"""

import hashlib
import math
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from birthplace_lm.world_words import CULTURES, MIDDLE_NAMES, PLAIN_NAMES, TEMPLATES

Integers = NDArray[np.int64]
_LENGTH_SHARES = {2: 0.3, 3: 0.4, 4: 0.3}  # of the sentences beside the birthplace
_POSITION_SHARES = (0.35, 0.3, 0.2, 0.1, 0.05)  # of the birthplace among the sentences: late ones are seen less often


def draw(seed: int, stream: str, index: Integers) -> NDArray[np.uint64]:
    """64 random bits for each index, alike on every machine: SplitMix64 (Steele et al. 2014) with the index as counter.

    A stream is one purpose ("hobby"); its key is a hash, so that streams and seeds have nothing to do with each other.
    """
    key = np.uint64(int.from_bytes(hashlib.sha256(f"{seed} {stream}".encode()).digest()[:8], "little"))
    bits = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def below(seed: int, stream: str, index: Integers, limit: int) -> Integers:
    """A number from 0 to limit - 1 for each index."""
    high = draw(seed, stream, index) >> np.uint64(32)
    return ((high * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def uniform(seed: int, stream: str, index: Integers) -> NDArray[np.float64]:
    """A number in [0, 1) for each index."""
    return (draw(seed, stream, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def pick(weights: NDArray[np.float64], point: NDArray[np.float64]) -> Integers:
    """For each point in [0, 1) the entry it falls on when the weights are laid end to end; weight 0 is never picked."""
    ends = np.cumsum(weights)
    inside = np.nextafter(ends[-1], 0)  # a product rounded up to the very end would fall behind the last entry
    return np.searchsorted(ends, np.minimum(point * ends[-1], inside), side="right")


def pick_another(weights: NDArray[np.float64], point: NDArray[np.float64], taken: Integers) -> Integers:
    """As `pick`, with the entry `taken` left out: knowing the one tells no more of the other than that they differ."""
    ends = np.cumsum(weights)
    place = point * (ends[-1] - weights[taken])
    beyond = place >= (ends - weights)[taken]
    place = np.minimum(np.where(beyond, place + weights[taken], place), np.nextafter(ends[-1], 0))
    return np.searchsorted(ends, place, side="right")


def draw_birthplaces(
    seed: int, index: Integers, culture: Integers, weights: NDArray[np.float64], correlation: float
) -> Integers:
    """A town number for each person: with probability `correlation` a town of the culture, otherwise any town."""
    point = uniform(seed, "birthplace", index)
    birthplace = pick(weights, point)
    at_home = uniform(seed, "at home", index) < correlation
    groups = min(len(CULTURES), len(weights))  # with fewer towns than cultures, cultures share a town
    for group in range(groups):
        local = at_home & (culture % groups == group)
        birthplace[local] = pick(weights * (np.arange(len(weights)) % groups == group), point[local])
    return birthplace


def permute(seed: int, stream: str, rank: Integers, size: int) -> Integers:
    """A permutation of range(size), evaluated where it is asked for.

    Four Feistel rounds on the smallest square grid that holds `size` cells; a value beyond `size` goes round again
    until it lands within (cycle walking: Black & Rogaway 2002), which keeps the map one-to-one.
    """
    side = math.isqrt(size - 1) + 1
    value, outside = rank.copy(), np.ones(len(rank), dtype=bool)
    while outside.any():
        left, right = np.divmod(value[outside], side)
        for turn in range(4):
            left, right = right, (left + below(seed, f"{stream} {turn}", right, side)) % side
        value[outside] = left * side + right
        outside = value >= size
    return value


def name_numbers(seed: int, index: Integers) -> Integers:
    """The number of each person's name: six of eight people have a plain one while these last, others a middle name."""
    group, place = np.divmod(index, 8)
    early = index < PLAIN_NAMES // 6 * 8
    plain = early & (place < 6)
    rank = np.where(early, group * 2 + place - 6, index - PLAIN_NAMES)
    number = np.empty_like(index)
    number[plain] = permute(seed, "plain name", (group * 6 + place)[plain], PLAIN_NAMES)
    number[~plain] = PLAIN_NAMES + permute(seed, "middle name", rank[~plain], MIDDLE_NAMES)
    return number


@cache
def sentence_orders(fixed: bool) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """The orders that the sentences of a biography may have, as numbers of TEMPLATES, and how often each is drawn.

    Three to five sentences: the birthplace, the residence and one to three of the other facts. The birthplace stands
    anywhere, rather early than late. Where `fixed`, the other sentences keep the order of TEMPLATES.
    """
    birthplace, *others = range(len(TEMPLATES))
    residence = list(TEMPLATES).index("residence")
    orders, weights = [], []
    for length, part in _LENGTH_SHARES.items():
        rests = [rest for rest in permutations(others, length) if residence in rest]
        rests = [rest for rest in rests if not fixed or list(rest) == sorted(rest)]
        shares = _POSITION_SHARES[: length + 1]
        for position, share in enumerate(shares):
            orders += [(*rest[:position], birthplace, *rest[position:]) for rest in rests]
            weights += [part * share / sum(shares) / len(rests)] * len(rests)
    return tuple(orders), tuple(weights)
