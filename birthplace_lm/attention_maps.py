"""Where every head looked while a question was answered: the weights, recorded with hooks.

Row i of a map says how much position i takes from each position j <= i.

Legend: B batch, H heads, T characters of the text, S all positions so far.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from birthplace_lm.corpus import Question, name_span
from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.tokenizer import MASK, CharTokenizer
from birthplace_lm.transformer import Transformer, in_mode


class UnreadableError(ValueError):
    """A question or a model of which no attention can be shown, with the reason."""


@dataclass(frozen=True)
class Reading:
    """A question as the model answered it: the text it read, question⁇answer, and each layer's weights (H, T, T)."""

    question: Question
    answer: Answer
    text: str
    weights: list[Tensor]

    @property
    def asking(self) -> int:
        """The position of the ⁇ after the question: what is seen from there decides the answer's first character."""
        return len(self.question.text)

    @property
    def name_span(self) -> range:
        """Where the name stands; empty where the question is no *Where was … born?*."""
        return name_span(self.question.text)

    @property
    def answer_span(self) -> range:
        """Where the answer stands, as far as the model read it."""
        return range(self.asking + 1, len(self.text))


@contextmanager
def listening(model: Transformer) -> Iterator[list[list[Tensor]]]:
    """The weights (B, H, T, S) that each layer computes meanwhile, a list a layer and an entry a call, oldest first.

    The hooks are gone afterwards, whatever happened. Raises UnreadableError for a layer that has no `weights`.
    """
    heard: list[list[Tensor]] = [[] for _ in model.blocks]
    handles = []
    try:
        for number, (block, calls) in enumerate(zip(model.blocks, heard, strict=True), 1):
            attention = block.attention
            weights = getattr(attention, "weights", None)
            if not isinstance(weights, nn.Module):
                raise UnreadableError(
                    f"layer {number} is a {type(attention).__name__}, which has no submodule `weights` to listen to: "
                    "its attention cannot be read"
                )
            handles.append(weights.register_forward_hook(lambda _, __, output, calls=calls: calls.append(output)))
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def record_weights(model: Transformer, tokens: Tensor) -> list[Tensor]:
    """Each layer's weights (H, T, T) over the text with these tokens (T,), on the CPU and without dropout.

    Raises UnreadableError where a layer has none, or where some are not finite.
    """
    with in_mode(model, training=False), listening(model) as heard:
        model(tokens[None].to(next(model.parameters()).device))
    weights = [calls[0][0].float().cpu() for calls in heard]
    for number, layer in enumerate(weights, 1):
        if not layer.isfinite().all():
            raise UnreadableError(f"layer {number} has attention weights that are not finite: the training diverged")
    return weights


def read(model: Transformer, tokenizer: CharTokenizer, question: str) -> Reading:
    """Have the model answer, then record what it looked at; UnreadableError for a question that does not fit."""
    if len(question) + 1 > model.max_length:
        raise UnreadableError(
            f"the question {question!r} has {len(question) + 1} characters with its ⁇, "
            f"this model sees at most {model.max_length}"
        )
    (answer,) = answer_questions(model, tokenizer, [question])
    text = f"{question}{MASK}{answer.text}"[: model.max_length]  # a last character that does not fit was never read
    weights = record_weights(model, torch.tensor(tokenizer.encode(text)))
    return Reading(Question(question), answer, text, weights)


def about_the_weights(weights: Sequence[Tensor]) -> str:
    """Whether weights are shares of one whole, as after a softmax, or what else, as in differential attention."""
    sums = torch.cat([layer.sum(-1) for layer in weights])  # (heads of all layers, T)
    low, high = (float(value) for value in torch.cat(list(weights)).aminmax())
    if low >= 0 and (sums - 1).abs().max() < 1e-3:
        return "The weights of one head at one character are shares of one whole: they sum to 1."
    subtracted = " A negative weight (orange) takes away what stands there." if low < 0 else ""
    return (
        f"The weights of this model are not shares of one whole: single ones lie between {low:.2f} and {high:.2f}, "
        f"and those of a position sum to between {float(sums.min()):.2f} and {float(sums.max()):.2f}.{subtracted}"
    )
