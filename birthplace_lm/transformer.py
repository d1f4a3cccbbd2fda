"""The language model: a pre-norm GPT whose attention and positions are handed in.

Legend: B batch, T time, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from birthplace_lm import rms_norm
from birthplace_lm.dropout import Dropout
from birthplace_lm.layer_memory import LayerMemory
from birthplace_lm.positions import Positions

Cache = list[LayerMemory]


class Attention(Protocol):
    """What the model needs of an attention beside its forward pass; birthplace_lm.attention has the whole contract."""

    max_length: int
    output: nn.Linear  # the last layer of the residual branch

    def __call__(self, x: Tensor, cache: dict[str, Tensor] | None = None) -> Tensor: ...


class GeluMLP(nn.Sequential):
    """D -> 4D -> D with GELU between, the exact one (Hendrycks & Gimpel 2016); GPT-2 has its tanh approximation."""

    def __init__(self, d_model: int, expansion: int = 4, bias: bool = True):
        super().__init__(*_around(nn.GELU(), d_model, expansion, bias))


class _ReluSquared(torch.autograd.Function):
    """Goes back in two passes over memory instead of four, which is a tenth of a small model's step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rest = F.relu(x)
        ctx.save_for_backward(rest)
        return rest * rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rest,) = ctx.saved_tensors
        return (gradient * rest).mul_(2)


class ReluSquared(nn.Module):
    """max(0, x)² (So et al. 2021, Primer)."""

    def forward(self, x: Tensor) -> Tensor:
        return _ReluSquared.apply(x)


class ReluSquaredMLP(nn.Sequential):
    """D -> 4D -> D with ReLU² between: half the hidden units rest, and the others say so strongly."""

    def __init__(self, d_model: int, expansion: int = 4, bias: bool = False):
        super().__init__(*_around(ReluSquared(), d_model, expansion, bias))


def _around(activation: nn.Module, d_model: int, expansion: int, bias: bool) -> tuple[nn.Module, nn.Module, nn.Module]:
    if expansion < 1:
        raise ValueError(f"an MLP {expansion} times as wide as the model: use an expansion of 1 or more")
    hidden = expansion * d_model
    return nn.Linear(d_model, hidden, bias), activation, nn.Linear(hidden, d_model, bias)


class LayerNorm(nn.LayerNorm):
    """Ba et al. 2016, with gain and bias."""

    def __init__(self, d_model: int):
        super().__init__(d_model)


class RMSNorm(rms_norm.RMSNorm):
    """Zhang & Sennrich 2019: no mean taken, no bias."""

    def __init__(self, d_model: int):
        super().__init__(d_model)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    attention: Attention

    def __init__(self, attention: Attention, mlp: nn.Sequential, norms: tuple[nn.Module, nn.Module], dropout: float):
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention, self.mlp, self.dropout = attention, mlp, Dropout(dropout)

    def forward(self, x: Tensor, cache: dict[str, Tensor] | None = None, last: int | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, last, D) where only the last positions are asked for."""
        x = x + self.dropout(self.attention(self.attention_norm(x), cache))  # (B, T, D)
        if last is not None:
            x = x[:, -last:]  # (B, last, D)
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Transformer(nn.Module):
    """Characters in, next characters' logits out.

    `attention`, `mlp`, `norm` and `positions` are factories (classes or partials of them): called once a layer, so that
    no two layers share a module. Weights start at N(0, 0.02) and biases at 0 (Radford et al. 2019), unless a part knows
    better. `zero_init_outputs` starts every residual branch at 0, so that the model begins as a bigram table.
    """

    def __init__(
        self,
        vocabulary_size: int,
        n_layers: int,
        n_heads: int,
        d_model: int,
        block_size: int,
        attention: Callable[..., Attention],
        positions: Callable[..., Positions],
        mlp: Callable[..., nn.Sequential] = GeluMLP,
        norm: Callable[..., nn.Module] = LayerNorm,
        dropout: float = 0.1,
        zero_init_outputs: bool = False,
    ):
        super().__init__()
        if min(vocabulary_size, n_layers, n_heads, d_model, block_size) < 1:
            raise ValueError(
                f"a model of {n_layers} layers, {n_heads} heads, width {d_model}, a block of {block_size} and "
                f"{vocabulary_size} characters: use 1 or more of each"
            )
        where = positions(block_size=block_size, d_model=d_model, n_heads=n_heads)
        self.characters = nn.Embedding(vocabulary_size, d_model)
        self.positions = where.embedding()
        self.dropout = Dropout(dropout)
        blocks = [
            Block(
                _as_promised(
                    attention(d_model=d_model, n_heads=n_heads, block_size=block_size, dropout=dropout, positions=where)
                ),
                mlp(d_model=d_model),
                (norm(d_model=d_model), norm(d_model=d_model)),
                dropout,
            )
            for _ in range(n_layers)
        ]  # fmt: skip
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm(d_model=d_model)
        self.head = nn.Linear(d_model, vocabulary_size, bias=False)
        self.max_length = min([block_size, *(block.attention.max_length for block in blocks)])
        self.apply(_initialise)
        if zero_init_outputs:
            for block in blocks:
                nn.init.zeros_(block.attention.output.weight)
                nn.init.zeros_(block.mlp[-1].get_parameter("weight"))

    def passes(self) -> list[tuple[nn.Module, str]]:
        """The methods that a forward pass consists of, (module, name), blocks being alike: each compiles by itself."""
        return [(self, "embed"), *((block, "forward") for block in self.blocks), (self, "read_out")]

    def new_cache(self) -> Cache:
        """An empty memory for decoding, one a layer."""
        return [LayerMemory(forks=getattr(block.attention, "forks", False)) for block in self.blocks]

    def forward(self, tokens: Tensor, cache: Cache | None = None, offset: int = 0, last: int | None = None) -> Tensor:
        """Logits (B, T, V) for tokens (B, T); with a cache, the tokens stand at positions offset … offset + T - 1.

        Where only what follows the last positions is asked for, (B, last, V): a sixth less work in four layers.
        """
        return self.read_out(self._through_blocks(tokens, cache, offset, last))

    def hidden(self, tokens: Tensor, cache: Cache | None = None, offset: int = 0, last: int | None = None) -> Tensor:
        """What the head reads, as `forward` does: (B, T) -> (B, T or last, D)."""
        return self.norm(self._through_blocks(tokens, cache, offset, last))

    def embed(self, tokens: Tensor, offset: int = 0) -> Tensor:
        """What the first block reads: (B, T) -> (B, T, D)."""
        x = self.characters(tokens)  # (B, T, D)
        if self.positions is not None:
            places = torch.arange(offset, offset + tokens.shape[1], device=tokens.device)
            x = x + self.positions(places)  # (B, T, D)
        return self.dropout(x)

    def read_out(self, x: Tensor) -> Tensor:
        """Logits of what the last block leaves: (B, T, D) -> (B, T, V)."""
        return self.head(self.norm(x))

    def _through_blocks(self, tokens: Tensor, cache: Cache | None, offset: int, last: int | None = None) -> Tensor:
        length = offset + tokens.shape[1]
        if length > self.max_length:
            raise ValueError(f"a sequence of {length} characters, but this model sees at most {self.max_length}")
        x = self.embed(tokens, offset)
        memories: Sequence[dict[str, Tensor] | None] = cache or [None] * len(self.blocks)
        for number, (block, memory) in enumerate(zip(self.blocks, memories, strict=True), start=1):
            x = block(x, memory, last if number == len(self.blocks) else None)  # (B, T, D)
        return x

    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The model in training mode or out of it, and afterwards each of its modules as it was, whatever happened."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _as_promised(attention: Any) -> Attention:
    """The same, or TypeError where it lacks what `Attention` says that the model asks it for."""
    if missing := [name for name in ("max_length", "output") if not hasattr(attention, name)]:
        raise TypeError(
            f"{type(attention).__name__} has no {' and no '.join(missing)}: an attention says how many positions it "
            "can see (max_length) and which layer is its last (output, a Linear)"
        )
    promised: Attention = attention
    return promised


def _initialise(module: nn.Module) -> None:
    """N(0, 0.02) for matrices and embeddings, 0 for biases; attention parameters of their own are left as they are."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
