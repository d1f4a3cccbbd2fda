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
    if not train:
        raise ConfigError(
            f"held_out_share={share} holds out all {len(held)} train questions: lower it, some are to be learned from"
        )
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
    if lacking := [key for key in ("data", "held_out_share", "seed") if key not in settings]:
        raise ConfigError(f"{folder.root / 'config.yaml'} is of no run: it says nothing of {', '.join(lacking)}")
    node = dict(settings["data"])
    if data and "dir" not in node:
        raise ConfigError(f"{folder.root} was made from no files but an invented world: leave --data {data} out")
    if "dir" in node:
        node["dir"] = str(data) if data else os.environ.get("BIRTHPLACE_CS224N_DIR")
        if node["dir"] is None:
            raise ConfigError(f"{folder.root} was made from files: say where they lie, --data FOLDER")
        cache = folder.root.resolve().parent / ".data"
        node["cache"] = str(cache) if cache.is_dir() else None  # what training kept there
    whole = build(node, OF_A_RUN).corpus()
    corpus = with_held_out(whole, settings["held_out_share"])
    if (found := sha256_of_corpus(corpus)) != (wanted := folder.data_fingerprint()):
        where = f" in {node['dir']}" if "dir" in node else ""
        told = f"the data now found{where} differ from those that {folder.root} was trained on"
        mend = "; --data FOLDER names another folder" if where else ""
        raise ConfigError(f"{told}: their sum is {found[:8]}…, not {wanted[:8] or 'on record'}…{mend}")
    return corpus, whole


def check_questions(
    corpus: Corpus, tokenizer: CharTokenizer, block_size: int, longest: int, held_out: bool = False
) -> None:
    """Raise ConfigError for a question with an unknown character, or one that does not fit the model with its ⁇.

    `held_out` says that people of the train questions stand in the place of dev, so that they are named as such.
    """
    for split in ("train", "dev", "test"):
        if _all_fit(getattr(corpus, split), tokenizer, block_size if split == "train" else longest, split == "train"):
            continue
        for number, question in enumerate(getattr(corpus, split), start=1):
            file = FILES["train"] if held_out and split == "dev" else FILES[split]
            where = f"question {number} of {'the held-out people' if held_out and split == 'dev' else split} ({file})"
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
