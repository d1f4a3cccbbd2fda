"""The cloze test against greedy decoding character by character, the probe against scikit-learn."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.probe import fit_probe, probe_card, question_states
from birthplace_lm.evaluation.stored import LEFT_OUT, Cloze, Window, cloze, stored_or_extracted
from birthplace_lm.tokenizer import MASK_ID, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer
from tests.helpers import roughened, tiny

FIRST = ("Ada", "Bo", "Cy", "Di")
LAST = ("Vik", "Byrne", "Lund", "Okonedo")
NAMES = [f"{first} {last}" for first in FIRST for last in LAST]
BLOCK = 48


@pytest.fixture(scope="module")
def tokenizer() -> CharTokenizer:
    return CharTokenizer.fit([*NAMES, "Where was born? Born in, they left. They Pau Oslo aeiou"])


@pytest.fixture(scope="module")
def model(tokenizer: CharTokenizer) -> Transformer:
    return roughened(tiny(vocabulary_size=len(tokenizer), block_size=BLOCK)).eval()


def born(name: str, place: str | None) -> Question:
    return Question(f"Where was {name} born?", place)


def greedy(model: Transformer, tokenizer: CharTokenizer, context: str, n: int, sentinels: bool) -> str:
    """n characters by the plainest loop there is; "" where a special one comes."""
    ids = [MASK_ID if character == "⁇" else tokenizer.encode(character)[0] for character in context]
    for _ in range(n):
        logits = model(torch.tensor([ids]))[0, -1]
        if not sentinels:
            logits[MASK_ID] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] in (PAD_ID, MASK_ID):
            return ""
    return tokenizer.decode(ids[-n:])


def completed(
    model: Transformer, tokenizer: CharTokenizer, filled: bool, after: str
) -> list[tuple[Question, str, str]]:
    """(question, document, another place of that length) with a place that is what the model would say there."""
    made = []
    for name in NAMES:
        before = f"{name}. Born in "
        context = f"{before}⁇{after}⁇" if filled else before
        place = greedy(model, tokenizer, context, 3, sentinels=filled)
        if place and place not in before + after and (before + place).find(place) == len(before):
            at = len(made) % len(place)  # each of its characters in turn
            other = place[:at] + next(c for c in "aeiou" if c != place[at]) + place[at + 1 :]
            made.append((born(name, place), f"{before}{place}{after}", other))
    return made


@pytest.mark.parametrize("filled", [False, True])
def test_what_greedy_decoding_says_is_stored_and_one_other_character_is_not(
    model: Transformer, tokenizer: CharTokenizer, filled: bool
) -> None:
    people = completed(model, tokenizer, filled, ", they left .")
    assert len(people) >= 6
    questions, documents = [question for question, _, _ in people], [document for _, document, _ in people]
    result = cloze(model, tokenizer, questions, documents, batch_size=5)
    assert result.asked == tuple(range(len(people))) and not sum(result.left_out.values())
    assert all(result.filled if filled else result.continued)
    wrong = [born(question.name, other) for question, _, other in people]
    swapped = [document.replace(question.answer or "", other) for question, document, other in people]
    result = cloze(model, tokenizer, wrong, swapped)
    assert not any(result.filled if filled else result.continued)


def test_a_sentinel_is_no_choice_in_a_continued_text(model: Transformer, tokenizer: CharTokenizer) -> None:
    """A model that would say ⁇ anywhere continues as before, and fills nothing."""
    eager = deepcopy(model)
    eager.head = torch.nn.Linear(16, len(tokenizer))
    with torch.no_grad():
        eager.head.weight.copy_(model.head.weight)
        eager.head.bias.zero_()[MASK_ID] = 1e4
    people = completed(model, tokenizer, False, ", they left .")
    result = cloze(eager, tokenizer, [question for question, _, _ in people], [document for _, document, _ in people])
    assert all(result.continued) and not any(result.filled)


def test_a_window_shows_the_name_and_so_much_around_the_place(model: Transformer, tokenizer: CharTokenizer) -> None:
    found = 0
    for name in NAMES:
        place = greedy(model, tokenizer, f"{name}. in ⁇, t⁇", 3, sentinels=True)
        document = f"{name}. They left. Born in {place}, they left ."
        if place and document.find(place) == len(name) + len(". They left. Born in "):
            result = cloze(model, tokenizer, [born(name, place)], [document], Window(before=3, after=3))
            assert result.filled == (True,)
            found += 1
    assert found >= 6


def test_a_prefix_stands_before_every_document_and_takes_its_room(model: Transformer, tokenizer: CharTokenizer) -> None:
    """As if it were the document's own beginning, which a name cannot be for a document that starts with another."""
    prefix, found = "They ", 0
    for name in NAMES:
        for filled, context in enumerate((f"{prefix}{name}. Born in ", f"{prefix}{name}. in ⁇, t⁇")):
            place = greedy(model, tokenizer, context, 3, sentinels=bool(filled))
            document = f"{name}. Born in {place}, they left ."
            if place and document.find(place) == len(f"{name}. Born in "):
                asked = [born(name, place)]
                with_prefix = cloze(model, tokenizer, asked, [document], Window(before=3, after=3, prefix=prefix))
                assert (with_prefix.filled if filled else with_prefix.continued) == (True,)
                found += 1
    assert found >= 12
    late = "Di Vik. " + "a" * (BLOCK - 8 - 4) + "Pau"
    reached = [cloze(model, tokenizer, [born("Di Vik", "Pau")], [late], Window(prefix=p)).left_out for p in ("", "T")]
    assert [row[LEFT_OUT[3]] for row in reached] == [0, 1]


def test_a_second_mention_is_not_shown_and_what_is_too_long_is_cut(
    model: Transformer, tokenizer: CharTokenizer
) -> None:
    """What stands behind the place ends before it is named again, and where the model's sight ends."""
    people = completed(model, tokenizer, True, ", they ")
    again = [f"{document}{question.answer} left ." for question, document, _ in people]
    assert len(people) >= 6 and all(cloze(model, tokenizer, [q for q, _, _ in people], again).filled)
    found = 0
    for name in NAMES:
        after = ", they left " + "a" * 60
        shown = after[: BLOCK - len(f"{name}. Born in ⁇⁇") - 2]  # the last of three characters is not fed
        place = greedy(model, tokenizer, f"{name}. Born in ⁇{shown}⁇", 3, sentinels=True)
        if place and place not in f"{name}. Born in {after}":
            found += 1
            long = f"{name}. Born in {place}{after}"
            assert cloze(model, tokenizer, [born(name, place)], [long]).filled == (True,)
    assert found >= 6


def test_who_cannot_be_asked_is_counted_with_the_reason(model: Transformer, tokenizer: CharTokenizer) -> None:
    questions = [
        born("Ada Vik", None), born("Bo Lund", "Pau"), born("Cy Vik", "Pau"), born("Pau Lund", "Pau"),
        born("Di Vik", "Pau"), born("Di Lund", "Pau"),
    ]  # fmt: skip
    exactly = "Di Vik. " + "a" * (BLOCK - 8 - 4)
    documents = [
        "Ada Vik. Born in Pau .", "Cy Vik. Born in Oslo .", "Pau Lund. Born in Oslo .",
        f"{exactly}Pau .", f"Di Lund.{exactly[7:]}Pau .",
    ]  # fmt: skip
    result = cloze(model, tokenizer, questions, documents)
    assert result.asked == (4,)
    assert result.left_out == dict(zip(LEFT_OUT, (1, 1, 2, 1), strict=True))
    empty = cloze(model, tokenizer, [], [])
    assert empty.asked == () and stored_or_extracted(empty, [])["filled"]["stored"]["value"] is None


def test_nobody_is_asked_in_the_document_of_a_longer_name(model: Transformer, tokenizer: CharTokenizer) -> None:
    asked, document = [born("Ada", "Pau")], "Ada. Vik. Born in Pau ."
    assert cloze(model, tokenizer, asked, [document]).asked == (0,)
    told = cloze(model, tokenizer, asked, [document], others=["Ada. Vik"])
    assert told.asked == () and told.left_out["no document"] == 1


def test_the_table_counts_right_answers_among_stored_and_others() -> None:
    result = Cloze((0, 2, 3, 5), (True, False, False, False), (True, True, False, False), dict.fromkeys(LEFT_OUT, 0))
    table = stored_or_extracted(result, [True, True, False, True, True, False])
    counted = {
        reading: {key: (row["count"], row["total"]) for key, row in table[reading].items()}
        for reading in ("continued", "filled", "either")
    }
    assert counted["continued"] == {"stored": (1, 4), "right_given_stored": (1, 1), "right_given_not_stored": (1, 3)}
    assert counted["filled"] == {"stored": (2, 4), "right_given_stored": (1, 2), "right_given_not_stored": (1, 2)}
    assert counted["either"] == counted["filled"]
    nobody = Cloze((0,), (False,), (False,), {})
    given = stored_or_extracted(nobody, [True])["either"]["right_given_stored"]
    assert given["value"] is None and given["why"] == "there are no stored places"


def test_the_probe_is_the_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 8))
    labels = rng.integers(0, 5, 120)
    states = centres[labels] + 1.5 * rng.normal(size=(120, 8))
    weight, bias = fit_probe(torch.tensor(states), torch.tensor(labels), 5)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(states, labels)
    ours = torch.softmax(torch.tensor(states) @ weight.T + bias, 1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(states), atol=2e-4)


def test_states_are_those_of_one_question_at_a_time(model: Transformer, tokenizer: CharTokenizer) -> None:
    texts = [born(name, None).text for name in NAMES]
    states = question_states(model, tokenizer, texts, batch_size=3)
    for text, state in zip(texts, states, strict=True):
        alone = model.hidden(torch.tensor([[*tokenizer.encode(text), MASK_ID]]))[0, -1]
        torch.testing.assert_close(state, alone, atol=1e-5, rtol=1e-5)


def test_the_probe_reads_what_the_states_hold_and_no_more(model: Transformer, tokenizer: CharTokenizer) -> None:
    """Where the surname decides, a random model's states show it for new first names; by lot nothing can be read."""
    place = dict(zip(LAST, ("Pau", "Oslo", "Riga", "Bern"), strict=True))
    train = [born(f"{first} {last}", place[last]) for first in FIRST[:3] for last in LAST]
    dev = [born(f"Di {last}", place[last]) for last in LAST]
    alone = [born("Ada Ada", "Rome")]
    card = probe_card(model, tokenizer, [*train, *alone], [*dev, born("Bo Bo", "Rome"), born("Bo Cy", "Lima")])
    assert (card["places"], card["asked"], card["left_out"]) == (4, 4, 2)
    assert card["right"]["count"] == 4 and card["chance"]["count"] == 1
    moved = [born(question.name, dev[(i + 1) % 4].answer) for i, question in enumerate(dev)]
    assert probe_card(model, tokenizer, train, moved)["right"]["count"] == 0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 7.0), (1e4, -3.0)])
def test_a_probe_reads_states_of_any_scale(
    model: Transformer, tokenizer: CharTokenizer, monkeypatch: pytest.MonkeyPatch, scale: float, shift: float
) -> None:
    """Where they are small, its penalty would leave it nothing but how frequent places are."""
    people = [born("Ada Vik", "Pau"), born("Bo Vik", "Pau"), born("Cy Vik", "Pau"), born("Di Vik", "Oslo")]
    people += [born("Ada Lund", "Oslo"), born("Bo Lund", "Riga"), born("Cy Lund", "Riga")]
    hold = torch.tensor([["Pau", "Oslo", "Riga"].index(question.answer or "") for question in [*people, *people]])
    states = torch.nn.functional.one_hot(hold, 4).double() * scale + shift  # the last never varies
    monkeypatch.setattr("birthplace_lm.evaluation.probe.question_states", lambda *_: states)
    assert probe_card(model, tokenizer, people, people)["right"]["count"] == 7


def test_a_probe_of_one_place_is_not_defined(model: Transformer, tokenizer: CharTokenizer) -> None:
    train = [born("Ada Vik", "Pau"), born("Bo Vik", "Pau"), born("Cy Vik", "Oslo")]
    card = probe_card(model, tokenizer, train, train)
    assert card["right"]["value"] is None and card["right"]["why"].startswith("1 places have at least 2 train people")
    nobody = probe_card(model, tokenizer, [*train, born("Di Vik", "Oslo")], [])
    assert nobody["right"]["value"] is None and nobody["right"]["why"].startswith("there are no questions")
