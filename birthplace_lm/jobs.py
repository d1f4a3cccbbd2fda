"""A run before it begins: parts built, questions checked, a name found; what cannot work is said before training."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from birthplace_lm.architecture import build_model, with_layers
from birthplace_lm.batches import step_seed
from birthplace_lm.composing import ConfigError, as_config_errors, build, differences
from birthplace_lm.corpus import Corpus, CorpusError, Question
from birthplace_lm.datamodules import BirthplaceDataModule, SpanCorruptionDataModule
from birthplace_lm.distillation import Distillation
from birthplace_lm.identity import of_the_run, run_name, without_places
from birthplace_lm.mapped_texts import AskedQuestions, Texts
from birthplace_lm.people import spread
from birthplace_lm.recipe_settings import check_recipes
from birthplace_lm.run_corpus import check_questions, with_held_out
from birthplace_lm.runs import STAGES, RunFolder, read_json, write_json
from birthplace_lm.self_training import PseudoLabels
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.storage import load_weights
from birthplace_lm.teachers import check_start, pseudo_labels, teacher, with_start, with_teachers
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.trainer_settings import check_callbacks, check_trainer
from birthplace_lm.transformer import Transformer

PSEUDO_LABELS = "pseudo_labels.json"  # of the run folder

Data = SpanCorruptionDataModule | BirthplaceDataModule


@dataclass(frozen=True)
class Job:
    """One run while it is worked on: what it was told, where it lives, what it learns from."""

    settings: dict[str, Any]
    folder: RunFolder
    corpus: Corpus
    tokenizer: CharTokenizer
    source: RunFolder | None  # where the weights come from that it starts with
    teachers: Sequence[RunFolder] = ()  # whose expectations the pretraining learns
    pseudo_labelled: Sequence[Question] = ()  # what other runs answered and the pretraining learns
    steps: Mapping[str, int] = field(default_factory=dict)  # of every stage that trains
    n_asked: int = 0  # of the dev questions
    begun: float = field(default_factory=time.monotonic)  # when this session of it was prepared

    def record(self) -> dict[str, Any]:
        """The settings as the run folder keeps them: nothing of this machine in them."""
        return without_places(self.settings)

    def keep_pseudo_labels(self) -> None:
        """What other runs answered, for whoever wants to look, and for the run when it goes on."""
        if self.pseudo_labelled and not (kept := self.folder.root / PSEUDO_LABELS).is_file():
            write_json(kept, {question.text: question.answer for question in self.pseudo_labelled})

    def told_before(self) -> bool:
        """Whether the run is scored and its mirrors know it; those of a run that does not say so are taken to."""
        told = self.folder.metrics().get("mirrored")
        return self.folder.is_scored() and (told is None or set(self.settings["logger"] or {}) <= set(told))

    def is_done(self) -> bool:
        """Whether the run folder has all that was asked for: stages trained, answers scored and told."""
        trained = all(self.folder.stage(stage).finished for stage in self.steps)
        if "evaluate" not in self.settings["stages"]:
            return trained
        return trained and self.told_before() and self.folder.metrics().get("dev", {}).get("total", 0) == self.n_asked

    def model(self) -> Transformer:
        """Untrained; the same weights for the same seed."""
        torch.manual_seed(step_seed(self.settings["seed"], -1))
        return build_model(self.settings, len(self.tokenizer))

    def starting_model(self, stage: str) -> Transformer:
        """What a stage begins with: fresh weights, this run's pretraining, or the run named by init_from."""
        model = self.model()
        own = self.folder.stage("pretrain")  # of this command, or of one that trained no further
        if stage == "finetune" and own.finished:
            load_weights(own.weights, model)
        elif self.source and stage != "finetune_only":
            load_weights(self.source.starting_weights(), model)
        return model

    def adapted(self, stage: str, model: Transformer) -> Transformer:
        """The same model with that left to learn which the stage's recipe says; additions follow from the seed."""
        recipe = self.settings[stage].get("adaptation")
        if recipe:
            torch.manual_seed(step_seed(self.settings["seed"], -2))
            with as_config_errors(f"{stage}.adaptation"):
                build(recipe)(model)
        return model

    def distillation(self, stage: str) -> Distillation | None:
        """What a stage learns from finished runs beside the text; None where there is nothing."""
        recipe = self.settings[stage].get("distillation")
        if not recipe:
            return None
        with as_config_errors(f"{stage}.distillation"):
            make = build({key: value for key, value in recipe.items() if key != "runs"})
            longest, sha256 = self.model().max_length, sha256_of_corpus(self.corpus)
            made: Distillation = make([teacher(run, sha256, self.tokenizer, longest) for run in self.teachers])
        return made

    def data(self, stage: str) -> Data:
        """The DataModule of a training stage, with the numbers of its recipe."""
        parts = ("optimizer", "schedule", "averaging", "adaptation", "distillation", "self_training", "validations")
        recipe = {key: value for key, value in self.settings[stage].items() if key not in parts}
        size, seed = self.settings["model"]["block_size"], self.settings["seed"]
        with as_config_errors(stage):
            validation = spread(self.corpus.dev, self.settings.get("ask_at_most"))
            if stage == "pretrain":
                room = size - len(recipe.get("document_prefix", ""))
                if room < size / 2:
                    raise ConfigError(f"document_prefix leaves documents {room} of {size} characters: shorten it")
                corruption = build(self.settings["corruption"], ("birthplace_lm.corruption.",), block_size=room)
                return SpanCorruptionDataModule(
                    self.corpus.documents, self.corpus.train, self.tokenizer, corruption, size, seed=seed,
                    validation=validation, pseudo_labelled=self.pseudo_labelled, **recipe,
                )  # fmt: skip
            return BirthplaceDataModule(self.corpus.train, validation, self.tokenizer, size, seed=seed, **recipe)


def prepare(settings: dict[str, Any], chosen: Sequence[str], asks: bool = True) -> Job:
    """Find data, vocabulary, source and name, and build every part once; raises ConfigError or CorpusError.

    What other runs are to answer takes them minutes: without `asks` it is left to whoever carries out the job.
    """
    check_recipes(settings)
    check_trainer(settings["trainer"])
    check_callbacks(settings["callbacks"] or {})
    settings = with_layers(settings)
    source = RunFolder(settings["init_from"]) if settings["init_from"] else None
    if source:
        settings = with_start(settings, source, chosen)
    with as_config_errors("settings"):
        build_model(settings, vocabulary_size=2)  # what does not go together is told before a corpus is read
    settings, teachers = with_teachers(settings, "distillation")
    settings, answering = with_teachers(settings, "self_training")
    with as_config_errors("data", but=(CorpusError,)):
        corpus = with_held_out(build(settings["data"]).corpus(), settings["held_out_share"])
        tokenizer = source.tokenizer() if source else CharTokenizer.fit(_shown_in_training(corpus))
    if source:
        check_start(source, sha256_of_corpus(corpus), holds_out=bool(corpus.unknown))
    with as_config_errors("ask_at_most"):
        n_asked = len(spread(corpus.dev, settings.get("ask_at_most")))
    with as_config_errors("settings"):
        folder = RunFolder(Path(settings["paths"]["runs"]) / run_name(settings, corpus))
        job = Job(settings, folder, corpus, tokenizer, source, teachers, n_asked=n_asked)
        model = job.model()
    job = replace(job, pseudo_labelled=_pseudo_labelled(job, answering if asks else (), model.max_length))
    held_out = bool(settings["held_out_share"])
    check_questions(corpus, tokenizer, settings["model"]["block_size"], model.max_length, held_out)
    steps = {}
    for stage in (stage for stage in STAGES if stage in settings["stages"]):
        steps[stage] = job.data(stage).plan.total_steps
        with as_config_errors(f"{stage}.optimizer"):
            build(settings[stage]["optimizer"])(job.adapted(stage, job.model()))
        with as_config_errors(f"{stage}.schedule"):
            schedule = build(settings[stage]["schedule"])
            for seen in (0.0, 1e12):  # at the first position and at the last of many
                float(schedule(seen, 1e12))
        job.distillation(stage)
    return replace(job, steps=steps)


def _pseudo_labelled(job: Job, runs: Sequence[RunFolder], longest: int) -> Sequence[Question]:
    """What other runs answer, or answered when this run began: another machine might round to another answer."""
    if not runs:
        return ()
    if (kept := job.folder.root / PSEUDO_LABELS).is_file():
        return tuple(Question(text, answer) for text, answer in read_json(kept).items())
    recipe = job.settings["pretrain"]["self_training"]
    with as_config_errors("pretrain.self_training"):
        choose: PseudoLabels = build({key: value for key, value in recipe.items() if key != "runs"})
        block_size, wordings = job.settings["model"]["block_size"], job.settings["pretrain"]["question_wordings"]
        found = pseudo_labels(choose, runs, job.corpus, job.tokenizer, block_size, longest, wordings)
    if not found:
        raise ConfigError("pretrain.self_training: the runs agree on no answer, so there is nothing to learn from them")
    return found


def _shown_in_training(corpus: Corpus) -> Iterator[str]:
    """Documents and train questions: a text need not hold a question mark for questions to end in one."""
    yield from [corpus.documents.characters] if isinstance(corpus.documents, Texts) else corpus.documents
    if isinstance(corpus.train, AskedQuestions):
        yield corpus.train.characters
    else:
        yield from (question.text + (question.answer or "") for question in corpus.train)


def check_same_run(job: Job) -> None:
    """Raise ConfigError with a table if the folder holds a run of other settings, vocabulary or data."""
    if not job.folder.is_run():
        return
    rows = differences(of_the_run(job.settings), of_the_run(job.folder.config()))
    own, found = job.tokenizer.characters, job.folder.tokenizer().characters
    if own != found:
        missing, more = sorted(set(own) - set(found)), sorted(set(found) - set(own))
        rows.append(("vocabulary", "".join(missing) or "-", "".join(more) or "-"))
    if job.folder.data_fingerprint() not in ("", sha256_of_corpus(job.corpus)):
        rows.append(("data", sha256_of_corpus(job.corpus)[:8], job.folder.data_fingerprint()[:8]))
    if rows:
        table = "\n".join(f"  {key}: {ours} here, {theirs} there" for key, ours, theirs in rows)
        raise ConfigError(f"{job.folder.root} holds another run:\n{table}\ngive this one another name")
    begun, pretraining, stages = job.folder.stage("finetune"), job.folder.stage("pretrain"), job.settings["stages"]
    if pretraining.finished:
        return
    if "pretrain" in stages and (begun.finished or begun.checkpoints.is_dir()):
        raise ConfigError(
            f"{job.folder.root} holds a finetuning that began without this pretraining: give this run another name"
        )
    if "pretrain" not in stages and "finetune" in stages and pretraining.checkpoints.is_dir():
        raise ConfigError(
            f"{job.folder.root} holds a pretraining that has not come to its end, so no finetuning can begin from it: "
            "go on with stages=[pretrain,…], or give this run another name"
        )
