"""birthplace-attention: where did the heads look while the model said where somebody was born?"""

import argparse
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birthplace_lm.runs import RunFolder


def main(arguments: list[str] | None = None) -> None:
    """Answer each question and write what every head of every layer looked at: a picture and a page to explore."""
    parser = argparse.ArgumentParser(prog="birthplace-attention", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("questions", nargs="+", metavar="QUESTION", help='"Where was NAME born?", or the name alone')
    parser.add_argument("--stage", metavar="STAGE", help="whose weights to use (default: the last that answers)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the files (default: attention/ in the run)")
    options = parser.parse_args(arguments)

    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.process import set_up_process

    with in_plain_words(), set_up_process():
        _show(options)


def as_question(text: str) -> str:
    """The text itself where it asks something, else the question about the person of that name."""
    return text if text.rstrip().endswith("?") else f"Where was {text} born?"


def file_stem(question: str) -> str:
    """A file name for a question: the name asked about, and six digits of a hash where that cannot be spelt in one."""
    from birthplace_lm.corpus import Question

    name = Question(question).name
    plain = re.sub(r"\W+", "-", name)[:48].strip("-")
    digits = hashlib.sha256(question.encode()).hexdigest()[:6]
    return plain if plain.replace("-", " ") == name else f"{plain}-{digits}".lstrip("-")


def _show(options: argparse.Namespace) -> None:
    from birthplace_lm.attention_figure import draw, png
    from birthplace_lm.attention_maps import read
    from birthplace_lm.attention_page import page
    from birthplace_lm.replacing import replace_file
    from birthplace_lm.runs import RunFolder

    folder, out = RunFolder(options.run), options.out or options.run / "attention"
    kind = folder.config()["attention"]["_target_"].rsplit(".", 1)[-1]
    stage = _finished_stage(folder, options.stage)
    model, tokenizer = folder.load_model(stage), folder.tokenizer()
    for question in map(as_question, options.questions):
        reading = read(model, tokenizer, question)
        print(f"{question}  {reading.answer.text}  {reading.answer.probability:.1%}")
        html = page(reading, f"{folder.root.resolve().name}, {stage}, {kind}")
        for ending, content in (("png", png(draw(reading))), ("html", html.encode())):
            path = out / f"{stage}-{file_stem(question)}.{ending}"
            replace_file(path, content)
            print(f"  {path}")


def _finished_stage(folder: "RunFolder", wanted: str | None) -> str:
    """The stage asked for, by default the last that answers; ConfigError for one that has no weights."""
    from birthplace_lm.composing import ConfigError
    from birthplace_lm.runs import STAGES

    finished = [name for name in STAGES if folder.stage(name).finished]
    if wanted is not None and wanted not in finished:
        raise ConfigError(f"{folder.root} has no finished stage {wanted!r}, but {', '.join(finished) or 'none at all'}")
    return wanted or folder.final_stage()


if __name__ == "__main__":
    main()
