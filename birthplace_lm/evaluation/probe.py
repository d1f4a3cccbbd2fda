"""Is the place there to be read where the answer begins? A linear probe on what the model computes behind the question.

The probe reads h, the D numbers that the model's head reads at the ⁇ behind *Where was X born?*, and is a multinomial
logistic regression fitted on train people: with z = (h - mean) / deviation over the train people, it minimises

    Σ_i −log softmax(W z_i + b)[place_i] + ½ ‖W‖²            (scikit-learn's LogisticRegression at C = 1)

and is asked about other people. What it finds, the model knows at that place in a linear form; what it misses may be
there in another (Alain & Bengio 2016; Belinkov 2022, Computational Linguistics 48:207–219). The questions of the train
people were trained on, so that the probe sees their places more plainly than those of the people it is asked about.

Legend: N questions, D width, P places.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.corpus import Question
from birthplace_lm.decoding import read_beginning
from birthplace_lm.evaluation.shares import share, share_of
from birthplace_lm.like_lengths import of_one_length
from birthplace_lm.tokenizer import MASK_ID, CharTokenizer
from birthplace_lm.transformer import Transformer, in_mode

FEWEST_PEOPLE = 2  # of a place, among the train people: one person's question shows the person and not the place


def probe_card(
    model: Transformer, tokenizer: CharTokenizer, train: Sequence[Question], questions: Sequence[Question]
) -> dict[str, Any]:
    """Fit on train people, ask about the others; shares as in `shares.share`, and how many could not be asked about.

    Places are those of at least two train people; who was born elsewhere is left out and counted. "chance" is the share
    that the most frequent of those places gets right. Where there are fewer than two such places nothing is fitted, and
    `why` says so.
    """
    counts = Counter(question.answer for question in train if question.answer is not None)
    places = sorted(place for place, count in counts.items() if count >= FEWEST_PEOPLE)
    learned = [question for question in train if question.answer in places]
    asked = [question for question in questions if question.answer in places]
    card: dict[str, Any] = {"places": len(places), "asked": len(asked), "left_out": len(questions) - len(asked)}
    of = "questions about places of at least two train people"
    if len(places) < 2:
        why = f"{len(places)} places have at least {FEWEST_PEOPLE} train people, a probe needs two"
        return card | {"right": {**share(0, 0, of), "why": why}, "chance": {**share(0, 0, of), "why": why}}
    hidden = question_states(model, tokenizer, [question.text for question in [*learned, *asked]])
    states = _standardised(hidden, len(learned))
    labels = torch.tensor([places.index(question.answer or "") for question in learned])
    weight, bias = fit_probe(states[: len(learned)], labels, len(places))
    guesses = (states[len(learned) :] @ weight.T + bias).argmax(1).tolist()
    commonest = max(places, key=lambda place: counts[place])
    return card | {
        "right": share_of([places[g] == q.answer for g, q in zip(guesses, asked, strict=True)], of),
        "chance": share_of([question.answer == commonest for question in asked], of),
    }


def fit_probe(states: Tensor, labels: Tensor, classes: int, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """W (P, D) and b (P,) of the module's minimum for states (N, D), labels (N,): convex, so any start finds it."""
    weight = torch.zeros(classes, states.shape[1], dtype=states.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=states.dtype, requires_grad=True)
    # a few dozen iterations reach these tolerances, at which probabilities are true to about 0.001
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-5, tolerance_change=1e-8, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.cross_entropy(states @ weight.T + bias, labels, reduction="sum")
        total = (fit + penalty / 2 * weight.square().sum()) / len(labels)
        total.backward()
        return total

    optimizer.step(loss)
    return weight.detach(), bias.detach()


@torch.inference_mode()
def question_states(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], batch_size: int = 64
) -> Tensor:
    """What the head reads at the ⁇ behind each question, (N, D) on the CPU, in the order of the questions."""
    device = next(model.parameters()).device
    prompts = [[*tokenizer.encode(question), MASK_ID] for question in questions]
    order, parts = list[int](), []
    with in_mode(model, training=False):
        for rows in of_one_length(prompts, batch_size):
            order += rows
            tokens = torch.tensor([prompts[i] for i in rows], device=device)  # (B, T)
            cache, read = read_beginning(model, tokens, tokens.shape[1])
            parts.append(model.hidden(tokens[:, read:], cache, read, last=1)[:, 0].cpu())  # (B, D)
    return torch.cat(parts)[torch.argsort(torch.tensor(order))]


def _standardised(states: Tensor, learned: int) -> Tensor:
    """Every width to mean 0 and deviation 1 over the first `learned` rows; a width that never varies becomes 0."""
    seen = states[:learned]
    deviation = seen.std(0, correction=0)
    return (states - seen.mean(0)) / torch.where(deviation > 1e-9, deviation, torch.inf)
