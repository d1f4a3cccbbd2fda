"""Span corruption: against a slow version in strings, and the properties that the task needs."""

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.batches import uniforms
from birthplace_lm.composing import build
from birthplace_lm.corruption import Pieces, TokenStore, assemble, check_contract, check_policy, in_order
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.corruption.salient_spans import SalientSpans
from birthplace_lm.entities import entities, title_length
from birthplace_lm.gazetteers import recurring_names
from birthplace_lm.tokenizer import MASK, PAD, CharTokenizer
from tests.helpers import CONFIGS
from tests.test_configs import settings as settings_of

BLOCK = 128
PLACES = ("Pau", "New York", "Saint-Malo", "Łódź")


def biography(rng: random.Random) -> str:
    words = ["was", "a", "painter", "in", "1872", "and", "the", "of", "Society", "Arts", *PLACES]
    name = f"{rng.choice(['Ada', 'John P.', 'Zoë'])} {rng.choice(['Byrne', 'O’Neil', 'Vik'])}"
    return f"{name}. {' '.join(rng.choice(words) for _ in range(rng.randint(1, 60)))} ."


# A title and an entity as long as they may be, so far apart that what lies between is all shown: 116 characters.
FAR = f"{'Wolfgang Amadeus Theophilus Mozart-Vik. '}{'x' * 43} Llanfairpwllgwyngyllgogerychwyrn was cold ."
DOCUMENTS = [biography(random.Random(i)) for i in range(300)] + ["Abcd", "x" * 400, FAR]
TOKENIZER = CharTokenizer.fit(DOCUMENTS)
STORE = TokenStore(TOKENIZER.encode(document) for document in DOCUMENTS)
POLICIES = {
    "random": RandomSpans(BLOCK),
    "third sentinel": RandomSpans(BLOCK, third_sentinel=True),
    "windows": RandomSpans(BLOCK, window="anywhere", rate=0.4),
    "seed": RandomSpans(BLOCK, min_prefix=1),
    "small block": RandomSpans(16),
    "salient": SalientSpans(BLOCK),
    "entities": SalientSpans(BLOCK, gazetteer=0, isolated=0),
    "salient, unclosed": SalientSpans(BLOCK, third_sentinel=False),
    "recurring": SalientSpans(BLOCK, known="recurring"),
    "alike": SalientSpans(BLOCK, known="alike"),
    "all that fits": SalientSpans(BLOCK, salient=1.0, isolated=1.0, min_before=45, before=45, after=0),
}
for policy in POLICIES.values():
    policy.prepare(DOCUMENTS, PLACES)
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def corrupted(policy: RandomSpans | SalientSpans, epoch: int, index: list[int] | None = None) -> list[str]:
    at = torch.tensor(range(len(DOCUMENTS)) if index is None else index)
    pieces = policy(STORE, at, uniforms(7, epoch, at, policy.n_uniforms))
    rows = assemble(STORE, pieces, policy.max_total)
    return [TOKENIZER.decode(row).rstrip(PAD) for row in rows.tolist()]


def parts(sequence: str, third_sentinel: bool) -> tuple[str, str, str]:
    assert sequence.endswith(MASK) or not third_sentinel
    before, after, span = sequence.removesuffix(MASK if third_sentinel else "").split(MASK)
    return before, after, span


@every_policy
def test_the_text_can_be_put_together_again(policy: RandomSpans | SalientSpans) -> None:
    for epoch in range(3):
        for document, sequence in zip(DOCUMENTS, corrupted(policy, epoch), strict=True):
            before, after, span = parts(sequence, policy.third_sentinel)
            title = document[: title_length(document)]
            whole = before + span + after in document
            title_first = before.startswith(title) and before.removeprefix(title) + span + after in document
            assert span and (whole or title_first)
            assert whole or isinstance(policy, SalientSpans)
            assert PAD not in sequence and len(sequence) <= policy.max_total <= BLOCK


def slow_random_span(document: str, u: list[float], block: int) -> str:
    """SPEC section 3 with string slices, for the default policy."""
    longest = 7 * block // 8
    length = min(4 + int(u[0] * (longest - 4 + 1)), len(document))
    text = document[:length]
    low = max(length // 8, 1)
    high = max(3 * length // 8, low)
    size = low + int(u[1] * (high - low + 1))
    start = int(u[2] * (length - size + 1))
    return text[:start] + MASK + text[start + size :] + MASK + text[start : start + size]


class Wrong:
    """Shows the whole document, `at` characters from where it stands, `more` than it has, asked for from `asked` on."""

    n_uniforms, max_total = 1, 500

    def __init__(self, at: int = 0, more: int = 0, asked: int = 0, most: int = 500):
        self.at, self.more, self.asked, self.max_total = at, more, asked, most

    def prepare(self, documents: Sequence[str], answers: Sequence[str]) -> None: ...

    def __call__(self, store: TokenStore, index: torch.Tensor, u: torch.Tensor) -> Pieces:
        start, length = store.offsets[index] + self.at, store.lengths[index] + self.more
        starts, lengths = in_order(store, (start, length), None)
        return Pieces(starts, lengths, asked=torch.full_like(length, self.asked))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "corruption").glob("*.yaml")))
def test_every_policy_shows_its_own_document_alone(name: str) -> None:
    policy = build(settings_of(f"corruption={name}")["corruption"], block_size=BLOCK)
    check_contract(policy)
    policy.prepare(DOCUMENTS, PLACES)
    check_policy(policy, STORE, len(DOCUMENTS))


@pytest.mark.parametrize("wrong", [{"at": -1}, {"more": 1}, {"at": 1}, {"asked": -1}, {"asked": 900}, {"most": 9}])
def test_a_policy_that_reaches_out_of_its_document_is_refused(wrong: dict[str, int]) -> None:
    check_policy(Wrong(), STORE)
    with pytest.raises(ValueError, match=r"Wrong with random numbers of 0 makes of document .* have to lie within it"):
        check_policy(Wrong(**wrong), STORE)
    with pytest.raises(TypeError, match="object has no n_uniforms and no max_total and no prepare"):
        check_contract(object())


def test_random_spans_agree_with_a_slow_version_in_strings() -> None:
    at = torch.arange(len(DOCUMENTS))
    u = uniforms(7, 4, at, 4).tolist()
    expected = [slow_random_span(document, numbers, BLOCK) for document, numbers in zip(DOCUMENTS, u, strict=True)]
    assert corrupted(POLICIES["random"], 4) == expected


def test_every_length_is_reached_and_a_quarter_is_asked_for_on_average() -> None:
    long = torch.full((20_000,), DOCUMENTS.index("x" * 400))
    epochs = torch.arange(20_000)
    u = uniforms(7, epochs[:, None], long, 4)
    cut = POLICIES["random"].cut(STORE, long, u)
    lengths, spans = cut.end - cut.begin, cut.span_end - cut.span
    assert set(lengths.tolist()) == set(range(4, 113))
    law = [(max(n // 8, 1) + max(3 * n // 8, 1)) / 2 for n in range(4, 113)]
    assert abs(spans.double().mean() - sum(law) / len(law)) < 0.15  # seven standard errors
    assert abs(spans.sum() / lengths.sum() - 0.25) < 0.01


@pytest.mark.parametrize("name", ["random", "third sentinel", "windows", "small block"])
def test_first_and_last_characters_can_be_kept_and_asked_for(name: str) -> None:
    policy = POLICIES[name]
    outcomes = [parts(s, policy.third_sentinel) for epoch in range(30) for s in corrupted(policy, epoch)]
    assert {bool(before) for before, _, _ in outcomes} == {True, False}
    assert {bool(after) for _, after, _ in outcomes} == {True, False}


def test_a_document_as_short_as_the_prefix_is_asked_for_its_last_character() -> None:
    """Documents may be shorter than min_length, so min_prefix cannot be held to them beforehand."""
    policy = RandomSpans(BLOCK, min_length=10, min_prefix=9)
    store = TokenStore(map(TOKENIZER.encode, (DOCUMENTS[0][:6], "Abcd")))
    index = torch.arange(40) % 2
    cut = policy.cut(store, index, uniforms(7, 0, torch.arange(40), policy.n_uniforms))
    assert (cut.span_end == store.lengths[index]).all() and (cut.span == store.lengths[index] - 1).all()


def test_min_prefix_keeps_the_first_character() -> None:
    assert all(parts(s, False)[0] for epoch in range(20) for s in corrupted(POLICIES["seed"], epoch))


@every_policy
@settings(max_examples=20)
@given(epoch=st.integers(0, 500), index=st.lists(st.integers(0, len(DOCUMENTS) - 1), min_size=1, max_size=8))
def test_an_example_does_not_depend_on_its_company(
    policy: RandomSpans | SalientSpans, epoch: int, index: list[int]
) -> None:
    assert corrupted(policy, epoch, index) == [corrupted(policy, epoch, [i])[0] for i in index]


def test_windows_show_late_characters_as_often_as_early_ones() -> None:
    long = DOCUMENTS.index("x" * 400)
    ends = []
    for epoch in range(2000):
        at = torch.tensor([long])
        cut = POLICIES["windows"].cut(STORE, at, uniforms(7, epoch, at, 4))
        ends.append((int(cut.begin), int(cut.end)))
    covered = [sum(begin <= i < end for begin, end in ends) / len(ends) for i in (100, 200, 300)]
    assert max(covered) - min(covered) < 0.06 and min(covered) > 0.1


def test_salient_spans_are_whole_entities_behind_the_title() -> None:
    policy = SalientSpans(BLOCK, salient=1.0, gazetteer=0.5)
    policy.prepare(DOCUMENTS, PLACES)
    for epoch in range(5):
        for document, sequence in zip(DOCUMENTS, corrupted(policy, epoch), strict=True):
            body = document[title_length(document) :]
            found = {body[s:e] for s, e in entities(body)} | {p for p in PLACES if p in body}
            candidates = {candidate for candidate in found if len(candidate) <= policy.longest_span}
            if candidates:
                before, _, span = parts(sequence, True)
                assert span in candidates
                assert before.startswith(document[: title_length(document)])


def test_salient_spans_are_drawn_and_shown_by_their_law() -> None:
    """What is asked for and how it is shown, each by a draw of its own; no entity is near another or an end."""
    filler = " xx" * 45 + " "
    text = f"Ada Vik.{filler}Pau{filler}Rome{filler}Lyon{filler}1872{filler}."
    policy = SalientSpans(BLOCK, salient=0.8, gazetteer=0.6, isolated=0.7, min_before=3, before=32, after=16)
    policy.prepare([text], ("Pau", "Lyon"))
    draws, tokenizer = 20_000, CharTokenizer.fit([text])
    index = torch.zeros(draws, dtype=torch.int64)
    u = uniforms(7, torch.arange(draws)[:, None], index, policy.n_uniforms)
    pieces = policy(TokenStore([tokenizer.encode(text)]), index, u)
    start, size = pieces.starts[:, 5], pieces.lengths[:, 5]
    law = {"Pau": 0.8 * (0.6 / 2 + 0.4 / 4), "Rome": 0.8 * 0.1, "Lyon": 0.8 * 0.4, "1872": 0.8 * 0.1}
    titled = pieces.lengths[:, 0] == len("Ada Vik. ")  # a random span may be an entity too, but has no title before it
    found = {word: titled & (start == text.index(word)) & (size == len(word)) for word in law}
    for word, share in law.items():  # a standard error is at most 0.0035
        assert float(found[word].double().mean()) == pytest.approx(share, abs=0.014)
    salient = torch.stack(list(found.values())).any(0)
    before, after = pieces.lengths[salient, 1], pieces.lengths[salient, 3]
    isolated = before + size[salient] + after < 60
    assert float(isolated.double().mean()) == pytest.approx(0.7, abs=0.02)
    for shown, values in ((before[isolated], range(3, 33)), (after[isolated], range(17))):
        counts = torch.bincount(shown, minlength=values.stop)
        expected = int(isolated.sum()) / len(values)
        assert counts[: values.start].sum() == 0 and len(counts) == values.stop
        assert ((counts[values.start :] - expected).abs() < 5.5 * expected**0.5).all()
    wide = policy.random.max_length - len("Ada Vik. ") - size[salient][~isolated]  # on both sides together
    assert (before[~isolated] + after[~isolated] == wide).all()
    where = before[~isolated] / wide
    assert (where.min(), where.max()) == (0, 1) and float(where.mean()) == pytest.approx(0.5, abs=0.025)


def test_the_gazetteer_alone_asks_for_known_answers_only() -> None:
    policy = SalientSpans(BLOCK, salient=1.0, gazetteer=1.0)
    policy.prepare(DOCUMENTS, PLACES[:2])
    spans = [
        parts(s, True)[2] for d, s in zip(DOCUMENTS, corrupted(policy, 0), strict=True) if "Pau" in d or "York" in d
    ]
    assert len(spans) > 100 and set(spans) == {"Pau", "New York"}


def test_recurring_spans_need_no_answer() -> None:
    policies = [SalientSpans(BLOCK, salient=1.0, gazetteer=1.0, known="recurring") for _ in range(2)]
    for policy, answers in zip(policies, (PLACES, ()), strict=True):
        policy.prepare(DOCUMENTS, answers)
    with_answers, without = (corrupted(policy, 3) for policy in policies)
    assert with_answers == without
    names = recurring_names(DOCUMENTS)
    for document, sequence in zip(DOCUMENTS, without, strict=True):
        body = document[title_length(document) :]
        candidates = names & {body[start:end] for start, end in entities(body) if end - start <= 32}
        if candidates - set(document.split(". ")[0].split()):
            assert parts(sequence, True)[2] in candidates


def test_spans_alike_are_answers_and_names_that_stand_where_they_stand() -> None:
    towns = ("Oslo", "Pau", "Lyon", "Rome")
    lives = [f"Ada Vik. She was born in {town} and played Chess in 1872 ." for town in towns]
    tokenizer = CharTokenizer.fit(lives)
    store = TokenStore(tokenizer.encode(life) for life in lives)
    text, index = "".join(lives), torch.arange(len(lives)).repeat(50)
    asked = {}
    for known in ("answers", "alike"):
        policy = SalientSpans(BLOCK, salient=1.0, gazetteer=1.0, known=known)
        policy.prepare(lives, towns[:2])
        pieces = policy(store, index, uniforms(7, torch.arange(len(index))[:, None], index, policy.n_uniforms))
        spans = zip(pieces.starts[:, 5].tolist(), pieces.lengths[:, 5].tolist(), strict=True)
        asked[known] = {text[start : start + length] for start, length in spans}
    assert asked["alike"] == set(towns) and {"Chess", "1872"} < asked["answers"]


def test_an_answer_may_stand_in_a_longer_name_and_a_name_alike_is_a_whole_name() -> None:
    lives = [f"Ada Vik. She was born in {town} and sang ." for town in ("Oslo", "Pau", "Lyon", "New Lyon", "Upper Pau")]
    lives.append("Lyon Ek. Lyon Ek was born in Oslo and sang .")
    policy = SalientSpans(BLOCK, salient=1.0, gazetteer=1.0, known="alike", recall=1.0)
    policy.prepare(lives, ("Oslo", "Pau"))
    spans, counts = policy._mentions.spans.tolist(), policy._mentions.counts.tolist()
    ends = [sum(counts[: life + 1]) for life in range(len(lives))]
    found = [{lives[life][s:e] for s, e in spans[ends[life] - counts[life] : ends[life]]} for life in range(len(lives))]
    assert found == [{"Oslo"}, {"Pau"}, {"Lyon"}, {"New Lyon"}, {"Pau", "Upper Pau"}, {"Oslo"}]


@pytest.mark.parametrize("known", ["alike", "recurring", "answers"])
def test_without_a_share_for_known_names_none_is_looked_for(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("names_alike", "recurring_names"):
        monkeypatch.setattr(f"birthplace_lm.corruption.salient_spans.{name}", lambda *_: pytest.fail("looked for"))
    policy = SalientSpans(BLOCK, gazetteer=0, known=known)
    policy.prepare(DOCUMENTS, PLACES)
    assert not policy._mentions.counts.any() and policy._entities.counts.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 127}, "126"),
        ({"min_length": 0}, "0 …"),
        ({"rate": 0.9}, r"0\.9"),
        ({"window": "middle"}, "'middle'"),
        ({"min_prefix": 4}, "min_prefix 4"),
    ],
)
def test_knobs_out_of_range_are_refused_with_the_numbers(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomSpans(BLOCK, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"1\.5"):
        SalientSpans(BLOCK, salient=1.5)
    with pytest.raises(ValueError, match=r"before 100.* make 191 characters, the block has 128"):
        SalientSpans(BLOCK, before=100)
    with pytest.raises(ValueError, match=r"answers\|alike\|recurring, not 'places'"):
        SalientSpans(BLOCK, known="places")
    with pytest.raises(ValueError, match=r"a span of 116 leaves no room for a title .* lower longest_span to 110"):
        SalientSpans(BLOCK, longest_span=116, min_before=0, before=0, after=0)
    with pytest.raises(ValueError, match=r"recall is a share in 0 … 1, not 9"):
        SalientSpans(BLOCK, known="alike", recall=9)
