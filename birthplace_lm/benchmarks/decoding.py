"""Answering questions: all at once with a cache, against one at a time with everything computed again."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from birthplace_lm.decoding import answer_questions, answer_text
from birthplace_lm.tokenizer import MASK_ID, CharTokenizer
from birthplace_lm.transformer import Transformer


@torch.inference_mode()
def answer_one_by_one(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], max_new_tokens: int = 32
) -> list[str]:
    """The course's way: 32 forward passes a question over all of the text so far, cut at the ⁇ afterwards."""
    answers = []
    for question in questions:
        ids = [*tokenizer.encode(question), MASK_ID]
        begin = len(ids)
        for _ in range(max_new_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        answers.append(answer_text(ids[begin:], tokenizer)[0])
    return answers


def compare(model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], sample: int = 20) -> dict[str, Any]:
    """Seconds for all questions both ways; one at a time is measured on a sample and scaled up."""
    model.eval()
    begin = time.perf_counter()
    answers = answer_questions(model, tokenizer, questions)
    batched = time.perf_counter() - begin
    begin = time.perf_counter()
    slow = answer_one_by_one(model, tokenizer, questions[:sample])
    one_by_one = (time.perf_counter() - begin) / len(slow) * len(questions)
    return {
        "questions": len(questions),
        "batched_seconds": batched,
        "one_by_one_seconds": one_by_one,
        "ratio": one_by_one / batched,
        "same_answers": sum(a.text == b for a, b in zip(answers, slow, strict=False)),
        "compared": len(slow),
    }
