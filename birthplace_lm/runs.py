"""The run folder: all that one run was told, did and found, and nothing that points outside it.

    config.yaml          the resolved configuration
    vocabulary.json      the characters, in the order of their ids
    provenance.json      commit, versions, hardware, data, command, one entry a session
    metrics.json         every figure, one object a split
    predictions/*.tsv    one answer a line, in the order of the questions
    knowledge.json       what the model knows, and whether it knows that it knows; pictures of it in knowledge/
    dev/                 predictions and knowledge of dev, of a run that held out train people (evaluate --dev)
    pseudo_labels.json   the questions that other runs answered for its pretraining (self_training)
    progress.json        which stage began when, which are asked for, and the steps that each will have
    error.txt            the traceback, if the last attempt failed
    <stage>/             pretrain, finetune, finetune_only:
        metrics.csv          history, one value a row
        weights.safetensors  the trained weights; there once the stage is finished
        stage.json           steps, characters, seconds, how many parameters learned
        checkpoints/         where the stage goes on if it is interrupted

One process at a time works in it: that one holds the lock on `.lock` (`run_lock`).
"""

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birthplace_lm import run_lock
from birthplace_lm.architecture import ARCHITECTURE, build_model
from birthplace_lm.composing import ConfigError, as_config_errors, load_config, save_config
from birthplace_lm.corpus import sha256_of
from birthplace_lm.provenance import provenance
from birthplace_lm.replacing import replace_file
from birthplace_lm.storage import load_weights
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

STAGES = ("pretrain", "finetune", "finetune_only")  # those that train, in the order of their run


@dataclass(frozen=True)
class Stage:
    """The folder of one training stage."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.root / "weights.safetensors"

    @property
    def history(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def finished(self) -> bool:
        return self.weights.is_file() and (self.root / "stage.json").is_file()

    def facts(self) -> dict[str, Any]:
        """Steps, characters, seconds and trained parameters of a finished stage; empty before."""
        return read_json(self.root / "stage.json")


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def stage(self, name: str) -> Stage:
        return Stage(self.root / name)

    @property
    def name(self) -> str:
        return self.root.name

    def create(self, config: Mapping[str, Any], tokenizer: CharTokenizer) -> None:
        """Fill a new folder; one that is filled is left as it is."""
        (self.root / "predictions").mkdir(parents=True, exist_ok=True)
        if not self.is_run():
            tokenizer.save(self.root / "vocabulary.json")
            save_config(config, self.root / "config.yaml")

    def is_run(self) -> bool:
        return (self.root / "config.yaml").is_file() and (self.root / "vocabulary.json").is_file()

    def config(self) -> dict[str, Any]:
        if not self.is_run():
            raise ConfigError(f"{self.root.resolve()} is no run folder: config.yaml or vocabulary.json is missing")
        config = load_config(self.root / "config.yaml")
        if lacking := [part for part in ARCHITECTURE if not isinstance(config.get(part), Mapping)]:
            raise ConfigError(f"{self.root / 'config.yaml'} is of no run: it says nothing of {', '.join(lacking)}")
        return config

    def stages_wanted(self, config: Mapping[str, Any]) -> set[str]:
        """The stages that were asked for by the first command (`config`, the run's own) or the last that trained."""
        return {*config["stages"], *read_json(self.root / "progress.json").get("stages", ())}

    def tokenizer(self) -> CharTokenizer:
        with as_config_errors(str(self.root)):
            return CharTokenizer.load(self.root / "vocabulary.json")

    def final_stage(self) -> str:
        """The last finished stage whose weights answer questions, else the last finished one."""
        for name in ("finetune", "finetune_only", "pretrain"):
            if self.stage(name).finished:
                return name
        raise ConfigError(f"{self.root} holds no finished stage: run its command again to go on, then ask again")

    def answering_stages(self) -> list[str]:
        """The finished stages whose answers are scored: finetuned ones, the control among them, or the last."""
        return [name for name in ("finetune_only", "finetune") if self.stage(name).finished] or [self.final_stage()]

    def is_scored(self) -> bool:
        """Whether all that answers was asked, judged and told: metrics.json says so of each stage at the very end."""
        if not any(self.stage(name).finished for name in STAGES):
            return False
        if "scored" not in (metrics := self.metrics()):  # of an earlier version, which wrote the card last
            return "rows" in metrics and (self.root / "knowledge.json").is_file()
        return not self.is_trained_further(metrics)

    def is_trained_further(self, metrics: Mapping[str, Any]) -> bool:
        """Whether other weights answer now than metrics.json tells of; earlier versions do not say."""
        scored = metrics.get("scored")
        return scored is not None and not set(self.answering_stages()) <= set(scored)

    def seconds_of_training(self) -> float:
        """Of all finished stages together, every session of them."""
        return sum(self.stage(name).facts().get("seconds", 0.0) for name in STAGES)

    def starting_weights(self) -> Path:
        """What another run starts from: the pretrained weights, or the last ones where there are none."""
        begin = self.stage("pretrain")
        return begin.weights if begin.finished else self.stage(self.final_stage()).weights

    def starting_weights_sha256(self) -> str:
        return sha256_of(self.starting_weights())

    def load_model(self, stage: str | None = None) -> Transformer:
        """The trained model of a stage (by default the one that answers), ready for evaluation.

        Raises ConfigError for a stage that is not finished, or is none.
        """
        if stage and not self.stage(stage).finished:
            finished = ", ".join(name for name in STAGES if self.stage(name).finished)
            raise ConfigError(f"{self.root} has no finished stage {stage!r}, but {finished or 'none at all'}")
        model = build_model(self.config(), len(self.tokenizer()))
        load_weights(self.stage(stage or self.final_stage()).weights, model)
        return model.eval()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, made if need be, for this process; RunInUseError when a live one holds it."""
        with run_lock.locked(self.root):
            yield

    def in_use(self) -> bool:
        """Whether a live process works in the folder; a look that keeps nobody out of it."""
        return run_lock.in_use(self.root)

    @contextmanager
    def errors_noted(self) -> Iterator[None]:
        """Write the traceback of an error to error.txt on its way out; a former one is gone once this begins."""
        note = self.root / "error.txt"
        note.unlink(missing_ok=True)
        try:
            yield
        except Exception:
            with suppress(OSError):  # on a full disk the error itself is what matters
                note.write_text(traceback.format_exc(), encoding="utf-8")
            raise

    def update_metrics(self, **metrics: Any) -> dict[str, Any]:
        merged = {**self.metrics(), **metrics}
        write_json(self.root / "metrics.json", merged)
        return merged

    def metrics(self) -> dict[str, Any]:
        return read_json(self.root / "metrics.json")

    def data_fingerprint(self) -> str:
        """What the data of the run's first session hashed to."""
        sessions = read_json(self.root / "provenance.json").get("sessions", [])
        return str(sessions[0]["data"]) if sessions else ""

    def record_provenance(self, data: str) -> None:
        """Add this session to the record: what ran, on what, from which commit."""
        record = read_json(self.root / "provenance.json") or {"sessions": []}
        record["sessions"].append(provenance(data))
        write_json(self.root / "provenance.json", record)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, {} when there is no such file; ConfigError where it holds something else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is damaged: it holds {type(found).__name__}, not an object")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Written beside and moved into place: a reader sees the old file or the new one."""
    replace_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
