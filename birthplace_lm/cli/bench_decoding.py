"""birthplace-bench decoding: questions answered all at once and one by one, and where the time of answers goes."""

import argparse
from typing import TYPE_CHECKING, Any

from birthplace_lm.cli.bench_parts import corpus_of, machine, model_of

if TYPE_CHECKING:
    from birthplace_lm.corpus import Corpus
    from birthplace_lm.tokenizer import CharTokenizer
    from birthplace_lm.transformer import Transformer


def decoding(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """All dev questions both ways, and if wanted a profile of the quick one: figures, and their table."""
    from birthplace_lm.benchmarks import decoding, profiling
    from birthplace_lm.composing import ConfigError
    from birthplace_lm.replacing import replace_file
    from birthplace_lm.sources import sha256_of_corpus

    corpus = corpus_of(options)
    if (asked := questions_for(options, corpus)) is None:
        raise ConfigError("there are no questions to decode: give --questions 1 or more")
    found = decoding.compare(*asked, options.repetitions)
    line = decoding.told(found)
    print(line)
    if options.profile is not None:
        heading = (
            f"Where the time of answers goes: {options.start_from or options.model}, {found['questions']} questions, "
            f"{options.threads} thread{'s' * (options.threads > 1)}"
        )
        page = profiling.markdown(profiling.profile_answers(*asked), heading, "answering all of them once")
        replace_file(options.profile, page)
    return {**machine(sha256_of_corpus(corpus)), "decoding": found}, f"{decoding.markdown(found)}\n{line}\n"


def questions_for(
    options: argparse.Namespace, corpus: "Corpus"
) -> "tuple[Transformer, CharTokenizer, list[str]] | None":
    """Dev questions, and who answers them: a run, or a new model, whose answers have no end. None without questions."""
    from birthplace_lm.runs import RunFolder
    from birthplace_lm.tokenizer import CharTokenizer

    questions = [question.text for question in corpus.dev][: options.questions]
    if not questions:
        return None
    if options.start_from:
        folder = RunFolder(options.start_from)
        return folder.load_model(), folder.tokenizer(), questions
    tokenizer = CharTokenizer.fit([*corpus.documents, *(question.text for question in corpus.dev)])
    model = model_of((options.attention or ["vanilla"])[0], options.model)(len(tokenizer))
    return model, tokenizer, questions
