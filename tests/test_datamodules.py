"""What Lightning is served: the task's sequences, whatever the batch size, grouping, rank or point of resumption."""

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from birthplace_lm.batches import uniforms
from birthplace_lm.corpus import Question
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.corruption.salient_spans import SalientSpans
from birthplace_lm.datamodules import BirthplaceDataModule, SpanCorruptionDataModule
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.tokenizer import MASK, MASK_ID, PAD_ID
from tests.helpers import small_corpus, standing_at, tiny, tokenizer_of

CORPUS = small_corpus()
TOKENIZER = tokenizer_of(CORPUS)
BLOCK = 64


def pretraining(**knobs: Any) -> SpanCorruptionDataModule:
    policy = knobs.pop("policy", None) or RandomSpans(BLOCK)
    knobs = {"batch_size": 5, "epochs": 3, "micro_batches": 2, **knobs}
    return SpanCorruptionDataModule(CORPUS.documents, CORPUS.train, TOKENIZER, policy, BLOCK, **knobs)


def finetuning(**knobs: Any) -> BirthplaceDataModule:
    return BirthplaceDataModule(CORPUS.train, CORPUS.dev, TOKENIZER, BLOCK, **{"batch_size": 3, "epochs": 2, **knobs})


def examples(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(inputs, targets) of every example, padding cut off; the lone PAD of a share without an example is none."""
    pairs = []
    for x, y in zip(batch.inputs, batch.targets, strict=True):
        for row, targets in zip(x.tolist(), y.tolist(), strict=True):
            length = max((i + 1 for i, target in enumerate(targets) if target != IGNORE), default=0)
            if row == [PAD_ID] and not length:
                continue
            assert all(token == PAD_ID for token in row[length + 1 :])
            pairs.append((tuple(row[:length]), tuple(targets[:length])))
    return pairs


def everything(data: SpanCorruptionDataModule | BirthplaceDataModule) -> Counter[Any]:
    return Counter(example for batch in data.train_dataloader() for example in examples(batch))


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_workers_change_nothing(workers: int) -> None:
    alone = list(pretraining(question_share=0.3).train_dataloader())
    dataset = pretraining(question_share=0.3).train_dataloader().dataset
    helped = list(DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context="fork"))
    assert len(alone) == len(helped)
    for one, other in zip(alone, helped, strict=True):
        assert all(map(torch.equal, [*one.inputs, *one.targets], [*other.inputs, *other.targets]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_random_numbers_are_the_same_on_a_gpu() -> None:
    index = torch.arange(1000)
    assert torch.equal(uniforms(3, 7, index, 5), uniforms(3, 7, index.cuda(), 5).cpu())


def test_questions_are_the_documented_pairs() -> None:
    question = CORPUS.train[0]
    data = BirthplaceDataModule([question], [], TOKENIZER, BLOCK, epochs=1)
    (batch,) = data.train_dataloader()
    (x,), (y,) = batch.inputs, batch.targets
    sequence = f"{question.text}{MASK}{question.answer}{MASK}"
    assert TOKENIZER.decode(x[0].tolist()) == sequence[:-1]
    asked = [i for i, target in enumerate(y[0].tolist()) if target != IGNORE]
    assert asked == list(range(len(question.text), len(sequence) - 1))
    assert TOKENIZER.decode(y[0, asked].tolist()) == f"{question.answer}{MASK}"
    assert (batch.n_targets, batch.n_characters) == (len(asked), len(sequence) - 1)


def test_documents_are_asked_for_as_a_whole() -> None:
    for batch in pretraining(epochs=1).train_dataloader():
        for x, y in zip(batch.inputs, batch.targets, strict=True):
            shifted = torch.cat([x[:, 1:], y[:, -1:]], 1)
            real = y != IGNORE
            assert torch.equal(y[real], shifted[real])  # every target is the next input
            assert torch.equal(real[:, :-1], x[:, 1:] != PAD_ID)  # and all that is no padding is a target
        assert batch.n_targets == sum(int((y != IGNORE).sum()) for y in batch.targets) == batch.n_characters


@pytest.mark.parametrize(
    "policy", [RandomSpans(BLOCK, third_sentinel=True), SalientSpans(BLOCK, longest_span=12, before=8, after=4)]
)
def test_the_loss_can_be_on_the_span_alone(policy: RandomSpans | SalientSpans) -> None:
    for batch in pretraining(policy=policy, document_loss="span", epochs=1).train_dataloader():
        for x, y in zip(batch.inputs, batch.targets, strict=True):
            for row, targets in zip(x.tolist(), y.tolist(), strict=True):
                second = [i for i, token in enumerate(row) if token == MASK_ID][1]
                asked = [i for i, target in enumerate(targets) if target != IGNORE]
                assert asked == list(range(second, asked[-1] + 1)) and targets[asked[-1]] == MASK_ID


@settings(max_examples=20)
@given(
    batch_size=st.integers(1, 40),
    micro_batches=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.3]),
    static=st.booleans(),
)
def test_examples_do_not_depend_on_how_they_are_batched(
    batch_size: int, micro_batches: int, share: float, static: bool
) -> None:
    shape = {"batch_size": batch_size, "micro_batches": micro_batches, "static_width": static}
    assert everything(pretraining(question_share=share, **shape)) == everything(pretraining(question_share=share))
    assert everything(finetuning(**shape)) == everything(finetuning())


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_a_loader_goes_on_where_the_trainer_stands(make: Any) -> None:
    data = make()
    whole = [examples(batch) for batch in data.train_dataloader()]
    assert len(whole) == data.plan.total_steps
    for step in (0, 1, len(whole) // 2, len(whole) - 1):
        data.trainer = standing_at(step, 0, 1)
        assert [examples(batch) for batch in data.train_dataloader()] == whole[step:]


@pytest.mark.parametrize("make", [pretraining, finetuning])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_a_batch_without_overlap(make: Any, world_size: int) -> None:
    alone = list(make().train_dataloader())
    shares = []
    for rank in range(world_size):
        data = make()
        data.trainer = standing_at(0, rank, world_size)
        shares.append(list(data.train_dataloader()))
    for whole, *parts in zip(alone, *shares, strict=True):
        assert Counter(examples(whole)) == Counter(example for part in parts for example in examples(part))
        assert {(part.n_targets, part.n_characters) for part in parts} == {(whole.n_targets, whole.n_characters)}


@pytest.mark.parametrize(("micro_batches", "world_size", "groups"), [(6, 1, 6), (6, 2, 3), (5, 2, 3), (2, 3, 1)])
def test_ranks_share_the_groups_of_a_batch(micro_batches: int, world_size: int, groups: int) -> None:
    data = pretraining(batch_size=12, micro_batches=micro_batches)
    data.trainer = standing_at(0, world_size - 1, world_size)
    assert len(next(iter(data.train_dataloader())).inputs) == groups


def test_groups_are_as_wide_as_a_multiple_of_four_or_the_batch() -> None:
    for batch in pretraining(batch_size=12, micro_batches=4).train_dataloader():
        widths = [x.shape[1] for x in batch.inputs]
        assert [y.shape for y in batch.targets] == [x.shape for x in batch.inputs]
        longest = max(len(x) for x, _ in examples(batch))
        assert widths[0] == longest and all(width % 4 == 0 or width == longest for width in widths)
        for x, width in zip(batch.inputs, widths, strict=True):  # no wider than it takes
            assert width - int((x != PAD_ID).sum(dim=1).max()) < 4


@pytest.mark.parametrize("make", [partial(pretraining, question_share=0.3), pretraining, finetuning])
def test_batches_for_a_gpu_are_the_same_examples_in_one_shape(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = [sorted(examples(batch)) for batch in make().train_dataloader()]
    monkeypatch.setattr(type(make()), "_on_gpu", True)
    data = make()
    there = list(data.train_dataloader())
    assert [sorted(pair for pair in examples(batch) if pair[0]) for batch in there] == here
    shapes = {tuple(x.shape for x in (*batch.inputs, *batch.targets)) for batch in there}
    assert shapes == {((data.plan.batch_size, data.longest - 1),) * 2}


def test_micro_batches_have_the_gradient_of_the_padded_batch() -> None:
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=BLOCK).double()
    gradients = []
    for knobs in ({"micro_batches": 1, "static_width": True}, {"micro_batches": 4}):
        batch = next(iter(pretraining(batch_size=12, **knobs).train_dataloader()))
        model.zero_grad()
        for x, y in zip(batch.inputs, batch.targets, strict=True):
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum")
            (loss / batch.n_targets).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_a_share_of_questions_takes_turns() -> None:
    data = pretraining(question_share=0.25, epochs=6)
    assert data.plan.sizes == (12 + 4,) * 6  # 12 documents, so 4 questions are a quarter of 16
    asked: Counter[str] = Counter()
    for batch in data.train_dataloader():
        for x, _ in examples(batch):
            text = TOKENIZER.decode(x)
            if text.startswith("Where was"):
                asked[text.split(MASK)[0]] += 1
    assert asked == Counter({question.text: 3 for question in CORPUS.train})  # 6 epochs · 4 slots over 8 questions


def test_the_share_of_questions_can_change_along_the_training() -> None:
    data = pretraining(question_share=[0, 0.5, 0.25], epochs=5, batch_size=5)
    questions = Counter(dict.fromkeys(range(5), 0))
    for (epoch, _), batch in zip(data.plan.batches(), data.train_dataloader(), strict=True):
        questions[epoch] += sum(TOKENIZER.decode(x).startswith("Where was") for x, _ in examples(batch))
    assert list(questions.values()) == [0, 4, 12, 7, 4]  # 12 documents; shares 0, 1/4, 1/2, 3/8 and 1/4 of all


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"question_share": 1.0}, "not 1.0"),
        ({"question_share": [0.2, -0.1]}, "not -0.1"),
        ({"question_share": []}, "there is none"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"micro_batches": 0}, "not 0"),
        ({"question_loss": "none"}, "none"),
        ({"policy": RandomSpans(128)}, "the block has 64"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretraining(**knobs)


def test_finetuning_goes_through_the_questions_in_order_where_they_are_not_shuffled() -> None:
    def orders(**knobs: Any) -> list[list[int]]:
        batches = list(finetuning(**knobs).plan.batches())
        return [[i for epoch, index in batches if epoch == wanted for i in index.tolist()] for wanted in (0, 1)]

    n = len(CORPUS.train)
    assert orders(shuffle=False) == [list(range(n)), list(range(n))]
    one, other = orders()
    assert one != other and sorted(one) == sorted(other) == list(range(n)) != one


def test_a_question_longer_than_the_block_is_refused() -> None:
    long = Question("Where was " + "A" * 60 + " born?", "Pau")
    with pytest.raises(ValueError, match="has 81 characters, the block has 64"):
        BirthplaceDataModule([long], [], TOKENIZER, BLOCK)
    with pytest.raises(ValueError, match="has no answer to learn from"):
        BirthplaceDataModule([replace(CORPUS.train[0], answer=None)], [], TOKENIZER, BLOCK)
