"""The people of a run: some of them held out where it is for tuning, and the same ones again once it is finished."""

import os
from dataclasses import replace
from pathlib import Path

from birthplace_lm.composing import OF_A_RUN, ConfigError, build
from birthplace_lm.corpus import FILES, Corpus, Questions
from birthplace_lm.mapped_texts import AskedQuestions
from birthplace_lm.people import hold_out
from birthplace_lm.runs import RunFolder
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.tokenizer import CharTokenizer, UnknownCharacterError


def with_held_out(corpus: Corpus, share: float) -> Corpus:
    """For tuning: some of the train people take the place of dev, and test is left out: neither is looked at.

    People held out of the documents were dev people, so their places are left out too.
    """
    if not share:
        return corpus
    train, held = hold_out(corpus.train, share, seed=0)
    unknown = tuple(replace(question, answer=None) for question in corpus.unknown)
    return replace(corpus, train=train, dev=held, test=(), unknown=unknown)


def corpus_of(folder: RunFolder, data: Path | None = None) -> Corpus:
    """The data that a finished run was made from; `data` names the folder of its files where it used files."""
    return _with_and_without(folder, data)[0]


def corpus_with_dev(folder: RunFolder, data: Path | None = None) -> tuple[Corpus, Questions]:
    """Of a run that held out train people its data with dev and test again, and the people held out.

    Raises ConfigError for a run that held out nobody: that has been asked about dev.
    """
    if not folder.config()["held_out_share"]:
        raise ConfigError(f"{folder.root} was trained with held_out_share=0: it is asked about dev without --dev")
    tuned, whole = _with_and_without(folder, data)
    return replace(whole, train=tuned.train), tuned.dev


def _with_and_without(folder: RunFolder, data: Path | None) -> tuple[Corpus, Corpus]:
    """The data of a run, with people held out as they were, and with nobody held out."""
    settings = folder.config()
    node = dict(settings["data"])
    if "dir" in node:
        node["dir"] = str(data) if data else os.environ.get("BIRTHPLACE_CS224N_DIR")
        if node["dir"] is None:
            raise ConfigError(f"{folder.root} was made from files: say where they lie, --data FOLDER")
        cache = folder.root.resolve().parent / ".data"
        node["cache"] = str(cache) if cache.is_dir() else None  # what training kept there
    whole = build(node, OF_A_RUN).corpus()
    corpus = with_held_out(whole, settings["held_out_share"])
    if sha256_of_corpus(corpus) != folder.data_fingerprint():
        raise ConfigError(f"the data now found differ from those that {folder.root} was trained on")
    return corpus, whole


def check_questions(corpus: Corpus, tokenizer: CharTokenizer, block_size: int, longest: int) -> None:
    """Raise ConfigError for a question with an unknown character, or one that does not fit the model with its ⁇."""
    for split in ("train", "dev", "test"):
        if _all_fit(getattr(corpus, split), tokenizer, block_size if split == "train" else longest, split == "train"):
            continue
        for number, question in enumerate(getattr(corpus, split), start=1):
            where = f"question {number} of {split} ({FILES[split]})"
            try:
                tokenizer.encode(question.text + (question.answer or ""))
            except UnknownCharacterError as error:
                raise ConfigError(f"{where}: {error}") from None
            answered = split == "train"
            length = len(question.text) + 1 + (len(question.answer or "") + 1 if answered else 0)
            room = block_size if answered else longest
            if length > room:
                raise ConfigError(
                    f"{where} has {length} characters with its {'answer and two sentinels' if answered else '⁇'}, "
                    f"the block has {room}: shorten it or raise model.block_size"
                )


def _all_fit(questions: Questions, tokenizer: CharTokenizer, room: int, answered: bool) -> bool:
    """Whether mapped questions need not be looked at one by one, to find which of them cannot be asked."""
    if not isinstance(questions, AskedQuestions):
        return False
    return tokenizer.knows(questions.characters) and questions.longest(answered) + 1 + answered <= room
