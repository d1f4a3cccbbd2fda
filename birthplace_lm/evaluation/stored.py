"""Stored or extracted: can the model complete the place in a person's own biography, and does it answer the question?

A fact that the biography brings forth and the question does not is stored but not extracted (Allen-Zhu & Li 2023,
Physics of Language Models 3.1). The cloze test asks for the place where it first stands in the document, in two ways:

    continued    the document up to the place                          Ada Byrne. Born in            -> Cork
    filled       as span corruption asks: before ⁇ after ⁇ place       Ada Byrne. Born in ⁇, she…⁇   -> Cork

Right is what comes out character for character under greedy decoding, whatever would follow; a continued text has no
sentinels, so that ⁇ is no choice there (a model of corrupted texts expects one anywhere). Since a greedy
continuation is the place exactly when every character of the place is the most probable one behind the true ones, one
pass over the known text answers it and nothing is decoded.

Legend: B batch, T time, V vocabulary, A characters asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.shares import share_of
from birthplace_lm.evaluation.slices import answer_start, documents_by_name
from birthplace_lm.tokenizer import MASK_ID, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer, in_mode

LEFT_OUT = ("no place given", "no document", "place not in the document", "place too late for the model")


@dataclass(frozen=True)
class Cloze:
    """Which of the questions (by number) could be asked, what came out right, and how many were left out and why."""

    asked: tuple[int, ...]
    continued: tuple[bool, ...]
    filled: tuple[bool, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Window:
    """How much a filled cloze shows beside the name: characters before and after the place, None for all there is.

    `prefix` stands before every document, in both ways of asking, as it stood there in pretraining.
    """

    before: int | None = None
    after: int | None = None
    prefix: str = ""


def cloze(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[Question],
    documents: Iterable[str],
    window: Window | None = None,
    batch_size: int = 32,
    others: Iterable[str] = (),
) -> Cloze:
    """Ask for every person's place within the person's own (first) document.

    The place is sought behind the name, and it keeps its true position: a document is never cut from the left. What
    follows it is shown up to the model's `max_length`, and not as far as a second mention of the place, which could be
    copied. People whose place stands too late to be asked for within `max_length` are left out and counted, as are
    those without a document, without a place, and those whose document does not hold it.

    `window` is for models that were pretrained on the surroundings of a span alone: the filled cloze then shows the
    name and so many characters on both sides. With a prefix the true position is that behind the prefix. `others` are
    the names of people who are not asked about, whose documents are nobody else's (see `documents_by_name`).
    Raises UnknownCharacterError for a text outside the vocabulary.
    """
    owned = documents_by_name((question.name for question in questions), documents, others)
    window = window or Window()
    longest = model.max_length - len(window.prefix)
    found = [_find(question, owned.get(question.name), longest) for question in questions]
    asked = [number for number, (_, why) in enumerate(found) if not why]
    texts = [(owned[questions[i].name], questions[i].name, questions[i].answer or "", found[i][0]) for i in asked]
    plain = [(window.prefix + document[:start], place) for document, _, place, start in texts]
    gapped = [(window.prefix + _gapped(*text, longest, window), text[2]) for text in texts]
    with in_mode(model, training=False):
        continued = _comes_out(model, tokenizer, plain, batch_size, sentinels=False)
        filled = _comes_out(model, tokenizer, gapped, batch_size)
    return Cloze(
        tuple(asked),
        continued,
        filled,
        left_out={why: sum(why == reason for _, reason in found) for why in LEFT_OUT},
    )


def stored_or_extracted(result: Cloze, right: Sequence[bool]) -> dict[str, Any]:
    """What is stored by each reading of the cloze test, and how often the question is answered right given that.

    `right` says of every question, asked as a cloze or not, whether it was answered right. "either" takes as stored
    what came out in at least one of the two ways. Every figure is a `shares.share`.
    """
    answered = [right[number] for number in result.asked]
    either = [a or b for a, b in zip(result.continued, result.filled, strict=True)]
    readings = {"continued": result.continued, "filled": result.filled, "either": either}
    return {
        "asked": len(result.asked),
        "left_out": result.left_out,
        **{reading: _given(stored, answered) for reading, stored in readings.items()},
    }


def _given(stored: Sequence[bool], answered: Sequence[bool]) -> dict[str, Any]:
    pairs = list(zip(stored, answered, strict=True))
    return {
        "stored": share_of(stored, of="people who could be asked"),
        "right_given_stored": share_of([right for known, right in pairs if known], of="stored places"),
        "right_given_not_stored": share_of([right for known, right in pairs if not known], of="places not stored"),
    }


def _find(question: Question, document: str | None, longest: int) -> tuple[int, str]:
    """Where the place begins in the document, and "" or the reason why it cannot be asked for."""
    if not question.answer:
        return -1, LEFT_OUT[0]
    if document is None:
        return -1, LEFT_OUT[1]
    start = answer_start(question, document)
    if start < 0:
        return start, LEFT_OUT[2]
    # before ⁇⁇ place has to fit without the place's last character, which is never fed
    return start, LEFT_OUT[3] if start + 1 + len(question.answer) > longest else ""


def _gapped(document: str, name: str, place: str, start: int, longest: int, window: Window) -> str:
    """before⁇after⁇ around the place that begins at `start`, as much as the model can see with the place behind it."""
    title = min(len(name) + 2, start)  # the name, its full stop and a space
    begin = title if window.before is None else max(title, start - window.before)
    before = document[:title] + document[begin:start]
    after = document[start + len(place) :]
    if (again := after.find(place)) >= 0:
        after = after[:again]
    room = longest - len(before) - 1 - len(place)  # the place's last character is never fed
    return f"{before}⁇{after[: room if window.after is None else min(room, window.after)]}⁇"


@torch.inference_mode()
def _comes_out(
    model: Transformer,
    tokenizer: CharTokenizer,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    sentinels: bool = True,
) -> tuple[bool, ...]:
    """Whether each place would follow its context under greedy decoding; like lengths are computed together."""
    device = next(model.parameters()).device
    found = [False] * len(pairs)
    for rows in _alike(pairs, batch_size):
        tokens = [_encode(tokenizer, "".join(pairs[i])) for i in rows]
        width = max(map(len, tokens))
        batch = torch.tensor([row + [PAD_ID] * (width - len(row)) for row in tokens], device=device)  # (B, T)
        begin = torch.tensor([len(pairs[i][0]) for i in rows], device=device)[:, None]
        end = torch.tensor([[len(row)] for row in tokens], device=device)
        position = torch.arange(1, width, device=device)
        asked = (position >= begin) & (position < end)  # (B, T - 1)
        logits = model.head(model.hidden(batch[:, :-1])[asked])  # (A, V)
        if not sentinels:
            logits[:, MASK_ID] = -torch.inf
        best = logits.argmax(-1)  # (A,)
        missed = torch.zeros_like(asked)
        missed[asked] = best != batch[:, 1:][asked]
        for i, wrong in zip(rows, missed.any(1).tolist(), strict=True):
            found[i] = not wrong
    return tuple(found)


def _alike(pairs: Sequence[tuple[str, str]], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _encode(tokenizer: CharTokenizer, text: str) -> list[int]:
    """The ids of a text in which ⁇ stands for itself."""
    pieces = [tokenizer.encode(piece) for piece in text.split("⁇")]
    return [token for piece in pieces for token in (MASK_ID, *piece)][1:]
