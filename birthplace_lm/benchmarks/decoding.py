"""Answering questions: all at once with a cache, against one at a time with everything computed again."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from birthplace_lm.benchmarks import arithmetic
from birthplace_lm.decoding import answer_questions, answer_text
from birthplace_lm.tokenizer import MASK_ID, CharTokenizer
from birthplace_lm.transformer import Transformer


@torch.inference_mode()
def answer_one_by_one(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], max_new_tokens: int = 32
) -> list[str]:
    """The course's way: 32 passes a question, or as many as fit, over all of the text so far, cut at the ⁇ later."""
    answers = []
    for question in questions:
        ids = [*tokenizer.encode(question), MASK_ID]
        begin = len(ids)
        for _ in range(min(max_new_tokens, model.max_length + 1 - begin)):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        answers.append(answer_text(ids[begin:], tokenizer)[0])
    return answers


def compare(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], repetitions: int = 1, sample: int = 20
) -> dict[str, Any]:
    """Seconds and operations of matrix products for all questions both ways, by turns; medians of the seconds.

    One at a time is measured on a sample, evenly spread, and scaled up.
    """
    model.eval()
    asked = [questions[i * len(questions) // sample] for i in range(sample)] if sample < len(questions) else questions
    scale = len(questions) / len(asked)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        answers, taken = _timed(lambda: answer_questions(model, tokenizer, questions))
        seconds[0].append(taken)
        slow, taken = _timed(lambda: answer_one_by_one(model, tokenizer, asked))
        seconds[1].append(taken * scale)
    said = {question: answer.text for question, answer in zip(questions, answers, strict=True)}
    operations = [
        arithmetic.count(lambda: answer_questions(model, tokenizer, questions)).products,
        round(arithmetic.count(lambda: answer_one_by_one(model, tokenizer, asked)).products * scale),
    ]
    return {
        "questions": len(questions),
        "batched_seconds": median(seconds[0]),
        "one_by_one_seconds": median(seconds[1]),
        "ratio": median(b / a for a, b in zip(*seconds, strict=True)),
        "batched_operations": operations[0],
        "one_by_one_operations": operations[1],
        "same_answers": sum(said[question] == answer for question, answer in zip(asked, slow, strict=True)),
        "compared": len(slow),
    }


def _timed(answer: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    answers = answer()
    return answers, time.perf_counter() - begin


def markdown(found: Mapping[str, Any]) -> str:
    """A row a way: seconds, operations of its products, and how many of them a second."""
    lines = [f"| {found['questions']} questions | seconds | GFLOP of products | GFLOP/s |", "|---|---:|---:|---:|"]
    for way, key in (("all at once, with a cache", "batched"), ("one by one, everything again", "one_by_one")):
        seconds, operations = found[f"{key}_seconds"], found[f"{key}_operations"] / 1e9
        lines.append(f"| {way} | {seconds:,.2f} | {operations:,.1f} | {operations / seconds:,.1f} |")
    return "\n".join(lines) + "\n"


def told(found: Mapping[str, Any]) -> str:
    """The same in a line: what it comes to, and what of that is to be had by fewer operations."""
    fewer = found["one_by_one_operations"] / found["batched_operations"]
    return (
        f"{found['questions']} questions: {found['batched_seconds']:.2f} s, one by one "
        f"{found['one_by_one_seconds']:.1f} s, {found['ratio']:.0f} x (products have {fewer:.0f} x fewer operations); "
        f"{found['same_answers']} of {found['compared']} compared answers agree"
    )
