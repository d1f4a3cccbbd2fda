"""Self-training: a model learns, as if they were labels, what finished runs answer about people who have none.

A biography begins with its person's name. Finished runs are asked where each of these people was born, without the
biography, as anybody asks them; what they agree on becomes a question to learn beside those of train people. So what
each of several runs got out comes together in one model, and the way from a question to a biography is learned from
more people than have labels. No label is told and no text is looked into for a place; what the runs get wrong together
is learned, too.

Source: pseudo-labels are of Lee 2013 (ICML workshop on challenges in representation learning); a student that learns
them together with the labels, of Xie et al. 2020 (arXiv 1911.04252), section 2.
"""

from collections.abc import Iterable, Sequence

from birthplace_lm.corpus import Question
from birthplace_lm.decoding import Answer
from birthplace_lm.entities import title_length
from birthplace_lm.evaluation.voting import majority_vote
from birthplace_lm.wordings import QUESTION


class PseudoLabels:
    """Which answers of finished runs are learned: those that a share `agreement` of the runs gives, by their vote.

    Raises ValueError for an agreement outside [0, 1].
    """

    def __init__(self, agreement: float = 1.0):
        if not 0 <= agreement <= 1:
            raise ValueError(f"agreement is the share of runs that say the same, in [0, 1], not {agreement}")
        self.agreement = agreement

    def __call__(self, questions: Sequence[str], answers: Sequence[Sequence[Answer]]) -> tuple[Question, ...]:
        """The questions (N) with the answers that enough of S runs gave, (S, N), in order; the others are left out.

        So is an answer that has no end or no character. Raises ValueError for no runs.
        """
        said = [[answer.text if answer.finished else "" for answer in of_run] for of_run in answers]
        voted = majority_vote(said, [[answer.log_probability for answer in of_run] for of_run in answers])
        return tuple(
            Question(question, answer)
            for question, answer, votes in zip(questions, voted, zip(*said, strict=True), strict=True)
            if answer and votes.count(answer) >= self.agreement * len(votes) - 1e-9
        )


def unlabelled(documents: Iterable[str], train: Iterable[Question]) -> list[str]:
    """A question about everybody whom a document is titled with and no train question asks about, in order.

    >>> unlabelled(["Ada Vik. She is a pilot .", "Bo Lund. He sings ."], [Question("Where was Bo Lund born?", "Pau")])
    ['Where was Ada Vik born?']
    """
    labelled = {question.name for question in train}
    titles = (document[: title_length(document)].strip().removesuffix(".") for document in documents)
    return [QUESTION.format(name=name) for name in dict.fromkeys(titles) if name and name not in labelled]
