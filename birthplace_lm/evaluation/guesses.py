"""What is answered about people nobody wrote of: how surely, out of which places, and by which part of the name.

A model that knows its own ignorance would be less sure of unknown people than of known ones. One that guesses well
answers with the places that its train people have, in their proportions, and lets the name say where it comes from.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.baselines import NameNgrams, places_by_frequency
from birthplace_lm.evaluation.resampling import FEWEST, Array, Measure, centred, interval, measures, why_undefined
from birthplace_lm.evaluation.selective import auroc
from birthplace_lm.evaluation.shares import share, share_of
from birthplace_lm.world import World
from birthplace_lm.world_origins import ideal_accuracy, name_origin, place_origins

_DRAWS = 200  # for what chance makes of a distance
Distance = Callable[[Array, Array], float]


def answers_card(
    answers: Sequence[str],
    signals: Mapping[str, Array],
    train: Sequence[Question],
    known_answers: Sequence[str],
    known_signals: Mapping[str, Array],
    seed: int = 0,
) -> dict[str, Any]:
    """The answers about some unknown people beside those about known ones, everything as JSON.

    `known_place`: the share answered with a place of the train people. `signals`: of every signal the mean here
    (`mean`) and over the known people (`known_mean`), and how well it tells known people from these (`auroc`; ½: not at
    all, 1: always surer of the known). `distance_to_train` and `distance_to_known`: see `distances`.
    """
    ranked = places_by_frequency(train)
    places = {place for place, _ in ranked}
    commonest, count = Counter(answers).most_common(1)[0] if answers else (None, 0)
    return {
        "asked": len(answers),
        "known_place": share_of([answer in places for answer in answers], of="unknown people"),
        "distinct_answers": len(set(answers)),
        "commonest_answer": {"answer": commonest, **share(count, len(answers), "unknown people")},
        "signals": {
            name: {
                "mean": mean(signals[name], seed).to_json(),
                "known_mean": mean(known_signals[name], seed).to_json(),
                "auroc": _known_from_unknown(known_signals[name], signals[name], seed).to_json(),
            }
            for name in signals
            if name in known_signals
        },
        "distance_to_train": distances(answers, dict(ranked), seed),
        "distance_to_known": distances(answers, known_answers, seed),
    }


def mean(signal: Array, seed: int = 0) -> Measure:
    """The mean of a signal (N,) over questions, with its interval; not defined below ten or for infinite values."""
    signal = np.asarray(signal, dtype=float)
    if why := why_undefined(signal, np.zeros(len(signal))):
        return Measure(None, why=why)
    return measures(lambda counts: {"": counts @ signal / len(signal)}, len(signal), seed)[""]


def _known_from_unknown(known: Array, unknown: Array, seed: int) -> Measure:
    if min(len(known), len(unknown)) < FEWEST:
        return Measure(None, why=f"{len(known)} known and {len(unknown)} unknown people: at least {FEWEST} of each")
    return auroc(np.concatenate([known, unknown]), np.arange(len(known) + len(unknown)) < len(known), seed)


def distances(answers: Sequence[str], others: Mapping[str, int] | Sequence[str], seed: int = 0) -> dict[str, Any]:
    """How far the distribution of answers lies from another: total variation and Jensen–Shannon divergence.

    Between p and q, with m = ½(p + q): TV = ½ Σ |p − q|, and JS = ½ Σ p log₂(p/m) + ½ Σ q log₂(q/m) in bits (Lin 1991,
    IEEE Trans. Inf. Theory 37:145–151). Both are 0 for the same distribution and 1 for two without a common place.

    A few hundred answers over hundreds of places lie far from any distribution, their own included, so each comes with
    what chance makes of it (`by_chance`: mean, low, high over 200 draws): as many answers drawn from a distribution
    given as counts, or both lists shuffled together where `others` is a list of answers. The interval is the value's
    scatter over 200 draws of the answers with replacement, and of the others where they are a list (`centred`): the
    distributions behind the answers lie nearer to each other than it says, by about as much as chance makes. Below ten
    answers on either side nothing is defined.
    """
    counts = Counter(others) if not isinstance(others, Mapping) else Counter(dict(others))
    if min(len(answers), counts.total()) < FEWEST:
        why = f"{len(answers)} answers and {counts.total()} to compare with: at least {FEWEST} of each are needed"
        nothing = {**Measure(None, why=why).to_json(), "by_chance": None}
        return {name: nothing for name in _DISTANCES}
    support = {place: i for i, place in enumerate(dict.fromkeys([*counts, *answers]))}
    here = np.bincount([support[answer] for answer in answers], minlength=len(support))
    there = np.array([counts[place] for place in support])
    generator = np.random.default_rng(seed)
    again = generator.multinomial(len(answers), here / here.sum(), _DRAWS)
    if isinstance(others, Mapping):
        chance = [(one, there) for one in generator.multinomial(len(answers), there / there.sum(), _DRAWS)]
        drawn = [(one, there) for one in again]
    else:
        ones = generator.multivariate_hypergeometric(here + there, len(answers), _DRAWS)
        chance = [(one, here + there - one) for one in ones]
        drawn = list(zip(again, generator.multinomial(there.sum(), there / there.sum(), _DRAWS), strict=True))
    here_there = (here / here.sum(), there / there.sum())
    return {
        name: {
            **centred(distance(*here_there), _all(distance, drawn)).to_json(),
            "by_chance": _middle(_all(distance, chance)),
        }
        for name, distance in _DISTANCES.items()
    }


def _all(distance: Distance, pairs: Sequence[tuple[Array, Array]]) -> Array:
    return np.array([distance(one / one.sum(), other / other.sum()) for one, other in pairs])


def _middle(drawn: Array) -> dict[str, float]:
    low, high = interval(drawn).tolist()
    return {"mean": float(drawn.mean()), "low": low, "high": high}


def total_variation(p: Array, q: Array) -> float:
    """½ Σ |p − q| of two distributions (P,) over the same places."""
    return float(np.abs(p - q).sum() / 2)


def jensen_shannon(p: Array, q: Array) -> float:
    """½ KL(p‖m) + ½ KL(q‖m) in bits, m = ½(p + q), of two distributions (P,) over the same places."""
    middle = (p + q) / 2

    def divergence(one: Array) -> float:
        held = one > 0
        return float((one[held] * np.log2(one[held] / middle[held])).sum())

    return divergence(p) / 2 + divergence(q) / 2


_DISTANCES: dict[str, Distance] = {"total_variation": total_variation, "jensen_shannon": jensen_shannon}


def flips(answers: Sequence[str], swapped: Sequence[str | None]) -> dict[str, Any]:
    """The share of people whose answer changes with a part of their name; None stands for a name without a swap.

    `by_chance` is the share that would change if the answers had nothing to do with whom they are given for:
    1 − Σ_p a_p b_p, a and b the distributions of the answers before and after the swap; None without anybody.
    """
    pairs = [(one, other) for one, other in zip(answers, swapped, strict=True) if other is not None]
    before, after = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    same = sum(count * after[place] for place, count in before.items())
    changed = share_of([one != other for one, other in pairs], of="people with a first name and a surname to swap")
    return {**changed, "by_chance": 1 - same / len(pairs) ** 2 if pairs else None}


def decided_by(
    answers: Sequence[str], other_first: Sequence[str | None], other_surname: Sequence[str | None]
) -> dict[str, Any]:
    """Which part of the name decides the answer: four shares that add up to 1.

    "surname": it stays when the first names are swapped and changes with the surname; "first names": the other way
    round; "neither": it stays in both; "both": it changes in both. People without both swaps are left out.
    """
    rows = zip(answers, other_first, other_surname, strict=True)
    changes = [(one != f, one != s) for one, f, s in rows if f is not None and s is not None]
    kinds = {"surname": (False, True), "first names": (True, False), "neither": (False, False), "both": (True, True)}
    counts = Counter(changes)
    return {name: share(counts[kind], len(changes), "people with both swaps") for name, kind in kinds.items()}


def guessing_card(
    answers: Sequence[str], questions: Sequence[Question], train: Sequence[Question], world: World | None
) -> dict[str, Any]:
    """How often guesses about held-out people hit, beside what guessing can reach. All shares as in `shares.share`.

    `right` is the model's share, `name n-grams` and `most frequent place` those of two guessers without a model. In an
    invented world the best that anybody can expect is known exactly (see `world_origins`): `ideal` is the expected
    share of who knows the law of names and places, and `of_origin` the share of answers that are a town of the culture
    of the name. Questions without a place are left out, but for these two, which ask for none.
    """
    pairs = [(a, q) for a, q in zip(answers, questions, strict=True) if q.answer is not None]
    of = "held-out people with a known place"
    ngrams, commonest = NameNgrams(train), places_by_frequency(train)[0][0]
    card: dict[str, Any] = {
        "right": share_of([answer == question.answer for answer, question in pairs], of),
        "name n-grams": share_of([ngrams.predict(question.name) == question.answer for _, question in pairs], of),
        "most frequent place": share_of([commonest == question.answer for _, question in pairs], of),
    }
    if world is not None and questions:
        origins = place_origins(world.places)
        card["ideal"] = ideal_accuracy(world, [question.name for question in questions])
        asked = zip(answers, questions, strict=True)
        at_home = [origins.get(answer, "nowhere") == name_origin(question.name) for answer, question in asked]
        card["of_origin"] = share_of(at_home, "held-out people")
    return card
