"""A trained run that can be asked anything: its answering model, what it learned from, and which names it can take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from birthplace_lm.beam_search import beam_answers
from birthplace_lm.composing import OF_A_RUN, build, differences
from birthplace_lm.corpus import Corpus, Question, name_span
from birthplace_lm.decoding import answer_questions
from birthplace_lm.evaluation.baselines import places_by_frequency
from birthplace_lm.evaluation.signals import UNSCORED, Signals, confidence_signals
from birthplace_lm.identity import of_the_run
from birthplace_lm.runs import RunFolder
from birthplace_lm.world import World

DROPOUT_SAMPLES = 5
COSTLY = "left out for its cost: birthplace-evaluate RUN --thorough measures it"


@dataclass(frozen=True)
class Inquiry:
    """What is asked of a run, and how much.

    thorough: every signal of confidence, also those that cost tens of times what the answers cost.
    at_most: so many questions of a split, and people to fit on, evenly spread (`people.spread`); None for all of them.
    unknown: so many names of each made-up family; None for as many as people are asked, at least 100.
    unscored: of the places that `thorough` scores for every name those may be left out that have so much probability
        together, in [0, 1); 0 scores all of them.
    siblings: runs with other seeds, how many of which give the same answer is one more signal.
    fit_on: people held out of training, on whom whatever is fitted is fitted; without any, on those asked.

    Raises ValueError for fewer than 0 names, or an `unscored` that is no such probability.
    """

    thorough: bool = False
    at_most: int | None = None
    unknown: int | None = None
    unscored: float = UNSCORED
    siblings: Sequence[RunFolder] = ()
    fit_on: Sequence[Question] = ()

    def __post_init__(self) -> None:
        if self.unknown is not None and self.unknown < 0:
            raise ValueError(f"unknown={self.unknown}: choose 0 names or more to be made up")
        if not 0 <= self.unscored < 1:
            raise ValueError(
                f"unscored={self.unscored}: places of that probability are left out, choose 0 or more, below 1"
            )


class Asking:
    """A run's answering model with its data.

    `places` are those of the train people, the most frequent first; `known_names` all whom the corpus asks about by
    *Where was … born?*;
    `world` is the invented world where the data are one, else None. Raises what loading the run raises, and ValueError
    where no train question has an answer. `siblings` are runs of the same settings with other seeds, whose answers tell
    how far an answer hangs on the seed; ValueError for a run that differs in more.
    """

    def __init__(self, folder: RunFolder, corpus: Corpus, siblings: Sequence[RunFolder] = ()):
        self.folder, self.corpus, self.config = folder, corpus, folder.config()
        self.model, self.tokenizer = folder.load_model(), folder.tokenizer()
        check_siblings(folder, siblings)
        self.siblings = [(other.load_model(), other.tokenizer()) for other in siblings]
        self.places = [place for place, _ in places_by_frequency(corpus.train)]
        source = build(self.config["data"], OF_A_RUN)
        self.world = source if isinstance(source, World) else None
        splits = (corpus.train, corpus.dev, corpus.test)
        questions = (question for split in splits for question in split)
        self.known_names = list(dict.fromkeys(q.name for q in questions if name_span(q.text)))

    def readable(self, text: str) -> bool:
        """Whether the vocabulary holds every character of the text."""
        return self.tokenizer.knows(text)

    def askable(self, text: str) -> bool:
        """Whether a question is readable and leaves the model room for every place, with both ⁇."""
        length = len(text) + max(map(len, self.places)) + 2
        return length <= self.model.max_length and self.readable(text)

    def signals(self, texts: Sequence[str], thorough: bool, unscored: float = UNSCORED) -> Signals:
        """Answers to questions with the signals of confidence; to none, no answers and no signals.

        Only when `thorough` are places scored for every question, but those that have `unscored` of the probability
        together, and dropout left on: with 500 of them that costs tens of times what the answers cost. Else those
        signals are left out, with that reason.
        """
        if not texts:
            return Signals([], {}, {}, None)
        places, samples = (self.places, DROPOUT_SAMPLES) if thorough else ([], 0)
        others = [[answer.text for answer in answer_questions(*sibling, texts)] for sibling in self.siblings]
        told = confidence_signals(self.model, self.tokenizer, texts, places, samples, others, unscored=unscored)
        if thorough:
            return told
        free = {"seed_agreement"} | ({"dropout_agreement"} if self.model.dropout.p == 0 else set())
        costly = [name for name in told.left_out if name not in free]
        return replace(told, left_out={**told.left_out, **dict.fromkeys(costly, COSTLY)})

    def beam(self, texts: Sequence[str], width: int) -> list[str]:
        """The answer to each question that a beam of so many beginnings leads to."""
        return [answer.text for answer in beam_answers(self.model, self.tokenizer, texts, width)]

    def answers(self, texts: Sequence[str | None]) -> list[str | None]:
        """The answer to each question; None for None, and for one that is not askable."""
        asked = [text if text and self.askable(text) else None for text in texts]
        answers = iter(answer_questions(self.model, self.tokenizer, [text for text in asked if text]))
        return [next(answers).text if text else None for text in asked]


def check_siblings(folder: RunFolder, others: Sequence[RunFolder]) -> None:
    """Raise ValueError for a run that differs from `folder` in more than the seed, with what it differs in."""
    seeds = [run.config()["seed"] for run in (folder, *others)]
    for other in others:
        if other.root.resolve() == folder.root.resolve():
            raise ValueError(f"{other.root} is the run itself: name runs with other seeds")
        rows = differences(of_the_run(folder.config()), of_the_run(other.config()))
        differing = [key for key, _, _ in rows if key != "seed"]
        if differing:
            shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
            raise ValueError(f"{other.root} differs from {folder.root} in more than the seed: {shown}")
        if seeds.count(seed := other.config()["seed"]) > 1:
            raise ValueError(f"{other.root} has seed {seed} as another of these runs: it would be counted twice")
        if other.data_fingerprint() != folder.data_fingerprint():
            raise ValueError(f"{other.root} was trained on other data than {folder.root}")
        if other.final_stage() != (stage := folder.final_stage()):
            raise ValueError(
                f"{other.root} has finished {other.final_stage()}, not {stage}: run its command to the end"
            )


def question_about(name: str) -> str:
    """What the model is asked, as in its training questions."""
    return f"Where was {name} born?"


def probabilities(signals: Signals) -> np.ndarray:
    """The model's probability of exactly the answer it gave, (N,)."""
    return np.exp(np.array([answer.log_probability for answer in signals.answers], dtype=float))
