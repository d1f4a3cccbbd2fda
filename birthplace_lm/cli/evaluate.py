"""birthplace-evaluate: score a run again, or have it answer a file of questions."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Parse, answer, print. Without --questions dev and test of the run's own data are answered and scored.

    That also writes knowledge.json: what the model stores, how well it knows what it knows, what it makes up.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    of_the_card = ("thorough", "at_most", "unknown", "unscored", "dev", "seeds")
    given = [name.replace("_", "-") for name in of_the_card if getattr(options, name) != parser.get_default(name)]
    if options.questions and given:
        parser.error(f"--questions answers the file and nothing else: leave away --{', --'.join(given)}")
    if options.out and not options.questions:
        parser.error("--out is where the answers to --questions go: give both")
    if options.questions and options.data:
        parser.error("--data says where the people of a run lie, and --questions answers a file: leave one away")
    if options.unscored is not None and not options.thorough:
        parser.error("--unscored says which places --thorough scores: give both")

    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.process import set_up_process

    with in_plain_words(), set_up_process():
        _answer_file(options) if options.questions else _score_again(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="birthplace-evaluate", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="one question a line, TAB and answer if known")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for predictions, one a line (default: print them)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the run's four data files, if it used files")
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="every signal of confidence; minutes for a large model",
    )
    parser.add_argument(
        "--at-most",
        type=int,
        metavar="N",
        help="questions of dev and of test, evenly spread over each (default: the run's ask_at_most)",
    )
    parser.add_argument(
        "--unknown",
        type=int,
        metavar="N",
        help="names of each made-up family (default: as many as people are asked, at least 100)",
    )
    parser.add_argument(
        "--unscored",
        type=float,
        metavar="P",
        help="with --thorough: places of so much probability together are not scored for a name (default: 0.2; 0: all "
        "are, which takes several times as long)",
    )
    parser.add_argument(
        "--dev",
        action="store_true",
        help="ask a run with held_out_share about dev and test, fit all on the held-out train people, write to RUN/dev",
    )
    parser.add_argument(
        "--seeds",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs that differ by their seed alone: how many of them give the same answer is one more signal",
    )
    return parser


def _score_again(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from birthplace_lm.asking import Inquiry, check_siblings
    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.evaluation.signals import UNSCORED
    from birthplace_lm.people import spread
    from birthplace_lm.run_corpus import corpus_of, corpus_with_dev
    from birthplace_lm.runs import RunFolder
    from birthplace_lm.scoring import evaluate, evaluate_on_dev

    folder = RunFolder(options.run)
    siblings = [RunFolder(path) for path in options.seeds]
    with as_config_errors("--seeds"):
        check_siblings(folder, siblings)
    at_most = folder.config().get("ask_at_most") if options.at_most is None else options.at_most
    unscored = UNSCORED if options.unscored is None else options.unscored
    with as_config_errors("birthplace-evaluate"):
        inquiry = Inquiry(options.thorough, at_most, options.unknown, unscored, siblings)
    corpus, held_out = corpus_with_dev(folder, options.data) if options.dev else (corpus_of(folder, options.data), ())
    with as_config_errors("--at-most"):
        spread(corpus.dev, at_most)
    with folder.locked():
        if options.dev:
            evaluate_on_dev(folder, corpus, replace(inquiry, fit_on=held_out))
        else:
            evaluate(folder, corpus, inquiry=inquiry)


def _answer_file(options: argparse.Namespace) -> None:
    from birthplace_lm.composing import as_config_errors
    from birthplace_lm.corpus import read_questions
    from birthplace_lm.decoding import answer_questions
    from birthplace_lm.evaluation.exact_match import score, without_breaks, write_predictions
    from birthplace_lm.runs import RunFolder

    folder = RunFolder(options.run)
    model = folder.load_model()
    questions = read_questions(options.questions, answered=None)
    with as_config_errors("--questions"):
        answers = answer_questions(model, folder.tokenizer(), [question.text for question in questions])
    predictions = [answer.text for answer in answers]
    if options.out:
        write_predictions(options.out, predictions)
    else:
        print("\n".join(map(without_breaks, predictions)))
    if questions[0].answer is not None:
        result = score(predictions, questions)
        low, high = result["wilson95"]
        print(
            f"exact match {result['exact_match']:.1%} ({result['correct']} of {result['total']}, "
            f"95 % interval {low:.1%} – {high:.1%})",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
