"""Lookup by content and by position: the tasks, the bound for whoever does not compare, the training and the table.

Legend: B sequences, T places, n pairs, V values.
"""

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from birthplace_lm.attention.linear import LinearAttention
from birthplace_lm.attention.sliding_window import SlidingWindowAttention
from birthplace_lm.attention.synthesizer import SynthesizerAttention
from birthplace_lm.attention.vanilla import VanillaAttention
from birthplace_lm.exploration import lookup, lookup_table, lookup_training
from birthplace_lm.exploration.lookup_task import LookupTask, PairEmbedding
from birthplace_lm.exploration.lookup_training import Goal, Outcome, accuracy, answers, lookup_model, over, teach, train
from birthplace_lm.transformer import Attention
from tests.helpers import roughened

TASKS = [
    LookupTask(),
    LookupTask(apart=True),
    LookupTask(n_pairs=3, n_keys=5, n_values=4, gap=0),
    LookupTask(n_pairs=4, n_keys=4, n_values=9, gap=2, apart=True),
]
SMALL = LookupTask(n_pairs=4, n_keys=6, n_values=5, gap=1)
FACTORIES: dict[str, Callable[..., Attention]] = {"vanilla": VanillaAttention, "linear": LinearAttention}


def read_off(words: str, task: LookupTask) -> tuple[list[int], list[int]]:
    """Right answers by content and by position, read from a written sequence the way a person would."""
    pairs: list[tuple[int, int]] = []
    asked: list[int] = []
    for word in words.replace(" :", ":").split():  # pairs that are apart come together
        if ":" in word:
            key, value = word.split(":")
            pairs.append((int(key), int(value)))
        elif word != "_":
            asked.append(int(word))
    value_of = dict(pairs)
    assert len(pairs) == len(value_of) == len({value for _, value in pairs}) == task.n_pairs
    assert sorted(asked) == sorted(value_of)
    return [value_of[key] for key in asked], [value for _, value in pairs]


@pytest.mark.parametrize("task", TASKS)
def test_the_answers_are_those_that_a_reader_finds(task: LookupTask) -> None:
    tokens, content, position = task.examples(seed=3, step=5, rows=20)
    assert tokens.shape == (20, task.length) and content.shape == position.shape == (20, task.n_pairs)
    for row, by_content, by_position in zip(tokens, content.tolist(), position.tolist(), strict=True):
        words = task.written(row)
        assert words.count("_") == task.gap
        assert read_off(words, task) == (by_content, by_position)


def test_a_step_is_a_function_of_seed_and_step() -> None:
    first = SMALL.examples(1, 2, 8)
    SMALL.examples(4, 4, 8)
    for one, again in zip(first, SMALL.examples(1, 2, 8), strict=True):
        assert torch.equal(one, again)
    for seed, step in [(1, 3), (2, 2), (1, -1)]:
        assert not torch.equal(first.tokens, SMALL.examples(seed, step, 8).tokens)


def test_the_place_of_the_answer_has_nothing_to_do_with_the_asking_place_or_the_key() -> None:
    tokens, content, position = SMALL.examples(0, 0, 6000)
    n = SMALL.n_pairs
    place = (content[:, :, None] == position[:, None, :]).int().argmax(-1)  # (B, n): where the asked key's pair stands
    key = tokens[:, -n:] // (SMALL.n_values + 1)  # (B, n)
    asking = torch.arange(n).expand_as(place)
    rows = torch.arange(len(place))  # one asking place of every sequence, so that counts are independent
    for known, kinds, found in ((asking, n, place), (key, SMALL.n_keys, place), (key, SMALL.n_keys, asking)):
        counts = torch.zeros(kinds, n)
        counts.index_put_((known[rows, rows % n], found[rows, rows % n]), torch.ones(len(rows)), accumulate=True)
        expected = counts.sum(1, keepdim=True) / n
        assert stats.chi2.sf(float(((counts - expected) ** 2 / expected).sum()), kinds * (n - 1)) > 1e-4


def test_no_rule_that_does_not_see_the_matching_is_right_more_often_than_one_in_n() -> None:
    n = SMALL.n_pairs
    matchings = list(permutations(range(n)))  # which value stands with which key, all equally likely
    for asked in range(n):
        for guess in range(n):  # a rule that sees all but the matching says the same value for all matchings
            assert sum(matching[asked] == guess for matching in matchings) / len(matchings) == SMALL.content_blind


def test_a_token_is_embedded_as_its_key_and_its_value() -> None:
    embedding = PairEmbedding(SMALL, d_model=8)
    pair, key_alone, value_alone, blank = (
        embedding(SMALL.token(key, value)) for key, value in [(2, 3), (2, 5), (6, 3), (6, 5)]
    )
    torch.testing.assert_close(pair, embedding.keys.weight[2] + embedding.values.weight[3])
    torch.testing.assert_close(pair, key_alone + value_alone - blank)
    every = {int(SMALL.token(key, value)) for key in range(7) for value in range(6)}
    assert every == set(range(42))


@pytest.mark.parametrize("sizes", [{"n_pairs": 9, "n_keys": 8}, {"n_pairs": 9, "n_values": 8}, {"n_pairs": 1}])
def test_sizes_that_make_no_task_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{sizes['n_pairs']} pairs of"):
        LookupTask(**sizes)


class Reader(nn.Module):
    """A model that answers by a rule instead of by weights: `hidden` is one-hot in the answer, `head` hands it on."""

    def __init__(self, task: LookupTask, rule: Goal):
        super().__init__()
        self.task, self.rule, self.head = task, rule, nn.Identity()

    def hidden(self, tokens: Tensor) -> Tensor:
        said = [read_off(self.task.written(row), self.task)[self.rule == "position"] for row in tokens]
        last = nn.functional.one_hot(torch.tensor(said), self.task.n_values).float()  # (B, n, V)
        return torch.cat((torch.zeros(len(tokens), self.task.length - self.task.n_pairs, self.task.n_values), last), 1)


def test_whoever_answers_the_other_question_is_right_in_one_of_n() -> None:
    task = LookupTask()
    for rule, goal, other in (("content", "content", "position"), ("position", "position", "content")):
        reader: Any = Reader(task, rule)  # type: ignore[arg-type]
        assert accuracy(reader, task, goal, seed=0) == 1.0  # type: ignore[arg-type]
        # A random order agrees with another in one of n places on average, with variance 1 of the count: 512 of them.
        assert abs(accuracy(reader, task, other, seed=0) - 1 / 8) < 4 / 8 / 512**0.5  # type: ignore[arg-type]


def test_behind_the_gap_a_window_sees_no_pair() -> None:
    def window(places: int) -> Callable[..., Attention]:
        return lambda **arguments: SlidingWindowAttention(window=places, **arguments)

    tokens = SMALL.examples(0, 0, 4).tokens
    changed = torch.cat((SMALL.examples(0, 1, 4).tokens[:, : SMALL.n_pairs], tokens[:, SMALL.n_pairs :]), dim=1)
    for places, sees in ((SMALL.gap + 1, False), (SMALL.gap + 2, True)):
        model = roughened(lookup_model(SMALL, window(places), 1, seed=0))
        same = torch.equal(answers(model, SMALL, tokens), answers(model, SMALL, changed))
        assert same is not sees


def test_a_training_is_a_function_of_its_arguments_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (train(SMALL, "content", VanillaAttention, 1, seed, n_steps=4) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert first.curve == again.curve and first.accuracy == again.accuracy and first.steps == 4
    for one, same in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, same)
    born = [lookup_model(SMALL, VanillaAttention, 1, seed).head.weight for seed in (0, 0, 1)]
    assert torch.equal(born[0], born[1]) and not torch.equal(born[0], born[2]) and other.curve != first.curve


def test_training_ends_once_it_has_been_right_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_training, "PATIENCE", 3)
    monkeypatch.setattr(lookup_training, "SOLVED", 0.0)
    model = lookup_model(SMALL, VanillaAttention, 1, seed=0)
    assert len(teach(model, SMALL, "position", seed=0, n_steps=9)) == 3
    monkeypatch.setattr(lookup_training, "SOLVED", 1.01)
    assert len(teach(model, SMALL, "position", seed=0, n_steps=9)) == 9


def test_a_training_is_over_when_it_is_solved_or_level() -> None:
    assert not over([1.0] * 49) and over([1.0] * 50) and over([0.1] * 70 + [0.99] * 50)
    assert not over([0.1] * 599) and over([0.1] * 600)
    for gain, level in ((0.015, True), (0.025, False)):  # in every 200 steps
        assert over([gain * step / 200 for step in range(700)]) is level


def test_the_synthesizers_weights_stay_where_they_are_when_pairs_move() -> None:
    moved = {}
    for name, factory in lookup.VARIANTS.items():
        model = roughened(lookup_model(SMALL, factory, 1, seed=0))
        tokens = SMALL.examples(0, -1, 64).tokens
        shares = []
        for row in tokens:  # one sequence, one head, one asking place at a time
            shifted = torch.cat((row[3:4], row[:3], row[4:]))
            before, after = (lookup.first_weights(model, part[None])[0].tolist() for part in (row, shifted))
            shares.append(
                [
                    [sum(abs(a - b) for a, b in zip(before[h][t], after[h][t], strict=True)) / 2 for t in range(5, 9)]
                    for h in range(lookup_training.N_HEADS)
                ]
            )
        slow = max(float(share) for share in torch.tensor(shares).mean(dim=(0, 2)))
        moved[name] = lookup.weights_moved(model, SMALL, seed=0)
        assert moved[name] == pytest.approx(slow, abs=1e-6)
    assert moved["synthesizer"] == 0.0 < 0.01 < moved["vanilla"]


def untrained(accuracies: dict[tuple[str, Goal], float]) -> Callable[..., Outcome]:
    """In place of `train`: models as they are born, with the accuracies one wants."""
    names = {factory: name for name, factory in lookup.VARIANTS.items()}

    def outcome(task: LookupTask, goal: Goal, factory: Callable[..., Attention], layers: int, seed: int) -> Outcome:
        model = roughened(lookup_model(task, factory, layers, seed))
        return Outcome((0.5,) * 20, accuracies.get((names[factory], goal), 0.99), 0.0, model)

    return outcome


def test_the_claims_fall_with_what_they_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(accuracies: dict[tuple[str, Goal], float]) -> list[int]:
        monkeypatch.setattr(lookup, "train", untrained(accuracies))
        claims = lookup.demonstrate().claims[:5]  # that vanilla's weights follow takes a training
        return [i for i, claim in enumerate(claims) if not claim.holds]

    blind: dict[tuple[str, Goal], float] = {("synthesizer", "content"): 0.12}
    assert failing(blind) == []
    assert failing({}) == [1]  # a synthesizer that could look up by content
    assert failing({**blind, ("vanilla", "content"): 0.9}) == [0]
    assert failing({**blind, ("vanilla", "position"): 0.9}) == [2]
    assert failing({**blind, ("synthesizer", "position"): 0.9}) == [3]
    monkeypatch.setattr(lookup, "VARIANTS", {"vanilla": SynthesizerAttention, "synthesizer": VanillaAttention})
    assert failing(blind) == [4]  # weights that follow the pairs


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["content", "position"])
def test_vanilla_compares_and_the_synthesizer_does_not(goal: Goal) -> None:
    task = LookupTask(gap=0)
    vanilla = train(task, goal, VanillaAttention, 1, seed=0)
    synthesizer = train(task, goal, SynthesizerAttention, 1, seed=0, n_steps=400)
    assert vanilla.accuracy > 0.95 and vanilla.steps < 400
    if goal == "content":
        assert 0.05 < synthesizer.accuracy < task.content_blind + lookup.margin(task)
    else:
        assert synthesizer.accuracy > 0.95


@pytest.mark.slow
def test_pairs_that_are_apart_take_two_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_training, "ROWS", 32)
    task = LookupTask(n_pairs=4, n_keys=8, n_values=8, gap=0, apart=True)
    assert train(task, "content", VanillaAttention, 1, seed=0).accuracy < task.content_blind + lookup.margin(task)
    assert train(task, "content", VanillaAttention, 2, seed=0).accuracy > 0.95


def test_a_table_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, int, int, str]] = []
    names = {factory: name for name, factory in FACTORIES.items()}

    def instead(task: LookupTask, goal: Goal, factory: Any, layers: int, seed: int, steps: int) -> Outcome:
        if len(trained) == 5 and not (tmp_path / "went on").exists():
            raise KeyboardInterrupt
        trained.append((names[factory], layers, seed, goal))
        right = 0.5 + seed / 4 if goal == "content" else 1.0
        return Outcome((right,) * (seed + 1), right, 2.0, lookup_model(SMALL, VanillaAttention, 1, 0))

    monkeypatch.setattr(lookup_table, "train", instead)
    path = tmp_path / "out" / "lookup.json"
    with pytest.raises(KeyboardInterrupt):
        lookup.measure(FACTORIES, layers=(1, 2), seeds=(0, 1), path=path, task=SMALL)
    assert len(json.loads(path.read_text())["results"]) == 5
    (tmp_path / "went on").touch()
    rows = lookup.measure(FACTORIES, layers=(1, 2), seeds=(0, 1), path=path, task=SMALL)
    assert len(trained) == len(set(trained)) == 16  # 2 attentions, 2 depths, 2 tasks, 2 seeds, none of them twice
    assert json.loads(path.read_text())["results"] == rows
    assert len(rows) == 8 and {row["accuracy"] for row in rows if row["task"] == "content"} == {0.625}
    assert {(row["seeds"], row["steps"], row["seconds"]) for row in rows} == {(2, 1.5, 4.0)}
    assert (path.parent / "lookup.png").stat().st_size > 5000
    lookup.measure(FACTORIES, seeds=(0, 1), path=path, task=SMALL)
    assert len(trained) == 16
    with pytest.raises(ValueError, match="choose another folder"):
        lookup.measure(FACTORIES, path=path, task=LookupTask(gap=3))


def test_a_table_without_a_file_trains_for_real(capsys: pytest.CaptureFixture[str]) -> None:
    rows = lookup.measure({"vanilla": VanillaAttention}, layers=(1,), seeds=(0,), task=SMALL, n_steps=2)
    printed = capsys.readouterr().out.splitlines()
    assert [row["task"] for row in rows] == ["content", "position"] and len(printed) == 2
    for row, said in zip(rows, printed, strict=True):
        assert row["accuracy"] == train(SMALL, row["task"], VanillaAttention, 1, 0, 2).accuracy and row["steps"] == 2
        assert f"{row['accuracy']:.1%} right after   2 steps" in said and row["task"] in said


def test_the_picture_says_each_number_in_its_cell() -> None:
    shares = {("b", "content", 1): 0.9, ("b", "position", 1): 0.8, ("a", "content", 1): 0.25, ("c", "content", 1): 1.0}
    rows = [
        {"attention": name, "task": task, "layers": layers, "accuracy": share, "seeds": 1}
        for (name, task, layers), share in shares.items()
    ]
    axes = lookup_table.draw_table(rows, 0.125).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text().split()[0] for label in axes.get_xticklabels()]
    assert names == ["c", "b", "a"] and columns == ["content", "position"]
    shown = {}
    for text in axes.texts:
        x, y = map(int, text.get_position())
        shown[names[y], columns[x], 1] = float(text.get_text())
    assert shown == shares
