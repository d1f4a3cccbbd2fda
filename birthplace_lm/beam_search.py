"""Answers by beam search: the likeliest whole answer among those whose beginnings stay among the k likeliest.

Greedy decoding takes the likeliest character each time and can run into a beginning that nothing likely continues; a
beam keeps the k likeliest beginnings side by side. They are ranked by plain log-probability, finished ones among them.
It only falls as characters are added, so once a finished answer leads, nothing on the beam can overtake it, and the
search ends without a loss (Huang, Zhao & Ma 2017, arXiv 1809.00069). Length normalisation (Wu et al. 2016, arXiv
1609.08144, section 7) mends translations that end too early, for want of a right length. A place has one, its ⁇ was
trained, and choosing among known places (`prefix_tree`) goes by the same log-probability, so that the two compare.

Legend: B questions, k beginnings a question, V vocabulary, N characters of an answer so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from birthplace_lm.decoding import MAX_NEW_TOKENS, Answer, answer_text, fork_cache, prompts_of, read_beginning
from birthplace_lm.like_lengths import of_one_length
from birthplace_lm.tokenizer import MASK_ID, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Cache, Transformer, in_mode

_Found = tuple[list[int], float]  # characters, log-probability


@torch.inference_mode()
def beam_answers(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[str],
    width: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_rows: int = 512,
) -> list[Answer]:
    """The answers that `width` beginnings a question lead to, of at most max_new_tokens characters, in order.

    Width 1 is greedy decoding; a width of as many sequences as there are finds the likeliest answer of all. One that
    did not come to its ⁇ is given only where none on the beam did. Questions of one length are searched together, at
    most `max_rows` beginnings at a time, or one question's if that is more. Raises ValueError for a width below 1 and
    what `answer_questions` raises.
    """
    if width < 1 or max_new_tokens < 1:
        raise ValueError(f"width {width} and max_new_tokens {max_new_tokens} have to be 1 or more")
    prompts = prompts_of(model, tokenizer, questions)
    answers: dict[int, Answer] = {}
    with in_mode(model, training=False):
        for rows in of_one_length(prompts, max(1, max_rows // width)):
            most = min(max_new_tokens, model.max_length + 1 - len(prompts[rows[0]]))
            found = _search(model, [prompts[i] for i in rows], width, most)
            answers.update(zip(rows, (_answer(*one, tokenizer) for one in found), strict=True))
    return [answers[i] for i in range(len(prompts))]


@dataclass(frozen=True)
class _Beam:
    """The likeliest beginnings of the answers to some questions, likeliest first.

    question (B,), characters (B, k, N), score (B, k) their log-probability, finished (B, k).
    """

    question: Tensor
    characters: Tensor
    score: Tensor
    finished: Tensor

    def __getitem__(self, rows: Tensor) -> "_Beam":
        return _Beam(*(kept[rows] for kept in vars(self).values()))

    def open_ended(self) -> Tensor:
        """Which beginnings may still become the best answer, (B, k): a text only gets less likely as it grows."""
        best = self.score.where(self.finished, -torch.inf).amax(1, keepdim=True)  # (B, 1), of what is finished
        return ~self.finished & (self.score >= best) & (self.score > -torch.inf)


def _search(model: Transformer, prompts: Sequence[Sequence[int]], width: int, most: int) -> list[_Found]:
    """The best answer to each of some prompts of one length."""
    tokens = torch.tensor(prompts, device=next(model.parameters()).device)  # (B, T)
    n, offset = tokens.shape
    beam, found = _empty(n, width, tokens.device), dict[int, _Found]()
    cache, read = read_beginning(model, tokens, offset)
    following = _read(model, tokens[:, read:], cache, read)[:, None].expand(-1, width, -1)  # (B, k, V)
    row = beam.question[:, None].expand(-1, width)  # (B, k), the row of the cache that a beginning goes on from
    for step in range(most):
        beam, parent = _extended(beam, following)
        row = row.gather(1, parent)
        settled = beam.finished[:, 0] | (step + 1 == most)  # (B,)
        found.update(_best(beam[settled]))
        if bool(settled.all()):
            break
        beam, row = beam[~settled], row[~settled]
        open_ended = beam.open_ended()
        cache = fork_cache(cache, row[open_ended])
        last = beam.characters[:, :, -1][open_ended][:, None]  # (rows, 1)
        read_on = _read(model, last, cache, offset + step)  # (rows, V)
        following = read_on.new_full((*row.shape, read_on.shape[1]), -torch.inf)  # (B, k, V)
        following[open_ended] = read_on
        row = (open_ended.flatten().cumsum(0) - 1).clamp(min=0).view_as(row)
    return [found[i] for i in range(n)]


def _empty(n: int, width: int, device: torch.device) -> _Beam:
    """n beams with one beginning each, that of no character; the others are impossible."""
    score = torch.full((n, width), -torch.inf, dtype=torch.float64, device=device)
    score[:, 0] = 0.0
    characters = torch.empty(n, width, 0, dtype=torch.int64, device=device)
    return _Beam(torch.arange(n, device=device), characters, score, torch.zeros_like(score, dtype=torch.bool))


def _read(model: Transformer, tokens: Tensor, cache: Cache, offset: int) -> Tensor:
    """Log-probabilities of what follows the last of the tokens (rows, T), in float64: (rows, V)."""
    return model(tokens, cache, offset, last=1)[:, 0].double().log_softmax(-1)


def _extended(beam: _Beam, following: Tensor) -> tuple[_Beam, Tensor]:
    """The k likeliest among all beginnings with a character more and what is finished; from which each comes, (B, k).

    following: (B, k, V). What is finished stays as it is, which is written as a PAD that is certain.
    """
    kept = torch.full_like(following[0, 0], -torch.inf)  # (V,)
    kept[PAD_ID] = 0.0
    extended = beam.score[:, :, None] + torch.where(beam.finished[:, :, None], kept, following)  # (B, k, V)
    score, flat = extended.flatten(1).topk(beam.score.shape[1])  # (B, k)
    parent, character = flat // len(kept), flat % len(kept)
    before = beam.characters.gather(1, parent[:, :, None].expand(-1, -1, beam.characters.shape[2]))
    characters = torch.cat((before, character[:, :, None]), dim=2)  # (B, k, N + 1)
    finished = beam.finished.gather(1, parent) | (character == MASK_ID)
    return _Beam(beam.question, characters, score, finished), parent


def _best(beam: _Beam) -> dict[int, _Found]:
    """The likeliest finished answer of each question, or where there is none the likeliest beginning."""
    finished = beam.finished & (beam.score > -torch.inf)
    at = finished.int().argmax(1, keepdim=True)  # (B, 1): the first, for beginnings are sorted
    characters = beam.characters.gather(1, at[:, :, None].expand(-1, -1, beam.characters.shape[2]))[:, 0]
    scores = beam.score.gather(1, at)[:, 0]
    found = zip(characters.tolist(), scores.tolist(), strict=True)
    return dict(zip(beam.question.tolist(), found, strict=True))


def _answer(characters: list[int], score: float, tokenizer: CharTokenizer) -> Answer:
    text, finished = answer_text(characters, tokenizer)
    return Answer(text, score, finished, padding=0 if finished else len(characters) - len(text))
