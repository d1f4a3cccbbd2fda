"""A dense synthesizer cannot look up by content in one layer; where it is by position, it can.

The synthesizer's weights at place i are softmax(ReLU(x_i A + b₁)B + b₂): a function of x_i and of the place j, never of
what stands at j. Take two sequences that ask for the same key at the same place and differ in where its pair stands:
the weights are the same to the bit, so the layer turns to the right place only if that place is the same in both. All
else it has is the mixture of values, in the same proportions whichever key is asked. Vanilla attention compares the
asked key with every key that stands there, and its weights go where the pair goes.

**What follows and what does not.** Of the weights the above is a theorem. Of the whole layer it is not: the mixture
passes through an MLP that knows which key is asked, and could be a list of all pairs if it were wide enough (one head a
pair would do; with h heads and more pairs than heads they have to share). So the bound 1/n, which holds exactly for
whoever does not know which key stands with which value (`lookup_task`), is not the network's by proof; that this MLP
does not get past it, with 8 pairs, 4 heads and 32 keys and values, is what the training measures. With two layers the
first could, by the same detour, find the place for the second to turn to; trained, it does not either (`measure`).

Source: Tay et al. 2020, arXiv 2005.00743, section 3.1; the task by content is that of Arora et al. 2023.

Legend: B sequences, T places, n pairs, H heads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from birthplace_lm.attention.synthesizer import SynthesizerAttention
from birthplace_lm.attention.vanilla import VanillaAttention
from birthplace_lm.exploration import Claim, Demonstration
from birthplace_lm.exploration.drawing import BLACK, BLUE, ORANGE, panels
from birthplace_lm.exploration.lookup_table import measure
from birthplace_lm.exploration.lookup_task import LookupTask
from birthplace_lm.exploration.lookup_training import GOALS, LEVEL_FROM, TEST_ROWS, Goal, Outcome, train
from birthplace_lm.transformer import Attention, Transformer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["demonstrate", "measure"]

CAN = 0.95  # a lookup that was learned is right in nearly all cases
VARIANTS: dict[str, Callable[..., Attention]] = {"vanilla": VanillaAttention, "synthesizer": SynthesizerAttention}
LOOKS = {"vanilla": (BLUE, "-"), "synthesizer": (ORANGE, "--")}
SMOOTH = 10  # steps that a point of a curve averages over


def demonstrate(seed: int = 0) -> Demonstration:
    """Train vanilla attention and a dense synthesizer, one layer each, on both tasks: about ten seconds of one core."""
    task = LookupTask()
    outcomes = {
        (name, goal): train(task, goal, factory, 1, seed) for name, factory in VARIANTS.items() for goal in GOALS
    }
    moved = {name: weights_moved(outcomes[name, "content"].model, task, seed) for name in VARIANTS}
    return Demonstration(
        name="lookup",
        title="By content or by position",
        construction=f"{task.n_pairs} pairs of a key and a value, {task.gap} empty places, then the keys again in "
        "another order. By content, the answer is the value of the key that is asked; by position, the value in the "
        "first pair, the second, and so on, whatever key is asked. The sequences are the same. Each model has one "
        f"layer and is trained until 99 % are right or, after {LEVEL_FROM} steps, nothing is gained any more.",
        proves="One layer of vanilla attention looks up by content and by position. One layer of a dense synthesizer "
        "looks up by position only: its weights do not depend on what stands at the places they fall on.",
        claims=_claims(outcomes, moved, task),
        figures={
            "setting": vars(task) | {"content_blind": task.content_blind, "chance": 1 / task.n_values},
            "accuracy": {f"{name}, {goal}": outcome.accuracy for (name, goal), outcome in outcomes.items()},
            "curves": {f"{name}, {goal}": smoothed(outcome.curve) for (name, goal), outcome in outcomes.items()},
            "steps_a_point": SMOOTH,
            "weights_moved": moved,
        },
        draw=lambda: _draw({key: smoothed(outcome.curve) for key, outcome in outcomes.items()}, task),
        notes=(
            "That the weights are blind to content is exact. That the layer with its MLP is, too, is measured: the "
            "MLP sees which key is asked and a mixture of all pairs, and one wide enough could read the answer there.",
            f"Guessing among the values that stand in the sequence gives 1/{task.n_pairs}, guessing among all "
            f"1/{task.n_values}: the synthesizer learns which values stand there, and not more.",
        ),
    )


def _claims(outcomes: dict[tuple[str, Goal], Outcome], moved: dict[str, float], task: LookupTask) -> tuple[Claim, ...]:
    """The four cells of the table, then what the weights do when the pairs change places."""
    reached = {key: outcome.accuracy for key, outcome in outcomes.items()}
    return (
        Claim("By content, one layer of vanilla attention is right in", reached["vanilla", "content"], CAN, ">"),
        Claim(
            f"By content, one layer of a synthesizer is not above 1/{task.n_pairs} by more than 4 standard errors",
            reached["synthesizer", "content"],
            task.content_blind + margin(task),
        ),
        Claim("By position, one layer of vanilla attention is right in", reached["vanilla", "position"], CAN, ">"),
        Claim("By position, one layer of a synthesizer is right in", reached["synthesizer", "position"], CAN, ">"),
        Claim(
            "When the pairs change places, the share of the synthesizer's weights that moves is none",
            moved["synthesizer"],
            1e-6,
        ),
        Claim(
            "When the pairs change places, more than half of the weights of vanilla's best head move",
            moved["vanilla"],
            0.5,
            ">",
        ),
    )


def margin(task: LookupTask) -> float:
    """Four standard errors of a share near 1/n over the test sequences.

    Taken as though the n questions of a sequence were one, the widest case: then a share of N sequences has the
    variance p(1 - p)/N, where N·n answers that have nothing to do with each other would have an n-th of it.
    """
    p = task.content_blind
    return 4 * float((p * (1 - p) / TEST_ROWS) ** 0.5)


@torch.no_grad()
def weights_moved(model: Transformer, task: LookupTask, seed: int) -> float:
    """The share of the first layer's weights, at the asking places, that moves when every pair moves on by one place.

    The last pair comes to the first place. Half the sum of absolute differences, between 0 and 1, a mean over asking
    places and sequences, for the head in which it is largest.
    """
    tokens = task.examples(seed, -1, 64).tokens
    pairs = task.length - task.gap - task.n_pairs
    shifted = torch.cat((tokens[:, :pairs].roll(1, dims=1), tokens[:, pairs:]), dim=1)
    before, after = (first_weights(model.eval(), part)[:, :, -task.n_pairs :] for part in (tokens, shifted))
    return float((before - after).abs().sum(-1).mean(dim=(0, 2)).max() / 2)  # (B, H, n, T) -> (H,) -> a number


def first_weights(model: Transformer, tokens: Tensor) -> Tensor:
    """The attention weights (B, H, T, T) of the first layer for tokens (B, T)."""
    seen: list[Tensor] = []
    layer = model.get_submodule("blocks.0.attention.weights")
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        model(tokens)
    finally:
        handle.remove()
    return seen[0]


def smoothed(curve: tuple[float, ...]) -> list[float]:
    """The mean of every ten steps in a row; what is left over at the end is left out."""
    return [sum(curve[i : i + SMOOTH]) / SMOOTH for i in range(0, len(curve) - SMOOTH + 1, SMOOTH)]


def _draw(curves: dict[tuple[str, Goal], list[float]], task: LookupTask) -> "Figure":
    figure, axes = panels("by content: the value of the key that is asked", "by position: the value at the same place")
    last = SMOOTH * max(map(len, curves.values()))
    for panel, goal in zip(axes, GOALS, strict=True):
        for name, (colour, style) in LOOKS.items():
            curve = curves[name, goal]
            steps = [SMOOTH * (i + 1) for i in range(len(curve))]
            panel.plot(steps, curve, style, color=colour, label=f"{name}, one layer")
            panel.plot(steps[-1:], curve[-1:], "o", color=colour, markersize=4)
        panel.axhline(task.content_blind, color=BLACK, linestyle=":", linewidth=1)
        panel.text(
            last, task.content_blind + 0.025, f"1/{task.n_pairs}: one of the pairs, at random", ha="right", fontsize=8
        )
        panel.axhline(1 / task.n_values, color=BLACK, linestyle=":", linewidth=1)
        panel.text(last, 1 / task.n_values - 0.012, f"1/{task.n_values}: any value", ha="right", va="top", fontsize=8)
        panel.set(
            xlabel="training step (● stopped)",
            ylabel="share of right answers",
            xlim=(0, 1.01 * last),
            ylim=(-0.05, 1.04),
        )
        panel.legend(loc="center right", fontsize=8)
    return figure
