"""Train questions in several wordings: the right words, drawn evenly and purely, in pretraining alone."""

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from birthplace_lm.array_cache import ArrayCache
from birthplace_lm.composing import ConfigError
from birthplace_lm.corpus import Question
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.datamodules import SpanCorruptionDataModule
from birthplace_lm.identity import run_name
from birthplace_lm.jobs import prepare
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.mapped_files import map_folder
from birthplace_lm.tokenizer import MASK, CharTokenizer
from birthplace_lm.wordings import QUESTION
from birthplace_lm.world import World
from tests.helpers import small_corpus
from tests.test_configs import settings
from tests.test_stages import tiny_run

CORPUS = small_corpus()
WORDINGS = [QUESTION, "{name} was born in", "Where was born {name}?"]
TOKENIZER = CharTokenizer.fit([*CORPUS.documents, *(f"{q.text}{q.answer}" for q in CORPUS.train)])


def mixed(wordings: list[str] = WORDINGS, corpus: Any = CORPUS, **knobs: Any) -> SpanCorruptionDataModule:
    """Half of whose examples are questions, with the loss on the answers."""
    knobs = {"batch_size": 7, "epochs": 40, "question_share": 0.5, "question_loss": "answer", **knobs}
    return SpanCorruptionDataModule(
        corpus.documents, corpus.train, TOKENIZER, RandomSpans(64), 64, question_wordings=wordings, **knobs
    )


def asked(data: SpanCorruptionDataModule, epoch: int, index: list[int]) -> list[tuple[str, str]]:
    """(what the model reads, what is asked of it) for some examples of an epoch."""
    batch: Batch = data.make_batches(epoch, [torch.tensor(index)])[0]
    rows = []
    for x, y in zip(batch.inputs, batch.targets, strict=True):
        for row, targets in zip(x.tolist(), y.tolist(), strict=True):
            told = [i for i in targets if i != IGNORE]
            end = max(i for i, target in enumerate(targets) if target != IGNORE)
            rows.append((TOKENIZER.decode(row[: end + 1]), TOKENIZER.decode(told)))
    return rows


def questions_of(data: SpanCorruptionDataModule) -> list[int]:
    return list(range(len(data.documents), data.plan.sizes[0]))


def test_every_question_is_asked_in_one_of_the_wordings_and_its_answer_alone_is_learned() -> None:
    data, possible = mixed(), {}
    for question, (number, wording) in product(CORPUS.train, enumerate(WORDINGS)):
        possible[f"{wording.format(name=question.name)}{MASK}{question.answer}"] = number, question
    counts: Counter[Any] = Counter()
    for epoch in range(40):
        for read, told in asked(data, epoch, questions_of(data)):
            number, question = possible[read]
            assert told == f"{question.answer}{MASK}"
            counts[number, question] += 1
    shares = [sum(count for (n, _), count in counts.items() if n == number) / counts.total() for number in range(3)]
    assert counts.total() == 480 and all(abs(share - 1 / 3) < 0.065 for share in shares)  # three standard errors
    assert len(counts) == 3 * len(CORPUS.train)  # each person in each wording
    told = Counter(question for (_, question), count in counts.items() for _ in range(count))
    assert set(told.values()) == {60}  # and everybody as often as without wordings


def test_a_wording_depends_on_seed_epoch_and_slot_alone() -> None:
    data, slots = mixed(), questions_of(mixed())
    whole = sorted(asked(data, 3, slots))
    assert sorted(row for slot in slots for row in asked(mixed(batch_size=2), 3, [slot])) == whole
    assert sorted(asked(data, 3, slots[::-1])) == whole
    others = [sorted(asked(mixed(seed=1), 3, slots)), sorted(asked(data, 4, slots))]
    assert whole not in others and others[0] != others[1]
    alone = type(CORPUS)(CORPUS.documents, CORPUS.train[:1], (), ())  # one question, so that only wordings can differ
    told = [[asked(mixed(corpus=alone, seed=seed), 3, [slot]) for slot in slots] for seed in (0, 0, 1)]
    assert told[0] == told[1] != told[2]


def test_a_template_that_stands_twice_is_taken_twice_as_often() -> None:
    data = mixed([QUESTION, WORDINGS[1], WORDINGS[1]])
    rows = [read for epoch in range(40) for read, _ in asked(data, epoch, questions_of(data))]
    assert abs(sum("was born in" in read for read in rows) / len(rows) - 2 / 3) < 0.065


def test_the_original_wording_alone_leaves_every_batch_as_it_was() -> None:
    corpus, odd = small_corpus(), Question("Ada Vik born where?", "Pau")
    corpus = type(corpus)(corpus.documents, (*corpus.train, odd), corpus.dev, corpus.test)
    data = mixed([QUESTION], corpus, question_loss="all")  # of any form: nothing is taken out of it
    slots, seen = questions_of(data), set()
    for epoch in range(6):
        seen |= {read + told[-1] for read, told in asked(data, epoch, slots)}
    assert seen == {f"{question.text}{MASK}{question.answer}{MASK}" for question in corpus.train}


def test_the_original_wording_needs_no_character_that_the_questions_do_not_need() -> None:
    tokenizer = CharTokenizer.fit(["Ada. Ada was born in Pau ."])  # no question mark, since nobody asks
    SpanCorruptionDataModule(["Ada. Ada was born in Pau ."], (), tokenizer, RandomSpans(64), 64)


def test_mapped_questions_are_worded_as_those_in_memory(tmp_path: Path) -> None:
    World(people=60, places=6).write(tmp_path / "data")
    mapped = map_folder(tmp_path / "data", ArrayCache(tmp_path / "cache"))
    plain = World(people=60, places=6).corpus()
    tokenizer = CharTokenizer.fit([*plain.documents, *(f"{q.text}{q.answer}" for q in plain.train)])
    for epoch, step in ((0, 0), (1, 3), (5, 2)):
        batches = [
            SpanCorruptionDataModule(
                corpus.documents, corpus.train, tokenizer, RandomSpans(128), 128, question_share=0.5,
                question_wordings=[QUESTION, "{name} was born in"],
            ).make_batches(epoch, [torch.arange(40) + 30 * step])[0]
            for corpus in (mapped, plain)
        ]  # fmt: skip
        for one, other in zip(*(batch.inputs for batch in batches), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("wordings", "message"),
    [
        ([], r"one or more templates, not \[\]"),
        (QUESTION, "is a list of one or more templates, not 'Where"),
        (["Where was he born?"], r"the wording 'Where was he born\?' has 0 times \{name\}: write it exactly once"),
        (["{name} or {name}"], r"has 2 times \{name\}"),
        (["Where, {name}?"], r"the wording 'Where, \{name\}\?': character ',' \(U\+002C\)"),
        ([QUESTION, "Where was " * 5 + "{name}"], r"'Ada Byrne' in .* has 65 characters with .* the block has 64"),
    ],
)
def test_what_cannot_be_asked_is_refused(wordings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixed(wordings)


def test_a_question_of_another_form_has_no_other_wording() -> None:
    corpus = type(CORPUS)(CORPUS.documents, (Question("Ada Vik born where?", "Pau"),), (), ())
    with pytest.raises(ValueError, match=r"'Ada Vik born where\?' is not asked as 'Where was"):
        mixed(WORDINGS, corpus)


def test_a_run_asks_in_other_wordings_while_it_is_pretrained_and_only_then(tmp_path: Path) -> None:
    base = ("model=small", "data.people=20", "pretrain.question_share=0.5", "pretrain.question_loss=answer")
    worded = 'pretrain.question_wordings=["{name} was born in"]'
    job = prepare(settings(*base, worded), ())
    pretraining, finetuning = job.data("pretrain"), job.data("finetune")
    slots = torch.tensor(questions_of(pretraining))
    batches = pretraining.make_batches(0, [slots])[0], finetuning.make_batches(0, [torch.arange(12)])[0]
    worded_so, as_written = ([job.tokenizer.decode(row) for row in batch.inputs[0].tolist()] for batch in batches)
    assert all(" was born in⁇" in text and "Where" not in text for text in worded_so)
    assert all(text.startswith("Where was ") and " born?⁇" in text for text in as_written)
    names = {run_name(settings(*base, *more), job.corpus) for more in ([], [worded])}
    assert len(names) == 2
    with pytest.raises(ConfigError, match=r"pretrain: the wording 'Where\?' has 0 times"):
        tiny_run(tmp_path, 'pretrain.question_wordings=["Where?"]')


def test_wordings_of_no_questions_are_refused() -> None:
    """They would change a run's name and nothing else."""
    with pytest.raises(ValueError, match="question_share is 0: raise the share"):
        mixed(question_share=0.0)
