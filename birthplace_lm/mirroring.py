"""What mirrors are told of a scored run: the answers as a table, the pictures, and the few figures it is known by."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birthplace_lm.attention_figure import draw, png
from birthplace_lm.attention_maps import read
from birthplace_lm.corpus import Question
from birthplace_lm.decoding import Answer
from birthplace_lm.replacing import replace_file
from birthplace_lm.runs import RunFolder

if TYPE_CHECKING:  # it is one of Lightning's, whose import takes longer than all else
    from birthplace_lm.history import RunLogger

_ANSWERS = ("question", "answer", "prediction", "right", "log_probability")
_ROWS = ("row", "right", "of", "exact match", "from", "to")
_SIGNAL = "sequence_log_probability"  # chosen beforehand: the best one of many would flatter


def tell_answers(loggers: "Sequence[RunLogger]", questions: Sequence[Question], answers: Sequence[Answer]) -> None:
    """A row a question, with what was answered and how likely the model held it to be."""
    pairs = zip(questions, answers, strict=True)
    rows = [[q.text, q.answer, a.text, q.answer == a.text, a.log_probability] for q, a in pairs]
    for logger in loggers:
        logger.log_table("predictions", _ANSWERS, rows)


def tell_scores(
    loggers: "Sequence[RunLogger]", folder: RunFolder, metrics: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """The table of a run's rows and its headline."""
    scored = {name: row["dev"] for name, row in metrics["rows"].items() if row["dev"]["total"]}
    rows = [[name, d["correct"], d["total"], d["exact_match"], *d["wilson95"]] for name, d in scored.items()]
    for logger in loggers:
        logger.log_table("rows", _ROWS, rows)
        logger.summarize(headline(folder, metrics, card))


def headline(folder: RunFolder, metrics: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, float]:
    """Exact match, stored, AUROC, and what the answering model cost; what is not defined is left out.

    Seconds and characters are those of the stages that led to this model: a control that started afresh is none of it.
    """
    table, signal = card["stored"]["cloze"]["either"], card["confidence"]["signals"].get(_SIGNAL)
    main = folder.final_stage()
    way = ("pretrain", "finetune") if main == "finetune" else (main,)
    facts = [folder.stage(stage).facts() for stage in way]
    figures = {
        "dev/exact_match": metrics.get("dev", {}).get("exact_match"),
        "dev/stored": table["stored"]["value"],
        "dev/right_given_stored": table["right_given_stored"]["value"],
        "dev/auroc": signal and signal["auroc"]["value"],
        "parameters": metrics["parameters"],
        "seconds": sum(fact.get("seconds", 0.0) for fact in facts),
        "characters": sum(fact.get("characters", 0) for fact in facts),
    }
    return {name: value for name, value in figures.items() if value is not None}


def show_pictures(loggers: "Sequence[RunLogger]", folder: RunFolder, questions: Sequence[Question]) -> None:
    """The loss, where the heads looked for one answer, and what the card draws; drawn only for who takes pictures."""
    takers = [logger for logger in loggers if logger.takes_images]
    for name, path in _pictures(folder, questions) if takers else ():
        for logger in takers:
            logger.log_image(name, path)


def _pictures(folder: RunFolder, questions: Sequence[Question]) -> Iterator[tuple[str, Path]]:
    if (path := folder.root / "loss.png").is_file():
        yield "loss_curves", path
    try:
        if questions:
            yield "attention", _attention(folder, questions[0])
    except Exception as error:  # a layer without weights to read, a full disk: no reason for a run to fail
        print(f"no picture of the attention: {error}")
    for path in sorted((folder.root / "knowledge").glob("*.png")):
        yield f"knowledge/{path.stem}", path


def _attention(folder: RunFolder, question: Question) -> Path:
    """attention/first_dev_question.png of the run folder: one question, the same for all runs of the same data."""
    stage = folder.final_stage()
    path = folder.root / "attention" / "first_dev_question.png"
    replace_file(path, png(draw(read(folder.load_model(stage), folder.tokenizer(), question.text))))
    return path
