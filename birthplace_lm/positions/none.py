"""No positions: a causal model can still count, since every position sees one character more than the last."""

from birthplace_lm.positions import Positions


class NoPositions(Positions):
    """Nothing is added or turned (Haviv et al. 2022)."""
