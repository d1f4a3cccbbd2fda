"""Learned absolute positions: a vector for each place in the block."""

from torch import nn

from birthplace_lm.positions import Positions


class LearnedPositions(Positions):
    """A table (block_size, D) that is added to the characters' vectors, as in GPT (Radford et al. 2018)."""

    def embedding(self) -> nn.Module:
        return nn.Embedding(self.block_size, self.d_model)
