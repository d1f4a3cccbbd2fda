"""Partial finetuning: some parts of the model learn, the others stay as they were pretrained."""

from collections.abc import Sequence

from birthplace_lm.adaptation import check_parts, n_learning, part_of
from birthplace_lm.transformer import Transformer


def some_parts(model: Transformer, parts: Sequence[str], last_layers: int | None = None) -> None:
    """Freeze all but the named parts: embeddings (of characters and places), attention, mlp, head (with its norm).

    `last_layers` leaves attention and mlp to the last so many layers. Raises ValueError for unknown parts, for layers
    that the model has not, and where nothing would learn.
    """
    check_parts(parts)
    n_layers = len(model.blocks)
    if last_layers is not None and not 1 <= last_layers <= n_layers:
        raise ValueError(f"last_layers is {last_layers}, the model has {n_layers} layers: choose 1 … {n_layers}")
    if last_layers is not None and not {"attention", "mlp"} & set(parts):
        raise ValueError(f"last_layers {last_layers} means attention and mlp, but parts has only {', '.join(parts)}")
    first = n_layers - last_layers if last_layers else 0
    for name, parameter in model.named_parameters():
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else first
        parameter.requires_grad_(part_of(name) in parts and layer >= first)
    if not n_learning(model):
        raise ValueError(f"of {model.n_parameters():,} parameters none is in {', '.join(parts)}: nothing would learn")
