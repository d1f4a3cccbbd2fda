"""Attention by hand: small constructions that show what one attention layer can do and what it cannot.

Each file is one demonstration: a construction in a few lines of float64, claims that are checked against bounds that
follow from the theory, and a figure. All but `lookup`, which trains one-layer models, choose keys and queries by hand.

Source: Stanford CS224N (Winter 2021), assignment 5, part 1, where the same constructions are argued on paper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Claim:
    """A sentence that a number decides: it holds while the measured value is on its side of the bound.

    The bound follows from the theory, not from the measurement; a measured NaN holds for nothing.
    """

    sentence: str
    measured: float
    bound: float
    relation: Literal["<", ">"] = "<"

    @property
    def holds(self) -> bool:
        return self.measured < self.bound if self.relation == "<" else self.measured > self.bound


@dataclass(frozen=True)
class Demonstration:
    """What one demonstration found: the sentence it proves, the claims that carry it, its numbers and its picture.

    `figures` holds the numbers, in containers that JSON can write; `draw` makes the picture when it is asked for, so
    that claims can be checked without matplotlib; `notes` say, with numbers, where the derivation and the usual
    statement differ; `construction` says in plain words what was built.
    """

    name: str
    title: str
    proves: str
    claims: tuple[Claim, ...]
    figures: Mapping[str, Any]
    draw: "Callable[[], Figure]"
    notes: tuple[str, ...] = ()
    construction: str = ""

    @property
    def holds(self) -> bool:
        return all(claim.holds for claim in self.claims)
