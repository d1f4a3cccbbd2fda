"""What a run knows, and whether it knows that it knows: knowledge.json, put together from the measures of `evaluation`.

    asked            whose questions (dev, or the held-out train people of a run for tuning), how many, how many right
    chosen           how many are right when the model has to choose one of the places, instead of writing an answer
    beam             how many are right when beam search writes the answer, and how many answers are others by it
    places           the places of the train people, the most frequent first
    stored           the places that come out of the biographies, and how often the question is right given that
    fitted_on        whose answers detector, calibration and thresholds were fitted on, of how many people
    confidence       every signal of confidence, how well it tells right from wrong answers
    detector         the signals combined, fitted on all of them; among the signals of `confidence` it knows no answer
                     of the person asked
    probabilities    calibration error, Brier score and the like of the answer's probability, as the model says, after
                     temperature scaling and after Platt scaling
    signals_as_probabilities   the same of every signal, read as a probability
    signals_not_read   those that cannot be read as one, with the reason
    calibration      temperature and bias, fitted on all of them: for other questions than these
    thresholds       for a share of wrong answers, the calibrated probability from which on to answer
    risk_steps       the same for every other share: the last step of no more than it
    thresholds_hold  what came of such thresholds on questions that they were not chosen on
    unknown_names    what is answered about people nobody wrote of, and by which part of the name
    errors           what the wrong answers are, and how many answers lie in the right country

The questions of the train people were trained on, so their confidence says nothing of other people's. Where a run held
out train people and is asked about dev, whatever is fitted is fitted on these. Else it is fitted on the people asked,
and every figure about it is cross-fitted: each half with the fit of the other. A figure on dev has then used labels of
other dev people, never in training, and `asked` and `fitted_on` say so.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np

from birthplace_lm.asking import COSTLY, Asking, Inquiry, probabilities, question_about
from birthplace_lm.corpus import Corpus, Question, name_in, name_span
from birthplace_lm.evaluation.countries import countries_of
from birthplace_lm.evaluation.error_types import error_types
from birthplace_lm.evaluation.fits import Told, fit_all
from birthplace_lm.evaluation.guesses import answers_card, decided_by, flips, guessing_card
from birthplace_lm.evaluation.probe import probe_card
from birthplace_lm.evaluation.shares import share, share_of
from birthplace_lm.evaluation.signals import Signals
from birthplace_lm.evaluation.stored import Window, cloze, stored_or_extracted
from birthplace_lm.evaluation.unknown_names import GIBBERISH, HELD_OUT, RECOMBINED, gibberish, recombined, swapped
from birthplace_lm.people import spread
from birthplace_lm.runs import RunFolder
from birthplace_lm.world_origins import place_origins

SWAPPED = 200  # people whose names are taken apart: enough to know a share to 7 points
BEAM_WIDTH = 8  # beginnings kept side by side: costs about as many times what greedy answers cost
HELD_OUT_OF_TRAIN = "held-out train people"
NOBODY = "nobody could be asked"
FEWEST_NAMES = 100  # of a made-up family, where fewer people are asked

Card = dict[str, Any]


def knowledge_card(
    folder: RunFolder,
    corpus: Corpus,
    inquiry: Inquiry | None = None,
    seed: int = 0,
) -> Card:
    """Everything of knowledge.json (see above) for the run's answering model.

    What is not defined, for want of questions or of wrong answers, is None with the reason as `why`. Questions that the
    model cannot be asked with room for every place are left out and counted. `inquiry.at_most` also bounds the people
    who are fitted on and those train people whom the probe learns from.
    """
    inquiry = inquiry or Inquiry()
    asking, asked = Asking(folder, corpus, inquiry.siblings), spread(corpus.dev, inquiry.at_most)
    people = [question for question in asked if asking.askable(question.text)]
    strangers = _strangers(asking, max(len(people), FEWEST_NAMES) if inquiry.unknown is None else inquiry.unknown, seed)
    askable = {family: [text for text in texts if asking.askable(text)] for family, texts in strangers.items()}
    others = spread(inquiry.fit_on, inquiry.at_most)
    fit_people = [question for question in others if asking.askable(question.text)]
    texts = [*([question.text for question in some] for some in (people, fit_people)), *askable.values()]
    told = asking.signals(list(chain(*texts)), inquiry.thorough, inquiry.unscored)  # all at once: more rows a call
    ends = list(accumulate(map(len, texts), initial=0))
    known, held_out, *of_strangers = (told[begin:end] for begin, end in pairwise(ends))
    predictions = [answer.text for answer in known.answers]
    whose = HELD_OUT_OF_TRAIN if asking.config["held_out_share"] and not others else "dev"
    asked_of = _told(whose, known, people)
    by = _told(HELD_OUT_OF_TRAIN, held_out, fit_people) if others else asked_of
    right = asked_of.right
    fits = fit_all(asked_of, known.left_out, by if others else None, seed)
    if fits.detected:
        known = known.with_signal("detector", fits.detected.own)
        of_strangers = [
            told.with_signal("detector", fits.detected.of_others(told.values)) if told.answers else told
            for told in of_strangers
        ]
    families = {
        family: (askable[family], len(every) - len(askable[family]), signals)
        for (family, every), signals in zip(strangers.items(), of_strangers, strict=True)
    }
    return {
        "asked": {**_of_whom(asked_of), "left_out": len(asked) - len(people)},
        "chosen": _chosen(known, people),
        "beam": _beam(asking, people, predictions, inquiry.thorough),
        "places": asking.places,
        "stored": _stored(asking, people, right, spread(corpus.train, inquiry.at_most)),
        "fitted_on": {**_of_whom(by), "left_out": len(others or asked) - len(by.right)},
        **fits.card,
        "unknown_names": _unknown(asking, people, known, families, seed),
        "errors": _errors(asking, predictions, people, seed),
    }


def _told(whose: str, signals: Signals, people: Sequence[Question]) -> Told:
    pairs = zip(signals.answers, people, strict=True)
    right = np.array([answer.text == question.answer for answer, question in pairs], dtype=bool)
    return Told(whose, signals.values, probabilities(signals), right, signals.not_read)


def _of_whom(told: Told) -> Card:
    return {"people": told.whose, "questions": len(told.right), "right": int(told.right.sum())}


def _chosen(known: Signals, people: Sequence[Question]) -> Card:
    """Decoding constrained to the places of the train people, and how many answers are none of them."""
    if known.places is None:
        return _unasked(people)
    likeliest = [known.places.places[i] for i in known.places.best()]
    answers = set(known.places.places)
    return {
        **_right(likeliest, people),
        "out_of_reach": sum(question.answer not in answers for question in people),
    }


def _unasked(people: Sequence[Question]) -> Card:
    why = COSTLY if people else NOBODY
    return {"right": None, "share": {**share(0, 0, of="people asked"), "why": why}, "why": why}


def _right(answers: Sequence[str], people: Sequence[Question]) -> Card:
    right = [answer == question.answer for answer, question in zip(answers, people, strict=True)]
    return {"right": sum(right), "share": share_of(right, of="people asked")}


def _beam(asking: Asking, people: Sequence[Question], greedy: Sequence[str], thorough: bool) -> Card:
    """Whether searching further than the likeliest next character mends answers."""
    if not (thorough and people):
        return _unasked(people)
    answers = asking.beam([question.text for question in people], BEAM_WIDTH)
    return {
        "width": BEAM_WIDTH,
        **_right(answers, people),
        "other_than_greedy": sum(answer != other for answer, other in zip(answers, greedy, strict=True)),
    }


def _errors(asking: Asking, predictions: Sequence[str], people: Sequence[Question], seed: int) -> Card:
    """What the wrong answers are; a country is a culture in an invented world, else what a gazetteer says."""
    countries, why = None, ""
    if asking.world:
        countries = place_origins(asking.world.places)
    else:
        try:
            countries = countries_of({*asking.places, *predictions, *(q.answer for q in people if q.answer)})
        except ImportError as error:
            why = str(error)
    corpus = asking.corpus
    return error_types(predictions, people, corpus.train, corpus.documents, countries, why, seed, corpus.names())


def _stored(asking: Asking, people: Sequence[Question], right: np.ndarray, learned: Sequence[Question]) -> Card:
    """The cloze test on the pretrained weights, where the run has them, and the probe on the answering ones.

    Held-out people, whose biographies were never shown, tell how many places come out of their surroundings alone.
    """
    pretrained = asking.folder.stage("pretrain").finished
    model = asking.folder.load_model("pretrain") if pretrained else asking.model
    # a policy that mostly shows the name and a span's surroundings is asked as it asks
    read = pretrained or bool(asking.config["init_from"])
    policy = asking.config.get("corruption") or {}
    isolated = read and policy.get("salient", 0) * policy.get("isolated", 0) > 0.5
    before, after = (policy["before"], policy["after"]) if isolated else (None, None)
    window = Window(before, after, prefix=asking.config["pretrain"].get("document_prefix", "") if read else "")
    documents, never_shown = (
        (document for document in some if asking.readable(document))
        for some in (asking.corpus.documents, asking.corpus.unknown_documents)
    )
    told = cloze(model, asking.tokenizer, people, documents, window, others=asking.corpus.names())
    floor = cloze(model, asking.tokenizer, asking.corpus.unknown, never_shown, window)
    of_strangers = stored_or_extracted(floor, [False] * len(asking.corpus.unknown))
    return {
        "weights": "pretrain" if pretrained else asking.folder.final_stage(),
        "window": vars(window),
        "cloze": stored_or_extracted(told, right.tolist()),
        "cloze_of_held_out_people": {
            "asked": of_strangers["asked"],
            "left_out": of_strangers["left_out"],
            **{way: of_strangers[way]["stored"] for way in ("continued", "filled", "either")},
        },
        "probe": probe_card(asking.model, asking.tokenizer, learned, people),
    }


def _strangers(asking: Asking, count: int, seed: int) -> dict[str, list[str]]:
    """Questions about every family of people that the run knows nothing of, `count` of those that are made up."""
    return {
        HELD_OUT: [question.text for question in asking.corpus.unknown],
        RECOMBINED: [*map(question_about, recombined(asking.known_names, count, seed, asking.corpus.documents))],
        GIBBERISH: [*map(question_about, gibberish(asking.known_names, count, seed))],
    }


def _unknown(
    asking: Asking,
    people: Sequence[Question],
    known: Signals,
    families: Mapping[str, tuple[Sequence[str], int, Signals]],
    seed: int,
) -> Card:
    """Every family beside the known people, and what a swap of one part of the name does.

    Of a family the questions asked, how many could not be, and what was told of these.
    """
    known_answers = [answer.text for answer in known.answers]
    card: Card = {}
    for family, (asked, left_out, told) in families.items():
        answers = [answer.text for answer in told.answers]
        card[family] = answers_card(answers, told.values, asking.corpus.train, known_answers, known.values, seed)
        card[family]["left_out"] = left_out
        if family == HELD_OUT:
            of = [question for question in asking.corpus.unknown if asking.askable(question.text)]
            card[family]["guessing"] = guessing_card(answers, of, asking.corpus.train, asking.world)
        if family == RECOMBINED:
            card["swaps"] = {family: _swaps(asking, asked[:SWAPPED], answers, seed)}
    card["swaps"]["known"] = _swaps(asking, [question.text for question in people][:SWAPPED], known_answers, seed)
    return card


def _swaps(asking: Asking, texts: Sequence[str], answers: Sequence[str], seed: int) -> Card:
    """How often the answer changes with either part of the name, and which part decides it."""
    pairs = [(name_in(text), answer) for text, answer in zip(texts, answers, strict=False) if name_span(text)]
    names, own = [name for name, _ in pairs], [answer for _, answer in pairs]
    other_first, other_surname = (
        asking.answers([name and question_about(name) for name in swapped(names, asking.known_names, surname, seed)])
        for surname in (False, True)
    )
    return {
        "flips_with_first_names": flips(own, other_first),
        "flips_with_surname": flips(own, other_surname),
        "decided_by": decided_by(own, other_first, other_surname),
    }
