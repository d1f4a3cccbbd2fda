"""Answers by greedy decoding, all questions at once, with what was computed kept.

Questions differ in length. Instead of padding, the batch walks through positions together: a row that is still within
its question is fed the question's next character, one that is through is fed its own last prediction.

Legend: B batch, T time, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from birthplace_lm.tokenizer import MASK_ID, PAD, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Cache, Transformer, in_mode

MAX_NEW_TOKENS = 32  # characters of an answer, where nothing else is said


@dataclass(frozen=True)
class Answer:
    """What stands before the closing ⁇, the log-probability of that with the ⁇, and whether the ⁇ came at all.

    `first_entropy` (in nats) and `first_probability` are those of the answer's first character: how wide the choice was
    that most often decides the place, and how likely the one taken. NaN for an answer that was not decoded freely.
    `padding` counts the PAD that the model wrote at the end of an answer without a ⁇: no part of the text, but what the
    log-probability is of all the same, for else an answer of nothing but PAD would be certain.
    """

    text: str
    log_probability: float
    finished: bool
    first_entropy: float = field(default=math.nan, compare=False)
    first_probability: float = field(default=math.nan, compare=False)
    padding: int = field(default=0, compare=False)

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)

    @property
    def characters(self) -> int:
        """How many characters the log-probability is of, the ⁇ and what was cut off among them."""
        return max(1, len(self.text) + self.finished + self.padding)


def answer_questions(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 512,
) -> list[Answer]:
    """Greedy answers of at most max_new_tokens characters, in the order of the questions.

    Raises ValueError for fewer than 1 character or 1 question at a time, and for a question that does not fit;
    TypeError for a text where a list of them is meant.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens} and batch_size {batch_size} have to be 1 or more")
    prompts = prompts_of(model, tokenizer, questions)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # alike lengths together: less to walk through
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        with in_mode(model, training=False):
            decoded = _decode(model, [prompts[i] for i in rows], max_new_tokens)
        written = [min(max_new_tokens, model.max_length + 1 - len(prompts[i])) for i in rows]  # where no ⁇ came
        answers.update(zip(rows, _read(*decoded, written, tokenizer), strict=True))
    return [answers[i] for i in range(len(prompts))]


def prompts_of(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str], longest_answer: int = 0
) -> list[list[int]]:
    """What the model is shown of each question, the ⁇ behind it included.

    Raises ValueError where the model sees less than that with the longest of the answers that are to be scored;
    TypeError for a text where a list of them is meant.
    """
    if isinstance(questions, str):
        raise TypeError(f"questions are a list of texts, not one of {len(questions)} characters: [{questions[:40]!r}]")
    prompts = [[*tokenizer.encode(question), MASK_ID] for question in questions]
    for question, prompt in zip(questions, prompts, strict=True):
        if len(prompt) + longest_answer > model.max_length:
            answer = f" and the longest place {longest_answer}" if longest_answer else ""
            raise ValueError(
                f"the question {question!r} has {len(prompt)} characters with its ⁇{answer}, "
                f"this model sees at most {model.max_length}"
            )
    return prompts


def answer_text(characters: Sequence[int], tokenizer: CharTokenizer) -> tuple[str, bool]:
    """What stands before the first ⁇, and whether there is one; where not, PAD at the end is no part of an answer."""
    if MASK_ID in characters:
        return tokenizer.decode(characters[: characters.index(MASK_ID)]), True
    return tokenizer.decode(characters).rstrip(PAD), False


@torch.inference_mode()
def _decode(model: Transformer, prompts: list[list[int]], max_new_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """The characters behind each prompt and their log-probabilities, (B, max_new_tokens) each; PAD behind the end.

    Third, the entropy over what could come first, (B,).
    """
    device = next(model.parameters()).device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)  # (B,)
    last = min(int(lengths.max()) + max_new_tokens, model.max_length + 1)
    tokens = torch.full((len(prompts), last), PAD_ID, device=device)  # (B, T)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    scores = torch.zeros(tokens.shape, device=device)  # (B, T)
    entropy = torch.full((len(prompts),), torch.nan, device=device)  # (B,)
    live = torch.arange(len(prompts), device=device)  # rows that are still computed
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)  # of the live ones
    end = int(lengths.min())
    cache, begin = read_beginning(model, tokens, end)
    while end < last and len(live):
        logits = model(tokens[live, begin:end], cache, begin, last=1)[:, 0].float()  # (B, V)
        following = logits.log_softmax(-1)  # (B, V)
        best, choice = following.max(-1)
        first = lengths[live] == end
        entropy[live[first]] = -(following[first].exp() * following[first]).sum(-1)
        free = (lengths[live] <= end) & ~done
        tokens[live, end] = torch.where(free, choice, tokens[live, end])
        scores[live, end] = torch.where(free, best, 0.0)
        done |= free & ((choice == MASK_ID) | (end + 1 >= lengths[live] + max_new_tokens))
        if 2 * int(done.sum()) >= len(live):  # not at every end: dropping rows copies the cache
            live, cache, done = live[~done], cache_rows(cache, ~done), done[~done]
        begin, end = end, end + 1
    width = torch.arange(max_new_tokens, device=device) + lengths[:, None]  # (B, max_new_tokens)
    inside = width < last
    width = width.clamp(max=last - 1)
    return tokens.gather(1, width).where(inside, PAD_ID), scores.gather(1, width).where(inside, 0.0), entropy


def read_beginning(
    model: Transformer, tokens: Tensor, shortest: int, reading: Sequence[int] | None = None
) -> tuple[Cache, int]:
    """A cache of what all rows of tokens (B, T) begin with, which is read once and not for each, and how much that is.

    Of the first `shortest` characters at least one is left for each row to read. `reading` says which of several
    readings each row goes on from, (B,): with dropout on they differ.
    """
    same = (tokens[:, : shortest - 1] == tokens[0, : shortest - 1]).all(0)
    n, cache = int(same.cumprod(0).sum()), model.new_cache()
    if not n:
        return cache, 0
    row = torch.tensor(reading or [0] * len(tokens), device=tokens.device)
    model(tokens[:1, :n].expand(int(row.max()) + 1, n), cache, 0, last=1)
    return cache_rows(cache, row), n


def cache_rows(cache: Cache, rows: Tensor) -> Cache:
    """Some rows of a cache, by mask or by index (then also more than once), copied.

    Whatever a variant keeps has the batch as its first dimension.
    """
    index = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows
    return [memory.rows(index) for memory in cache]


def fork_cache(cache: Cache, rows: Tensor) -> Cache:
    """The same by index (R,), uncopied where a layer can do without: for many rows that go on from few."""
    return [memory.fork(rows) for memory in cache]


def _read(
    tokens: Tensor, log_probabilities: Tensor, entropy: Tensor, written: Sequence[int], tokenizer: CharTokenizer
) -> list[Answer]:
    """The answers of `_decode`; `written` says how many characters each of them has that did not come to its ⁇."""
    answers = []
    scores, first = log_probabilities.double().sum(1).tolist(), log_probabilities[:, 0].exp().tolist()
    for row, score, wide, sure, n in zip(tokens.tolist(), scores, entropy.tolist(), first, written, strict=True):
        text, finished = answer_text(row, tokenizer)
        answers.append(Answer(text, score, finished, wide, sure, padding=0 if finished else n - len(text)))
    return answers
