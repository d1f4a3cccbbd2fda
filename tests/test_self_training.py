"""What finished runs agree on, as questions to learn: chosen as defined, told to nobody who may not know it, kept."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from birthplace_lm import jobs
from birthplace_lm.composing import ConfigError, load_config, save_config
from birthplace_lm.corpus import Question
from birthplace_lm.corruption.salient_spans import SalientSpans
from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.entities import title_length
from birthplace_lm.jobs import Job, prepare
from birthplace_lm.runs import RunFolder, read_json, write_json
from birthplace_lm.self_training import PseudoLabels, unlabelled
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.teachers import pseudo_labels
from birthplace_lm.world import World
from tests.test_configs import settings
from tests.test_distillation import weights
from tests.test_stages import TINY, stop_at, tiny_run

answers = st.builds(Answer, st.sampled_from(["Pau", "Oslo", ""]), st.floats(-9, 0), st.booleans())


@given(st.lists(st.lists(answers, min_size=3, max_size=3), min_size=1, max_size=4), st.sampled_from([0, 0.5, 0.6, 1]))
def test_an_answer_that_enough_runs_give_is_learned(said: list[list[Answer]], agreement: float) -> None:
    asked = ["Where was A born?", "Where was B born?", "Where was C born?"]
    expected = []
    for i, question in enumerate(asked):
        votes: dict[str, list[float]] = {}
        for of_run in said:
            votes.setdefault(of_run[i].text if of_run[i].finished else "", []).append(of_run[i].log_probability)
        best = max(votes, key=lambda text: (len(votes[text]), max(votes[text])))
        if best and len(votes[best]) / len(said) >= agreement:
            expected.append(Question(question, best))
    assert list(PseudoLabels(agreement)(asked, said)) == expected


@pytest.mark.parametrize("agreement", [-0.1, 1.5])
def test_an_agreement_that_is_no_share_is_refused(agreement: float) -> None:
    with pytest.raises(ValueError, match=rf"in \[0, 1\], not {agreement}"):
        PseudoLabels(agreement)


def test_everybody_with_a_biography_and_without_a_label_is_asked_about_once() -> None:
    corpus = World(people=40, seed=3).corpus()
    asked = unlabelled([*corpus.documents, corpus.documents[-1]], corpus.train)
    assert sorted(asked) == sorted({question.text for question in (*corpus.dev, *corpus.test)})
    assert unlabelled(["no title here", *corpus.documents], (*corpus.train, *corpus.dev, *corpus.test)) == []
    assert title_length("no title here") == 0


def learning(*runs: RunFolder, more: tuple[str, ...] = ()) -> list[str]:
    named = ",".join(str(run.root) for run in runs)
    shown = ["self_training@pretrain.self_training=runs", f"pretrain.self_training.runs=[{named}]"]
    return [*shown, "pretrain.self_training.agreement=0", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("finished")
    fluent = ("finetune.epochs=40", "finetune.optimizer.lr=1e-2")  # so that answers come to their end
    return [tiny_run(folder, f"seed={seed}", "stages=[pretrain,finetune]", *fluent) for seed in (3, 4)]


def job(*overrides: str) -> Job:
    return prepare(settings(*TINY, *overrides), ())


def test_a_run_learns_what_others_answer_and_goes_on_to_the_same_bits(
    tmp_path: Path, finished: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = "stages=[pretrain]"
    whole, alone = tiny_run(tmp_path / "whole", *learning(*finished), stages), tiny_run(tmp_path / "alone", stages)
    corpus, kept = job().corpus, read_json(whole.root / jobs.PSEUDO_LABELS)
    asked = unlabelled(corpus.documents, corpus.train)
    said = [answer_questions(run.load_model("finetune"), run.tokenizer(), asked) for run in finished]
    assert kept == {question.text: question.answer for question in PseudoLabels(0)(asked, said)}
    assert kept and not {question.text for question in corpus.train} & set(kept)
    with monkeypatch.context() as patched, pytest.raises(UnfinishedError):
        stop_at(patched, 3)
        tiny_run(tmp_path / "broken", *learning(*finished), stages)
    monkeypatch.setattr(jobs, "pseudo_labels", None)  # nobody is asked again: another machine might round otherwise
    resumed = tiny_run(tmp_path / "broken", *learning(*finished), stages)
    assert resumed.name == whole.name != alone.name
    of_whole, of_resumed, of_alone = (weights(run) for run in (whole, resumed, alone))
    assert all(value.equal(of_resumed[name]) for name, value in of_whole.items())
    assert any(not value.equal(of_alone[name]) for name, value in of_whole.items())


def test_what_is_too_long_in_one_of_its_wordings_is_left_out(finished: list[RunFolder]) -> None:
    run = finished[0]
    corpus, tokenizer = job().corpus, run.tokenizer()
    short = {
        len(q.name) + len(q.answer or ""): q for q in pseudo_labels(PseudoLabels(0), [run], corpus, tokenizer, 64, 64)
    }
    room = 64 - min(short) - 2
    fits, none = (("x" * n + "{name}",) for n in (room, room + 1))
    found = [pseudo_labels(PseudoLabels(0), [run], corpus, tokenizer, 64, 64, wordings) for wordings in (fits, none)]
    assert found[0] and {len(q.name) + len(q.answer or "") for q in found[0]} == {min(short)} and not found[1]


def test_they_are_asked_in_pretraining_beside_the_train_questions_and_are_no_known_places(
    finished: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = "corruption=salient"
    told = job(*learning(*finished), policy)
    made_up = tuple(Question(question.text, "Nowhere at all") for question in told.pseudo_labelled)
    monkeypatch.setattr(jobs, "pseudo_labels", lambda *_: made_up)
    told, plain = job(*learning(*finished), policy), job(policy)
    data: Any = told.data("pretrain")
    assert data.mixture.n_questions == len(told.corpus.train) + len(made_up)
    assert data.plan.total_steps == plain.data("pretrain").plan.total_steps  # the share of questions is the recipe's
    where = zip(data.questions.offsets.tolist(), data.questions.lengths.tolist(), strict=True)
    texts = [told.tokenizer.decode(data.questions.take(torch.arange(at, at + n)).tolist()) for at, n in where]
    both = (*told.corpus.train, *made_up)
    assert texts == [*(question.text for question in both), *(question.answer for question in both)]
    finetuning: Any = told.data("finetune")
    assert len(finetuning.questions.lengths) == 2 * len(told.corpus.train)
    places, prepared = list[set[str]](), SalientSpans.prepare

    def noted(policy: SalientSpans, texts: Sequence[str], answers: Sequence[str]) -> None:
        places.append(set(answers))
        prepared(policy, texts, answers)

    monkeypatch.setattr(SalientSpans, "prepare", noted)
    for one in (told, plain):
        one.data("pretrain")
    assert places[0] == places[1] == {question.answer for question in plain.corpus.train}


def test_the_name_knows_the_answering_weights_and_neither_their_place_nor_their_order(
    tmp_path: Path, finished: list[RunFolder]
) -> None:
    moved = tmp_path / finished[0].name
    moved.symlink_to(finished[0].root)
    both, other_way, one = (job(*learning(*runs)) for runs in (finished, (finished[1], RunFolder(moved)), finished[:1]))
    assert both.folder.name == other_way.folder.name != one.folder.name
    assert str(tmp_path) not in str(other_way.record()) and finished[0].name in str(other_way.record())


def test_teachers_that_see_one_character_less_than_the_block_teach_such_as_they_are(tmp_path: Path) -> None:
    fluent = ("stages=[finetune]", "finetune.epochs=40", "finetune.optimizer.lr=1e-2")
    run = tiny_run(tmp_path, "attention=synthesizer", "positions=learned", *fluent)
    student = job(*learning(run), "attention=synthesizer", "positions=learned")
    assert student.model().max_length < student.settings["model"]["block_size"] and student.pseudo_labelled
    with pytest.raises(ConfigError, match="sees 127 characters where this model sees 128"):
        job(*learning(run))


def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, finished: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in ("held_out_share=0.3", "data.seed=5"):
        with pytest.raises(ConfigError, match="trained on other people or another split of them"):
            job(*learning(*finished, more=(more,)))
    with pytest.raises(ConfigError, match=r"question_share is 0: raise the share"):
        job(*learning(*finished, more=("pretrain.question_share=0",)))
    with pytest.raises(ConfigError, match=r"self_training.PseudoLabels: agreement .* not 2"):
        job(*learning(*finished, more=("pretrain.self_training.agreement=2",)))
    with pytest.raises(ConfigError, match=r"self_training.runs is a list of one or more finished runs, not \[\]"):
        job(*learning())
    with pytest.raises(ConfigError, match="is no run folder"):
        job(*learning(RunFolder(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match=r"has the weights of .* would count twice: name each run once"):
        job(*learning(*finished, finished[0]))
    begun = tmp_path / "begun"
    shutil.copytree(finished[0].root, begun)
    (begun / "finetune" / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match="has not finished finetune"):
        job(*learning(finished[1], RunFolder(begun)))
    pretrained = tmp_path / "pretrained"  # asked for no more at first, and later for finetuning, which has begun
    shutil.copytree(begun, pretrained)
    config = load_config(pretrained / "config.yaml")
    save_config({**config, "stages": ["pretrain"]}, pretrained / "config.yaml")
    write_json(pretrained / "progress.json", {"stages": ["pretrain", "finetune"]})
    with pytest.raises(ConfigError, match="has not finished finetune"):
        job(*learning(finished[1], RunFolder(pretrained)))
    monkeypatch.setattr(jobs, "pseudo_labels", lambda *_: ())
    with pytest.raises(ConfigError, match="the runs agree on no answer"):
        job(*learning(*finished))
