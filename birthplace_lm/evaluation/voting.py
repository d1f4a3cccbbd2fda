"""One answer from several models: what most of them say."""

from collections.abc import Sequence


def majority_vote(
    predictions: Sequence[Sequence[str]], log_probabilities: Sequence[Sequence[float]] | None = None
) -> list[str]:
    """Of every question the answer that most of S models give; of answers with as many votes the one surest of itself.

    predictions: (S, N) strings; log_probabilities: (S, N), how sure each model is of its answer, natural logarithm.
    Surest is the answer whose best voter is surest; without log-probabilities, or where those are equal too, the answer
    of the model that stands first. With two models that differ the surer one therefore decides.
    Raises ValueError for no models, or for models that were asked different numbers of questions.

    >>> majority_vote([["Oslo", "Rome"], ["Bern", "Rome"], ["Bern", "Kyiv"]])
    ['Bern', 'Rome']
    >>> majority_vote([["Oslo"], ["Bern"]], [[-0.7], [-0.1]])
    ['Bern']
    """
    sure = log_probabilities or [[0.0] * len(answers) for answers in predictions]
    sizes = {len(row) for row in (*predictions, *sure)}
    if len(sizes) != 1 or len(sure) != len(predictions):
        found = ", ".join(str(len(row)) for row in (*predictions, *sure)) or "no model at all"
        raise ValueError(f"a vote needs answers of every model to the same questions, got {found}")
    return [
        max(
            said, key=lambda answer: (said.count(answer), max(s for a, s in zip(said, how, strict=True) if a == answer))
        )
        for said, how in zip(zip(*predictions, strict=True), zip(*sure, strict=True), strict=True)
    ]
