"""A prefix before every document: the same corrupted documents behind it, and names where questions have them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from birthplace_lm import knowledge
from birthplace_lm.array_cache import ArrayCache
from birthplace_lm.asking import Inquiry
from birthplace_lm.composing import ConfigError, build
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.datamodules import SpanCorruptionDataModule
from birthplace_lm.evaluation.stored import Window, cloze
from birthplace_lm.identity import run_name
from birthplace_lm.jobs import prepare
from birthplace_lm.layouts import IGNORE
from birthplace_lm.mapped_files import map_folder
from birthplace_lm.tokenizer import PAD, CharTokenizer
from birthplace_lm.world import World
from tests.test_configs import settings
from tests.test_stages import tiny_run

PREFIX = "Where was "
WORLD = World(people=60, places=6)
CORPUS = WORLD.corpus()
TOKENIZER = CharTokenizer.fit([*CORPUS.documents, *(f"{q.text}{q.answer}" for q in CORPUS.train)])
NAMED = "pretrain.document_prefix='Where was '"


def serving(prefix: str, corpus: Any = CORPUS, **knobs: Any) -> SpanCorruptionDataModule:
    knobs = {"batch_size": 16, "micro_batches": 1, "seed": 3, **knobs}
    room = RandomSpans(64, max_length=40)
    return SpanCorruptionDataModule(
        corpus.documents, corpus.train, TOKENIZER, room, 64, document_prefix=prefix, **knobs
    )


def rows(data: SpanCorruptionDataModule, index: list[int]) -> list[tuple[str, str]]:
    """(the whole sequence, what is asked of it) for each example alone, so that their order stays."""
    found = []
    for i in index:
        batch = data.make_batches(2, [torch.tensor([i])])[0]
        x, y = batch.inputs[0][0].tolist(), batch.targets[0][0].tolist()
        told = TOKENIZER.decode(target for target in y if target != IGNORE)
        found.append((TOKENIZER.decode([*x, y[-1]]).rstrip(PAD), told))
    return found


@pytest.mark.parametrize("loss", ["all", "span"])
def test_documents_stand_behind_the_prefix_and_nothing_else_changes(loss: str) -> None:
    plain, behind = (serving(prefix, document_loss=loss, question_share=0.2) for prefix in ("", PREFIX))
    n = len(CORPUS.documents)
    for (text, told), (longer, of_longer) in zip(rows(plain, [*range(n)]), rows(behind, [*range(n)]), strict=True):
        assert longer == PREFIX + text
        # all but a sequence's first character is asked for, or the span alone, wherever it begins
        assert of_longer == (longer[1:] if loss == "all" else told)
    assert (questions := rows(plain, [n, n + 3])) == rows(behind, [n, n + 3])
    assert all(text.startswith(PREFIX) and not text.startswith(2 * PREFIX) for text, _ in questions)


def test_a_name_stands_where_its_question_has_it() -> None:
    data = serving(PREFIX, question_share=0.5)
    people = {q.name for q in CORPUS.train}
    texts = [text for text, _ in rows(data, [*range(data.plan.sizes[0])])]
    asked = {name for name in people for text in texts if text.startswith(f"{PREFIX}{name} born?")}
    written = {name for name in people for text in texts if text.startswith(f"{PREFIX}{name}. ")}
    assert asked == people and len(written) >= 8  # of others the cut is shorter than the name, or the span is in it


def test_mapped_documents_have_it_too(tmp_path: Path) -> None:
    WORLD.write(tmp_path / "data")
    mapped = map_folder(tmp_path / "data", ArrayCache(tmp_path / "cache"))
    assert rows(serving(PREFIX, mapped), [*range(20)]) == rows(serving(PREFIX), [*range(20)])


def test_what_does_not_fit_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"corrupted documents reach 65 characters, the block has 64"):
        serving("W" * 23)  # and behind it up to 40 and two sentinels
    with pytest.raises(ValueError, match=r"document_prefix 'Where# ': character '#' \(U\+0023\)"):
        serving("Where# ")
    with pytest.raises(ConfigError, match=r"document_prefix leaves documents 4 of 128 characters: shorten it"):
        tiny_run(tmp_path, f"pretrain.document_prefix={'W' * 124}")


def test_a_run_leaves_the_policy_the_room_behind_the_prefix_and_has_a_name_of_its_own() -> None:
    base = ("model=small", "data.people=20", "corruption=isolated")
    plain, behind = (prepare(settings(*base, *more), ()) for more in ([], [NAMED]))
    longest, shorter = (job.data("pretrain").corruption.max_total for job in (plain, behind))
    assert shorter + len(PREFIX) <= 128 and shorter < longest <= 128
    assert run_name(plain.settings, plain.corpus) != run_name(behind.settings, plain.corpus)


def test_the_card_asks_a_biography_behind_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_run(tmp_path, NAMED)
    windows: list[Window] = []

    def seen(*arguments: Any, **others: Any) -> Any:
        windows.append(arguments[4])
        return cloze(*arguments, **others)

    monkeypatch.setattr(knowledge, "cloze", seen)
    card = knowledge.knowledge_card(folder, build(folder.config()["data"]).corpus(), Inquiry(unknown=10))
    assert {window.prefix for window in windows} == {PREFIX} and card["stored"]["window"]["prefix"] == PREFIX
