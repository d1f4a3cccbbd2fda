"""From a run folder with trained weights to predictions, figures and the table at the end of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from birthplace_lm.asking import Inquiry
from birthplace_lm.corpus import Corpus, Question
from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.durations import duration
from birthplace_lm.evaluation.baselines import baseline_rows
from birthplace_lm.evaluation.exact_match import score, write_predictions
from birthplace_lm.evaluation.slices import all_slices
from birthplace_lm.knowledge import HELD_OUT_OF_TRAIN
from birthplace_lm.knowledge_report import judge
from birthplace_lm.mirroring import show_pictures, tell_answers, tell_scores
from birthplace_lm.people import spread
from birthplace_lm.replacing import replace_file
from birthplace_lm.run_corpus import check_questions
from birthplace_lm.runs import RunFolder
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

if TYPE_CHECKING:  # it is one of Lightning's, whose import takes longer than all else
    from birthplace_lm.history import RunLogger

ROWS = {"finetune": "pretrain + finetune", "finetune_only": "finetune only", "pretrain": "pretrain only"}


def evaluate(
    folder: RunFolder,
    corpus: Corpus,
    loggers: "Sequence[RunLogger]" = (),
    inquiry: Inquiry | None = None,
) -> dict[str, Any]:
    """Answer dev and test with every trained model of a run, score dev, compare with what needs no model.

    Writes predictions/, metrics.json and, with what `knowledge` measures, knowledge.json; prints the table and six
    lines; mirrors are told the same, and then metrics.json says which stages are scored. Test has no answers, so it has
    no figure. predictions/ holds what was asked; the inquiry's other settings are for the card alone.
    """
    inquiry = inquiry or Inquiry()
    dev, test = spread(corpus.dev, inquiry.at_most), spread(corpus.test, inquiry.at_most)
    rows = {}
    for name, predictions in baseline_rows(corpus.train, dev).items():
        rows[name] = {"dev": score(predictions, dev)}
    stages, main = folder.answering_stages(), folder.final_stage()
    metrics: dict[str, Any] = {"scored": []}
    everybody = corpus.names()
    if folder.metrics():
        folder.update_metrics(scored=[])  # until the end the answers may be others than those of the figures
    for stage in stages:
        prefix = "" if stage == main else f"{stage}."
        model = folder.load_model(stage)
        for split, questions in (("dev", dev), ("test", test)):
            answers = _answered(model, folder.tokenizer(), questions, folder.root, prefix + split)
            predictions = [answer.text for answer in answers]
            if split == "dev" and questions:
                rows[_row_name(folder, stage)] = {"dev": score(predictions, questions)}
                if stage == main:
                    metrics["dev"] = score(predictions, questions)
                    metrics["slices"] = all_slices(predictions, questions, corpus.train, corpus.documents, everybody)
                    tell_answers(loggers, questions, answers)
        metrics["parameters"] = model.n_parameters()
    metrics |= {f"{stage}_{key}": value for stage in ROWS for key, value in folder.stage(stage).facts().items()}
    metrics = folder.update_metrics(**metrics, rows=rows)
    print_table(folder, metrics)
    card = judge(folder, corpus, inquiry)
    tell_scores(loggers, folder, metrics, card)
    show_pictures(loggers, folder, dev)
    return folder.update_metrics(scored=stages)


def evaluate_on_dev(folder: RunFolder, corpus: Corpus, inquiry: Inquiry) -> None:
    """Ask a run that held out train people about dev and test, into a folder dev of their own in the run's folder.

    The corpus is the one with dev, the people of `inquiry.fit_on` those held out (`run_corpus.corpus_with_dev`). What
    the run says of the held-out people stays as it is. Raises ConfigError for a question that cannot be asked.
    """
    model, tokenizer, into = folder.load_model(), folder.tokenizer(), folder.root / "dev"
    check_questions(corpus, tokenizer, folder.config()["model"]["block_size"], model.max_length)
    (into / "predictions").mkdir(parents=True, exist_ok=True)
    for split, questions in (("dev", corpus.dev), ("test", corpus.test)):
        _answered(model, tokenizer, spread(questions, inquiry.at_most), into, split)
    judge(folder, corpus, inquiry, into)
    print(f"everything is in {into}")


def _row_name(folder: RunFolder, stage: str) -> str:
    """What a stage's row is called: "finetune only" is one without pretraining, and if there are two, the control."""
    started = bool(folder.config()["init_from"]) or folder.stage("pretrain").finished
    if stage == "finetune" and not started:
        return "finetune, no pretraining" if folder.stage("finetune_only").finished else ROWS["finetune_only"]
    return ROWS[stage]


def _answered(
    model: Transformer, tokenizer: CharTokenizer, questions: Sequence[Question], root: Path, name: str
) -> list[Answer]:
    """Into predictions/ of the root: NAME.tsv to exchange, NAME.jsonl with question, answer and log-probability."""
    answers = answer_questions(model, tokenizer, [question.text for question in questions])
    predictions = root / "predictions"
    write_predictions(predictions / f"{name}.tsv", [answer.text for answer in answers])
    lines = []
    for question, answer in zip(questions, answers, strict=True):
        row: dict[str, Any] = {"question": question.text, "answer": question.answer, "prediction": answer.text}
        row |= {"log_probability": answer.log_probability, "finished": answer.finished}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    replace_file(predictions / f"{name}.jsonl", "".join(lines))
    return answers


def print_table(folder: RunFolder, metrics: dict[str, Any]) -> None:
    """The rows of a run, their exact match on dev with its 95 % interval."""
    asked = HELD_OUT_OF_TRAIN if folder.config()["held_out_share"] else "dev"
    table = Table(title=f"{folder.name}: exact match on {asked}", title_justify="left")
    for column in ("row", "right", "of", "exact match", "95 % interval"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for name, row in metrics["rows"].items():
        dev = row["dev"]
        if dev["total"]:
            low, high = dev["wilson95"]
            share = f"{dev['exact_match']:.1%}"
            table.add_row(name, str(dev["correct"]), str(dev["total"]), share, f"{low:.1%} – {high:.1%}")
    Console(width=100, highlight=False).print(table)
    seconds = folder.seconds_of_training()
    print(f"{metrics['parameters']:,} parameters, trained for {duration(seconds)}; everything is in {folder.root}")
