"""Sentences in another order: against permuted strings, and what must not change."""

from collections import Counter
from math import factorial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.batches import uniforms
from birthplace_lm.corruption import TokenStore, assemble
from birthplace_lm.corruption.permuted_sentences import PermutedSentences, sentences
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.datamodules import SpanCorruptionDataModule
from birthplace_lm.entities import title_length
from birthplace_lm.tokenizer import MASK, PAD, CharTokenizer
from birthplace_lm.world import World

BLOCK = 96
DOCUMENTS = (
    "Ada Vik. Ada was born in Pau. She paints. Vik lives in Oslo .",
    "Bo Lund. Lund bakes for Pau inc. until noon .",
    "no title here, and nothing moves",
    "Cy P. Ek. Cy P. Ek was born in 1914. They sing! Is it so? It is .",
    "Di Roe. One. Two. Three. Four. Five. Six. Seven. Eight and the end without a stop",
)
TOKENIZER = CharTokenizer.fit(DOCUMENTS)
STORE = TokenStore([TOKENIZER.encode(text) for text in DOCUMENTS])


def policy(cls: type[RandomSpans] = PermutedSentences, **knobs: object) -> RandomSpans:
    made = cls(BLOCK, **knobs)  # type: ignore[arg-type]
    made.prepare(DOCUMENTS, [])
    return made


def reordered(text: str, keys: list[float]) -> str:
    """The sentences in the order of their keys, what stands between them where it was."""
    spans = sentences(text)
    ends = [0, *(end for _, end in spans)]
    between = [text[end:start] for end, (start, _) in zip(ends, spans, strict=False)]
    told = [text[start:end] for _, (start, end) in sorted(zip(keys, spans, strict=False))]
    return "".join(gap + one for gap, one in zip(between, told, strict=True)) + text[ends[-1] :]


def test_sentences_are_found_behind_the_title() -> None:
    found = [[text[start:end] for start, end in sentences(text)] for text in DOCUMENTS]
    assert found[0] == ["Ada was born in Pau", "She paints", "Vik lives in Oslo"]
    assert found[1:3] == [["Lund bakes for Pau inc. until noon"], []]
    assert found[3] == ["Cy P. Ek was born in 1914", "They sing", "Is it so", "It is"]
    assert found[4][-2:] == ["Seven", "Eight and the end without a stop"] and len(found[4]) == 8
    assert sentences("Ada Vik. ") == []


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    window=st.sampled_from(["start", "anywhere"]),
    third=st.booleans(),
    index=st.lists(st.integers(0, len(DOCUMENTS) - 1), min_size=1, max_size=6),
)
def test_a_sequence_is_that_of_random_spans_on_the_permuted_text(
    seed: int, window: str, third: bool, index: list[int]
) -> None:
    permuting, plain = (policy(cls, window=window, third_sentinel=third) for cls in (PermutedSentences, RandomSpans))
    assert permuting.n_uniforms == 4 + 8
    u = uniforms(seed, 0, torch.tensor(index), permuting.n_uniforms)
    texts = [reordered(DOCUMENTS[i], keys[4:]) for i, keys in zip(index, u.tolist(), strict=True)]
    store = TokenStore([TOKENIZER.encode(text) for text in texts])
    expected, found = plain(store, torch.arange(len(index)), u[:, :4]), permuting(STORE, torch.tensor(index), u)
    assert torch.equal(assemble(STORE, found, BLOCK), assemble(store, expected, BLOCK))
    assert torch.equal(found.totals, expected.totals) and torch.equal(found.asked, expected.asked)


def shown(row: torch.Tensor) -> str:
    """A sequence put together again: its span where the first ⁇ stands."""
    before, after, span = TOKENIZER.decode(row.tolist()).rstrip(PAD).split(MASK)[:3]
    return before + span + after


def test_every_order_comes_as_often_as_any_other_and_the_title_stays() -> None:
    made, orders = policy(), Counter[str]()
    for epoch in range(3000):
        u = uniforms(1, epoch, torch.tensor([0]), made.n_uniforms)
        u[:, 0] = 0.9999  # as long as it can be
        orders[shown(assemble(STORE, made(STORE, torch.tensor([0]), u), BLOCK)[0])] += 1
    assert len(orders) == factorial(3) and all(400 < count < 600 for count in orders.values())
    assert all(text.startswith("Ada Vik. ") and text.endswith(" .") for text in orders)
    assert all(sorted(text) == sorted(DOCUMENTS[0]) for text in orders)


def test_texts_of_one_sentence_are_treated_as_by_random_spans_to_the_bit() -> None:
    documents = [text for text in World(people=60).corpus().documents if title_length(text)]
    documents = [text[: sentences(text)[0][1]] + " ." for text in documents]
    tokenizer = CharTokenizer.fit(documents)
    batches = [
        SpanCorruptionDataModule(documents, (), tokenizer, cls(128), 128, batch_size=30).make_batches(
            7, [torch.arange(40)]
        )[0]
        for cls in (PermutedSentences, RandomSpans)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*(batch.inputs for batch in batches), strict=True))


def test_an_order_depends_on_seed_epoch_and_document_alone() -> None:
    documents = World(people=40, wordings="multi4").corpus().documents
    tokenizer = CharTokenizer.fit(documents)

    def sequences(epoch: int, index: list[int], seed: int = 0) -> set[tuple[int, ...]]:
        data = SpanCorruptionDataModule(
            documents, (), tokenizer, PermutedSentences(128), 128, seed=seed, static_width=True
        )
        batch = data.make_batches(epoch, [torch.tensor(index)])[0]
        return {tuple(i for i in row if i) for rows in batch.inputs for row in rows.tolist()}

    whole = sequences(2, list(range(20)))
    assert whole == set().union(*(sequences(2, [i]) for i in reversed(range(20))))
    assert not whole & sequences(3, list(range(20))) and not whole & sequences(2, list(range(20)), seed=1)


@pytest.mark.parametrize("documents", [(), ("no title at all",)])
def test_nothing_to_permute_is_no_error(documents: tuple[str, ...]) -> None:
    made = PermutedSentences(BLOCK)
    made.prepare(documents, [])
    store = TokenStore([TOKENIZER.encode(text) for text in documents])
    pieces = made(store, torch.arange(len(documents)), torch.rand(len(documents), made.n_uniforms))
    assert len(pieces.totals) == len(documents) and made.n_uniforms == 4
