"""Questions as sequences to learn from, put together from slices, and if wanted in several wordings.

A model that was asked in one wording alone may have it by heart; facts that were told in several ways come out of a
model more easily (Allen-Zhu & Li 2023, arXiv 2309.14316).

Legend: B batch, N questions, W wordings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from birthplace_lm.corpus import Question
from birthplace_lm.corruption import Pieces, in_order
from birthplace_lm.token_store import Lengthened, TokenStore
from birthplace_lm.tokenizer import CharTokenizer, UnknownCharacterError

QUESTION = "Where was {name} born?"
_BEFORE, _, _BEHIND = QUESTION.partition("{name}")


def ask_question(store: TokenStore, index: Tensor) -> Pieces:
    """question ⁇ answer ⁇, asked from the answer's first character, for the pairs index (B,) of a question_store."""
    answer = index + len(store) // 2
    starts, lengths = in_order(
        store, (store.offsets[index], store.lengths[index]), None, (store.offsets[answer], store.lengths[answer]), None
    )
    return Pieces(starts, lengths, asked=store.lengths[index] + 1)


def _parts(template: str, tokenizer: CharTokenizer) -> list[list[int]]:
    """What stands before and behind the name."""
    if (found := template.count("{name}")) != 1:
        raise ValueError(f"the wording {template!r} has {found} times {{name}}: write it exactly once")
    try:
        return [tokenizer.encode(part) for part in template.split("{name}")]
    except UnknownCharacterError as error:
        raise ValueError(f"the wording {template!r}: {error}") from None


class Wordings:
    """Templates with one `{name}` each, for questions that are asked as *Where was {name} born?*.

    A template that stands twice is one that is taken twice as often. `store` holds the questions' texts and behind them
    their answers (`question_store`). Raises ValueError for no template, one without exactly one `{name}` or with
    characters that the vocabulary has not, for a question of another form where a template says something else, and
    where a name in a wording with its answer and two sentinels is longer than the block.
    """

    def __init__(
        self,
        templates: Sequence[str],
        store: TokenStore,
        questions: Sequence[Question],
        tokenizer: CharTokenizer,
        block_size: int,
    ):
        if isinstance(templates, str) or not templates:
            raise ValueError(f"question_wordings is a list of one or more templates, not {templates!r}")
        self.store, self.templates = store, list(templates)
        self.as_written = set(templates) == {QUESTION}  # then questions of any form are asked as they stand
        if not self.as_written:
            lengthened = Lengthened(store, [part for template in templates for part in _parts(template, tokenizer)])
            self.starts, self.lengths = torch.tensor(lengthened.texts).view(-1, 2, 2).unbind(2)  # (W, 2) each
            self.store = lengthened
            self._check(questions, block_size)

    def __len__(self) -> int:
        return len(self.templates)

    def _check(self, questions: Sequence[Question], block_size: int) -> None:
        for question in questions:
            if question.text != QUESTION.format(name=question.name):
                raise ValueError(f"{question.text!r} is not asked as {QUESTION!r}: it has no other wording")
        n = len(questions)
        names = self.store.lengths[:n] - len(_BEFORE) - len(_BEHIND)
        longest, answers = int(self.lengths.sum(1).argmax()), self.store.lengths[n:]
        totals = names + self.lengths[longest].sum() + answers + 2
        if n and int(totals.max()) > block_size:
            raise ValueError(
                f"{questions[int(totals.argmax())].name!r} in the wording {self.templates[longest]!r} has "
                f"{int(totals.max())} characters with its answer and two sentinels, the block has {block_size}: "
                "shorten the wording or use a model with a larger block_size"
            )

    def ask(self, index: Tensor, wording: Tensor) -> Pieces:
        """As `ask_question`, with the wording (B,) of each."""
        if self.as_written:
            return ask_question(self.store, index)
        store, answer = self.store, index + len(self.store) // 2
        name, length = store.offsets[index] + len(_BEFORE), store.lengths[index] - len(_BEFORE) - len(_BEHIND)
        (before, behind), (before_length, behind_length) = self.starts[wording].T, self.lengths[wording].T
        starts, lengths = in_order(
            store,
            (before, before_length),
            (name, length),
            (behind, behind_length),
            None,
            (store.offsets[answer], store.lengths[answer]),
            None,
        )
        return Pieces(starts, lengths, asked=lengths[:, :4].sum(1))
