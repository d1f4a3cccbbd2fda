"""What of a model learns while it is finetuned: everything, some of its parts, or small additions to its matrices.

An adaptation (one function a file in this folder) is called with the Transformer before the optimizer is made. It
leaves requires_grad on what is to learn and takes it off the rest; it may add parameters as parametrizations. Frozen
weights get neither gradient nor optimizer state nor weight decay. `merged` makes it the plain model again, so what a
run keeps is read as any other.

How little of a model has to move to answer a question says where the answer was: in what is stored, or in the way out.

The contract: `adaptation(model) -> None`, ValueError with the numbers for what the model has not.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize

from birthplace_lm.transformer import Transformer

PARTS = ("embeddings", "attention", "mlp", "head")


def part_of(name: str) -> str:
    """The part of the model that a parameter belongs to, a norm to what reads from it.

    >>> [part_of(name) for name in ("characters.weight", "blocks.1.mlp_norm.weight", "norm.weight", "positions.weight")]
    ['embeddings', 'mlp', 'head', 'embeddings']
    """
    top, _, rest = name.partition(".")
    if top == "blocks":
        return "mlp" if rest.split(".")[1] in ("mlp", "mlp_norm") else "attention"
    return "head" if top in ("norm", "head") else "embeddings"


def check_parts(parts: Sequence[str], known: Sequence[str] = PARTS) -> None:
    """Raise ValueError unless parts names some of the known ones, each once."""
    if isinstance(parts, str) or not parts or len(set(parts)) < len(parts) or not set(parts) <= set(known):
        raise ValueError(f"parts is a list of one or more of {', '.join(known)}, each once, not {parts}")


def n_learning(model: nn.Module) -> int:
    """How many of a model's numbers learn."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def merged(model: Transformer) -> Transformer:
    """The same model, in place, with additions worked into the weights and nothing frozen: the same function."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name)
    return model.requires_grad_(True)
