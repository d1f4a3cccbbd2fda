"""birthplace-bench: how fast training and answering are on this machine, against a textbook program."""

import argparse
import json
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> None:
    """Time a textbook loop, this package bare and through Lightning, then decoding; print medians and ratios."""
    parser = argparse.ArgumentParser(prog="birthplace-bench", description=main.__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="the four files (default: an invented world of 2,937 people)")
    parser.add_argument("--attention", default="vanilla", help="a file of configs/attention (default: vanilla)")
    parser.add_argument("--model", default="cs224n", help="a file of configs/model (default: cs224n)")
    parser.add_argument("--batch-size", type=int, default=128, metavar="N")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="optimizer steps a repetition (default: 4)")
    parser.add_argument("--repetitions", type=int, default=5, metavar="N", help="of each way, in turn (default: 5)")
    parser.add_argument("--questions", type=int, default=500, metavar="N", help="to decode (default: 500)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args(arguments)

    from birthplace_lm.cli.errors import in_plain_words

    with in_plain_words():
        figures = _measure(options)
    for row in figures["training"]:
        print(
            f"{row['name']:24} {row['characters_per_second']:9,.0f} characters/s "
            f"{row['step_milliseconds']:8,.0f} ms a step   {row['ratio']:5.2f} x"
        )
    decoding = figures["decoding"]
    print(
        f"{decoding['questions']} questions: {decoding['batched_seconds']:.2f} s, one by one "
        f"{decoding['one_by_one_seconds']:.1f} s, {decoding['ratio']:.0f} x; "
        f"{decoding['same_answers']} of {decoding['compared']} compared answers agree"
    )
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from birthplace_lm.benchmarks import decoding, training
    from birthplace_lm.callbacks import quieten_lightning
    from birthplace_lm.composing import config_folder
    from birthplace_lm.provenance import provenance
    from birthplace_lm.runs import build_model
    from birthplace_lm.sources import Folder, sha256_of_corpus
    from birthplace_lm.tokenizer import CharTokenizer
    from birthplace_lm.world import World

    quieten_lightning()
    corpus = Folder(options.data).corpus() if options.data else World(people=2937).corpus()
    chosen = {"model": options.model, "attention": options.attention, "positions": "learned"}
    config = {group: OmegaConf.load(config_folder() / group / f"{name}.yaml") for group, name in chosen.items()}
    tokenizer = CharTokenizer.fit([*corpus.documents, *(question.text for question in corpus.dev)])
    model, block_size = build_model(config, len(tokenizer)), config["model"].block_size
    timings = training.compare(
        corpus.documents, build_model(config, len(CharTokenizer.fit(corpus.documents))), block_size,
        options.batch_size, options.steps, options.repetitions,
    )  # fmt: skip
    questions = [question.text for question in corpus.dev][: options.questions]
    return {
        **provenance(sha256_of_corpus(corpus)),
        "training": [timing.row(timings[0]) for timing in timings],
        "decoding": decoding.compare(model, tokenizer, questions),
    }


if __name__ == "__main__":
    main()
