"""How large our model is, in the words that other libraries ask for."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from birthplace_lm.benchmarks.ways import UnavailableError
from birthplace_lm.transformer import ReluSquared, Transformer

TOLERANCE = 0.02  # of the weights: without biases, or with positions elsewhere, no library's model has exactly as many


@dataclass(frozen=True)
class Sizes:
    """What a peer's model is made of; the peers have LayerNorm and, unless it is ReLU², GELU."""

    vocabulary: int
    block_size: int
    d_model: int
    n_layers: int
    n_heads: int
    hidden: int  # of the MLP
    relu_squared: bool
    mlp_bias: bool
    dropout: float
    parameters: int

    @classmethod
    def of(cls, model: Transformer) -> "Sizes":
        """Those of one of our models."""
        block: Any = model.blocks[0]
        widen, activation = block.mlp[0], block.mlp[1]
        return cls(
            vocabulary=model.characters.num_embeddings,
            block_size=model.max_length,
            d_model=model.characters.embedding_dim,
            n_layers=len(model.blocks),
            n_heads=block.attention.n_heads,
            hidden=widen.out_features,
            relu_squared=isinstance(activation, ReluSquared),
            mlp_bias=widen.bias is not None,
            dropout=model.dropout.p,
            parameters=model.n_parameters(),
        )

    def check(self, theirs: nn.Module) -> None:
        """Raise UnavailableError for a model that is not as large as ours within 2 %."""
        count = sum(parameter.numel() for parameter in theirs.parameters())
        if abs(count / self.parameters - 1) > TOLERANCE:
            raise UnavailableError(
                f"it would have {count:,} weights and ours has {self.parameters:,}, more than {TOLERANCE:.0%} apart: "
                "compare with --attention vanilla and a model of the same parts"
            )
