"""What a model lets on about how sure it is: one number a question for each way of asking it.

All signals are for the greedy answer a, and all point the same way: higher is surer. Whether they tell right answers
from wrong ones is for `selective` and `calibration` to say; nothing here has seen a right answer.

Sources: the probability of an answer as its confidence, Hendrycks & Gimpel 2017 (arXiv 1610.02136); of a sequence, and
per character, Malinin & Gales 2021 (arXiv 2002.07650); how many of several seeds agree, Lakshminarayanan et al. 2017
(arXiv 1612.01474). Margin and entropy are over the known places, as of any classifier. Legend: B questions, P places.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.evaluation.dropout_agreement import dropout_agreement
from birthplace_lm.prefix_tree import PlaceScores, score_places
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

Values = dict[str, np.ndarray]

# The probability of the places that are not scored for a name, at most. Against 0.001 this takes a tenth to a fifth of
# the time and moved no AUROC by more than 0.0055 (an unsure and a sure model; 500 people, 300 names of either family).
UNSCORED = 0.2
_NO_MATTER = 0.01  # left out of a sum that is to be read as a probability


@dataclass(frozen=True)
class Signals:
    """Greedy answers and how sure of them the model is, in the order of the questions.

    `values` maps the name of a signal to its (B,) finite numbers, `left_out` that of one that could not be had to the
    reason. `places` is None where there were no places to score.
    """

    answers: list[Answer]
    values: Values
    left_out: dict[str, str]
    places: PlaceScores | None

    def __getitem__(self, questions: slice) -> "Signals":
        """Those of some questions; of none, no signals."""
        answers = self.answers[questions]
        if not answers:
            return Signals([], {}, {}, None)
        values = {name: value[questions] for name, value in self.values.items()}
        return Signals(answers, values, self.left_out, self.places and self.places[questions])

    @property
    def not_read(self) -> dict[str, str]:
        """Signals that lean towards sure by what was not scored, so that they mean no probability: and why."""
        if self.places is None or not (left := self.places.neglected).size or left.max() <= _NO_MATTER:
            return {}
        why = (
            f"places with {left.mean():.1%} of the probability in the mean and {left.max():.1%} at most were not "
            f"scored, as if they were impossible: unscored={_NO_MATTER} or less is needed"
        )
        return {name: why for name in _OF_ALL_PLACES if name in self.values}

    def with_signal(self, name: str, values: np.ndarray) -> "Signals":
        """The same with one more signal, (B,) numbers in the order of the answers; of nobody, the same."""
        return replace(self, values={**self.values, name: values}) if self.answers else self


def confidence_signals(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[str],
    places: Sequence[str],
    dropout_samples: int = 10,
    other_predictions: Sequence[Sequence[str]] = (),
    seed: int = 0,
    unscored: float = UNSCORED,
) -> Signals:
    """All signals that can be had: those of `answer_signals`, `place_signals` and the two agreements.

    `places` are those of the train answers, each once. `other_predictions` are the answers of runs with other seeds to
    the same questions, `unscored` the probability of the places that may stay so. Raises what `answer_questions` and
    `score_places` raise, and ValueError for predictions that are not one a question.
    """
    answers = answer_questions(model, tokenizer, questions)
    texts = [answer.text for answer in answers]
    values, left_out, scores = answer_signals(answers), dict[str, str](), None
    if places:
        scores = score_places(model, tokenizer, questions, places, tolerance=unscored)
        values |= place_signals(answers, scores)
    if len(places) < 2:
        few = f"{len(places)} places are known and the answer is compared with others: two or more are needed"
        left_out |= dict.fromkeys(_OF_PLACES, few)
        values = {name: value for name, value in values.items() if name not in _OF_PLACES}
    if model.dropout.p > 0 and dropout_samples > 0:
        values["dropout_agreement"] = dropout_agreement(model, tokenizer, questions, answers, dropout_samples, seed)
    else:
        asked = "no samples were asked for" if model.dropout.p > 0 else "the model was trained without dropout"
        left_out["dropout_agreement"] = asked
    if other_predictions:
        values["seed_agreement"] = agreement(texts, other_predictions)
    else:
        left_out["seed_agreement"] = "no predictions of runs with other seeds were given"
    return Signals(answers, values, left_out, scores)


def answer_signals(answers: Sequence[Answer]) -> Values:
    """What greedy decoding itself tells, (B,) each.

    sequence_log_probability: log P(a ⁇ | question ⁇) in nats, up to 0; without the ⁇ where it never came.
    log_probability_per_character: that over the number of characters, the ⁇ among them where it came, so that a long
        name of a place is not held against it; up to 0. PAD at the end of an answer that did not end counts in both.
    first_character_probability: P of the first character, which mostly decides the place; in (0, 1].
    first_character_negative_entropy: Σ_c P(c) log P(c) over all characters c that may come first; [-log V, 0].
    """
    log_probability = np.array([answer.log_probability for answer in answers], dtype=float)
    characters = np.array([answer.characters for answer in answers], dtype=float)
    return {
        "sequence_log_probability": log_probability,
        "log_probability_per_character": log_probability / characters,
        "first_character_probability": np.array([answer.first_probability for answer in answers], dtype=float),
        "first_character_negative_entropy": -np.array([answer.first_entropy for answer in answers], dtype=float),
    }


_OF_ALL_PLACES = ("place_probability", "place_negative_entropy")  # sums over them
_OF_PLACES = ("margin_to_other_place", *_OF_ALL_PLACES)


def place_signals(answers: Sequence[Answer], scores: PlaceScores) -> Values:
    """What the probabilities of all places tell, (B,) each; needs two places or more, the best two of them scored.

    margin_to_other_place: log P(a ⁇) - max log P(b ⁇) over the places b that are not a, in nats; below 0 where a place
        would have been likelier than what greedy decoding ran into.
    place_probability: P(a ⁇) / (P(a ⁇) + Σ_b P(b ⁇)), the sum over the places that are not a; in (0, 1]. An answer
        that is no place counts as one more.
    place_negative_entropy: Σ_b p_b log p_b with p = `PlaceScores.distribution`, over all places; [-log P, 0].

    Places that were left out count as impossible. The margin is exact all the same; the sum Σ_b P(b ⁇) lacks at most
    `PlaceScores.neglected`, so that the other two lean towards sure: as orders of answers they are as good
    (`UNSCORED`), as probabilities they are not to be read (`Signals.not_read`).
    """
    column = {place: i for i, place in enumerate(scores.places)}
    own = np.array([answer.log_probability for answer in answers], dtype=float)
    others = scores.log_probability.copy()  # (B, P)
    for row, answer in enumerate(answers):
        if answer.text in column:
            others[row, column[answer.text]] = -np.inf
    p = scores.distribution()  # (B, P)
    return {
        "margin_to_other_place": own - others.max(axis=1),
        "place_probability": 1 / (1 + np.exp(others - own[:, None]).sum(axis=1)),
        "place_negative_entropy": (p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1),
    }


def agreement(answers: Sequence[str], others: Sequence[Sequence[str]]) -> np.ndarray:
    """The share of the other lists that give the same answer, character for character, (B,), in [0, 1].

    Raises ValueError for no list, or one that is not as long as the answers.

    >>> agreement(["Pau", "Cork"], [["Pau", "Oslo"], ["Pau", "Cork"]]).tolist()
    [1.0, 0.5]
    """
    if not others:
        raise ValueError("agreement with 0 lists of answers is not defined: give one or more")
    for number, other in enumerate(others, start=1):
        if len(other) != len(answers):
            raise ValueError(f"list {number} has {len(other)} answers to {len(answers)} questions: one each is needed")
    return np.mean([[a == b for a, b in zip(answers, other, strict=True)] for other in others], axis=0)
