"""birthplace-ask: where was somebody born, and how sure is the model of it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthplace_lm.decoding import Answer
    from birthplace_lm.runs import RunFolder

KNOWN_RISK = 0.1  # the share of wrong answers up to which one counts as known, unless --abstain-above names another


def main(arguments: list[str] | None = None) -> None:
    """Answer "Where was NAME born?" with the place and the probability that the model gives to exactly that answer.

    Once birthplace-evaluate has judged the run on people that it was not trained to answer about, there is more: how
    often an answer given so surely is right, and whether it counts as known or as a guess.
    """
    parser = argparse.ArgumentParser(prog="birthplace-ask", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a person's name, as in the documents")
    parser.add_argument("--places", action="store_true", help="choose among the places of the train answers")
    parser.add_argument(
        "--abstain-above",
        type=float,
        metavar="RISK",
        help="give only answers so sure that at most this share of such answers was wrong, e.g. 0.1",
    )
    options = parser.parse_args(arguments)

    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.process import set_up_process

    with in_plain_words(), set_up_process():
        for line in _lines(options):
            print(line)


def _lines(options: argparse.Namespace) -> list[str]:
    """One line a name; raises ConfigError for options that the run cannot serve yet."""
    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.decoding import answer_questions
    from birthplace_lm.prefix_tree import constrained_answers
    from birthplace_lm.runs import RunFolder

    folder = RunFolder(options.run)
    model, tokenizer = folder.load_model(), folder.tokenizer()
    knowledge = _judgement(folder)
    _check(options, folder, knowledge)
    if _is_old(knowledge):
        mend = f"birthplace-evaluate {folder.root}"
        print(f"knowledge.json is of an older version; {mend} tells known from guess again", file=sys.stderr)
    questions = [f"Where was {name} born?" for name in options.names]
    with as_config_errors("question"):
        if options.places:
            answers = constrained_answers(model, tokenizer, questions, knowledge["places"])
        else:
            answers = answer_questions(model, tokenizer, questions)
    width = max(map(len, options.names))
    if options.places or not _is_calibrated(knowledge):
        said = [f"{answer.text}  {answer.probability:.1%}" for answer in answers]
    else:
        said = [_judged(answer, knowledge, options.abstain_above) for answer in answers]
    return [f"{name:{width}}  {words}" for name, words in zip(options.names, said, strict=True)]


def _judgement(folder: "RunFolder") -> dict[str, Any]:
    """knowledge.json, or nothing where it judged other weights than those that answer now."""
    from birthplace_lm.composing import ConfigError
    from birthplace_lm.decoding import Answer
    from birthplace_lm.runs import read_json

    knowledge = read_json(folder.root / "knowledge.json")
    try:
        if _is_calibrated(knowledge):
            _judged(Answer("", 0.0, True), knowledge, KNOWN_RISK)
        places = [str(place) for place in knowledge.get("places", ())]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{folder.root / 'knowledge.json'} is no card that birthplace-evaluate writes ({type(error).__name__}: "
            f"{error}): birthplace-evaluate {folder.root} writes it anew"
        ) from None
    knowledge |= {"places": places} if places else {}
    if not knowledge or not folder.is_trained_further(folder.metrics()):
        return knowledge
    mend = f"birthplace-evaluate {folder.root}"
    print(f"knowledge.json is of the run before it was trained further; {mend} judges it anew", file=sys.stderr)
    return {}


def _check(options: argparse.Namespace, folder: "RunFolder", knowledge: dict[str, Any]) -> None:
    """Raise ConfigError where an option needs what is not in the run folder."""
    from birthplace_lm.composing import ConfigError

    risk = options.abstain_above
    mend = f"birthplace-evaluate {folder.root} writes knowledge.json"
    if options.places and risk is not None:
        raise ConfigError(
            "--places and --abstain-above do not go together: how often an answer is wrong was counted on free "
            "answers, not on those chosen from a list"
        )
    if options.places and not knowledge.get("places"):
        raise ConfigError(f"--places needs the list of train places, which the run folder does not hold yet: {mend}")
    if risk is None:
        return
    if _is_old(knowledge):
        raise ConfigError(f"knowledge.json is of an older version, without what --abstain-above needs: {mend} anew")
    if not _is_calibrated(knowledge):
        why = knowledge.get("calibration", {}).get("why")
        known = f"knowledge.json has none ({why})" if why else f"the run folder does not hold it yet: {mend}"
        raise ConfigError(f"--abstain-above needs the run's calibration on held-out people, but {known}")
    if not 0 <= risk < 1:
        raise ConfigError(f"--abstain-above {risk:g} is no share of wrong answers: choose 0 or more, below 1, e.g. 0.1")


def _is_calibrated(knowledge: dict[str, Any]) -> bool:
    return knowledge.get("calibration", {}).get("temperature") is not None and bool(knowledge.get("risk_steps"))


def _is_old(knowledge: dict[str, Any]) -> bool:
    return "thresholds" in knowledge and "risk_steps" not in knowledge


def _threshold(risk: float, knowledge: dict[str, Any]) -> float | None:
    """The calibrated probability from which on at most this share of answers was wrong; None if it is never so few.

    At least ten such answers are asked for: one that was right says nothing of the next.
    """
    from birthplace_lm.evaluation.resampling import FEWEST

    enough = [step for step in knowledge["risk_steps"] if step["answered"] >= FEWEST]
    reached = [step["threshold"] for step in enough if step["risk"] <= risk + 1e-9]
    return reached[-1] if reached else None


def _judged(answer: "Answer", knowledge: dict[str, Any], abstain_above: float | None) -> str:
    """The answer, its own and its calibrated probability, and known or guess; "–" and why where it is held back."""
    import numpy as np

    from birthplace_lm.evaluation.temperature import LogitScaling

    numbers = knowledge["calibration"]
    scaling = LogitScaling(float(numbers["temperature"]), float(numbers["bias"]))
    calibrated = float(scaling(np.array([answer.probability]))[0])
    risk = KNOWN_RISK if abstain_above is None else abstain_above
    enough = _threshold(risk, knowledge)
    sure = f"{answer.probability:.1%}, calibrated {calibrated:.1%}"
    if enough is not None and calibrated >= enough:
        return f"{answer.text}  {sure}: known"
    if abstain_above is None:
        return f"{answer.text}  {sure}: guess"
    if enough is None:
        return f"–  {sure}: however sure, more than {100 * risk:g}% of the answers were wrong, or there were not ten"
    return f"–  {sure}: below {enough:.1%}, from where on at most {100 * risk:g}% of the answers were wrong"


if __name__ == "__main__":
    main()
