"""Answers by greedy decoding, all questions at once, with what was computed kept.

Questions differ in length. Instead of padding, the batch walks through positions together: a row that is still within
its question is fed the question's next character, one that is through is fed its own last prediction.

Legend: B batch, T time, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from birthplace_lm.tokenizer import MASK_ID, PAD, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer


@dataclass(frozen=True)
class Answer:
    """What stands before the closing ⁇, the log-probability of that with the ⁇, and whether the ⁇ came at all."""

    text: str
    log_probability: float
    finished: bool

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)


def answer_questions(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[str],
    max_new_tokens: int = 32,
    batch_size: int = 512,
) -> list[Answer]:
    """Greedy answers of at most max_new_tokens characters, in the order of the questions."""
    prompts = [[*tokenizer.encode(question), MASK_ID] for question in questions]
    for question, prompt in zip(questions, prompts, strict=True):
        if len(prompt) > model.max_length:
            raise ValueError(
                f"the question {question!r} has {len(prompt)} characters with its ⁇, "
                f"this model sees at most {model.max_length}"
            )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # alike lengths together: less to walk through
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens, log_probabilities = _decode(model, [prompts[i] for i in rows], max_new_tokens)
        answers.update(zip(rows, _read(tokens, log_probabilities, tokenizer), strict=True))
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def _decode(model: Transformer, prompts: list[list[int]], max_new_tokens: int) -> tuple[Tensor, Tensor]:
    """The characters behind each prompt and their log-probabilities, (B, max_new_tokens) each; PAD behind the end."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)  # (B,)
    last = min(int(lengths.max()) + max_new_tokens, model.max_length + 1)
    tokens = torch.full((len(prompts), last), PAD_ID, device=device)  # (B, T)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    scores = torch.zeros(tokens.shape, device=device)  # (B, T)
    live = torch.arange(len(prompts), device=device)  # rows that are still computed
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # of the live ones
    cache, begin, end = model.new_cache(), 0, int(lengths.min())
    while end < last and len(live):
        logits = model(tokens[live, begin:end], cache, begin)[:, -1].float()  # (B, V)
        best, choice = logits.log_softmax(-1).max(-1)
        free = (lengths[live] <= end) & ~done
        tokens[live, end] = torch.where(free, choice, tokens[live, end])
        scores[live, end] = torch.where(free, best, 0.0)
        done |= free & ((choice == MASK_ID) | (end + 1 >= lengths[live] + max_new_tokens))
        if 2 * int(done.sum()) >= len(live):  # not at every end: dropping rows copies the cache
            live, cache, done = live[~done], [_rows(memory, ~done) for memory in cache], done[~done]
        begin, end = end, end + 1
    model.train(was_training)
    width = torch.arange(max_new_tokens, device=device) + lengths[:, None]  # (B, max_new_tokens)
    inside = width < last
    width = width.clamp(max=last - 1)
    return tokens.gather(1, width).where(inside, PAD_ID), scores.gather(1, width).where(inside, 0.0)


def _rows(memory: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """One layer's cache for some of its rows; whatever a variant keeps has the batch as its first dimension."""
    return {name: kept[keep] for name, kept in memory.items()}


def _read(tokens: Tensor, log_probabilities: Tensor, tokenizer: CharTokenizer) -> list[Answer]:
    answers = []
    for row, score in zip(tokens.tolist(), log_probabilities.double().sum(1).tolist(), strict=True):
        finished = MASK_ID in row
        text = tokenizer.decode(row[: row.index(MASK_ID)] if finished else row)
        answers.append(Answer(text.rstrip(PAD), score, finished))
    return answers
