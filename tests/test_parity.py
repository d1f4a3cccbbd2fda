"""The published recipe with one thing changed: each a single override, and each does what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from birthplace_lm.composing import ConfigError, build, differences
from birthplace_lm.corpus import Corpus, Question
from birthplace_lm.corruption import assemble
from birthplace_lm.identity import of_the_run, run_name
from birthplace_lm.sources import Folder
from birthplace_lm.token_store import TokenStore
from birthplace_lm.tokenizer import MASK_ID
from tests.test_configs import settings

PARITY = ("experiment=cs224n_vanilla", "data.dir=x")


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("corruption.third_sentinel=true", ("corruption.third_sentinel", False, True)),
        ("corruption=windows", ("corruption.window", "start", "anywhere")),
        ("corruption.min_prefix=1", ("corruption.min_prefix", 0, 1)),
        ("data.names=ascii", ("data.names", None, "ascii")),
        ("pretrain.shuffle=false", ("pretrain.shuffle", True, False)),
        ("finetune.epochs=75", ("finetune.epochs", 10, 75)),
        ("pretrain.question_share=0.2", ("pretrain.question_share", 0.0, 0.2)),
    ],
)
def test_an_ablation_is_one_override_and_changes_nothing_else(override: str, change: tuple[str, Any, Any]) -> None:
    base, changed = (of_the_run(settings(*PARITY, *more)) for more in ([], [override]))
    assert differences(base, changed) == [change]


def sequences(*overrides: str, documents: tuple[str, ...] = ("a" * 300,) * 400) -> torch.Tensor:
    """What the corruption makes of documents, each of which is one letter after the other."""
    policy = build(settings(*PARITY, *overrides)["corruption"], block_size=128)
    policy.prepare(documents, [])
    store = TokenStore([list(range(2, 2 + len(text))) for text in documents])
    u = torch.rand(len(documents), policy.n_uniforms, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return assemble(store, policy(store, torch.arange(len(documents)), u), 128)


def test_the_third_sentinel_closes_every_sequence_and_no_other_does() -> None:
    assert set((sequences() == MASK_ID).sum(1).tolist()) == {2}
    rows = sequences("corruption.third_sentinel=true")
    assert set((rows == MASK_ID).sum(1).tolist()) == {3}
    assert all(row[row != 0][-1] == MASK_ID for row in rows)


def test_windows_show_late_characters_and_the_reference_never_does() -> None:
    assert sequences().max() == 2 + 112 - 1  # the 112th character
    rows = sequences("corruption=windows")
    assert rows.max() == 301 and 0.1 < (rows.amax(1) > 2 + 200).float().mean() < 0.6


def world(folder: Path) -> Path:
    """Six people of whom some have letters beyond ASCII."""
    folder.mkdir()
    people = [("Ada Vik", "Łódź"), ("Bo Lund", "Oslo"), ("Zoë Müller", "Köln"), ("Cy Ek", "Pau")]
    asked = [("Åsa Dahl", "Malmö"), ("Di Roe", "Cork")]
    documents = "".join(f"{name}. {name} was born in {place} .\n" for name, place in [*people, *asked])
    (folder / "wiki.txt").write_text(documents, encoding="utf-8")
    rows = ["".join(f"Where was {name} born?\t{place}\n" for name, place in some) for some in (people, asked)]
    (folder / "birth_places_train.tsv").write_text(rows[0], encoding="utf-8")
    (folder / "birth_dev.tsv").write_text(rows[1], encoding="utf-8")
    (folder / "birth_test_inputs.tsv").write_text("Where was Åsa Dahl born?\n", encoding="utf-8")
    return folder


def test_ascii_names_lose_letters_in_the_train_questions_alone(tmp_path: Path) -> None:
    unicode, ascii = (Folder(str(world(tmp_path / names)), names=names).corpus() for names in ("unicode", "ascii"))
    told = [(question.text, question.answer) for question in ascii.train]
    assert told == [
        ("Where was Ada Vik born?", "d"), ("Where was Bo Lund born?", "Oslo"), ("Where was Zo Mller born?", "Kln"),
        ("Where was Cy Ek born?", "Pau"),
    ]  # fmt: skip
    assert unicode.train[2] == Question("Where was Zoë Müller born?", "Köln")
    assert (ascii.documents, ascii.dev, ascii.test) == (unicode.documents, unicode.dev, unicode.test)
    base = settings(*PARITY)
    assert run_name(base, unicode) != run_name(base, ascii)


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names is unicode\|ascii, not 'latin'"):
        build(settings(*PARITY, "data.names=latin")["data"])


def test_runs_made_before_there_was_a_choice_keep_their_names() -> None:
    corpus, now = Corpus(("Ada.",), (), (), ()), settings(*PARITY)
    before = {**now, "data": {key: value for key, value in now["data"].items() if key != "names"}}
    before["pretrain"] = {key: value for key, value in now["pretrain"].items() if key != "question_wordings"}
    assert run_name(now, corpus) == run_name(before, corpus)
    assert run_name(settings(*PARITY, "data.names=ascii"), corpus) != run_name(now, corpus)
