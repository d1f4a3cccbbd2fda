"""What tells one run from another: the settings and data that its result depends on, and the name made of them."""

import re
from collections.abc import Mapping
from typing import Any

from birthplace_lm.composing import short_hash
from birthplace_lm.corpus import Corpus
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.wordings import QUESTION

_NOT_OF_THE_RUN = (
    "paths", "logger", "wandb", "callbacks", "checkpoint", "choices", "name", "threads", "stages", "ask_at_most",
)  # fmt: skip
_NOT_OF_THE_TRAINER = ("num_nodes", "default_root_dir", "profiler", "max_time")
# What the trainer shows on the way changes no weight; these are the values that every trainer begins with.
_SHOWN = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
# Settings that came after the first runs, and what holds where they are not set: with that a run is the one it was.
_ADDED: dict[str, dict[str, Any]] = {
    "data": {"names": "unicode"},
    "pretrain": {"question_wordings": [QUESTION], "document_prefix": "", "distillation": {}, "self_training": {}},
    "finetune": {"adaptation": {}},
    "finetune_only": {"adaptation": {}},
}


def run_name(settings: Mapping[str, Any], corpus: Corpus) -> str:
    """experiment-attention-positions-s<seed>-<hash of everything that the result depends on>."""
    if settings["name"]:
        return str(settings["name"])
    choices = settings["choices"]
    words = [choices.get("experiment") or "run", choices.get("attention", "own"), choices.get("positions", "own")]
    words = [re.sub(r"[^\w.+-]", "_", str(word)) for word in words]  # some may come from a run that is started from
    return "-".join([*words, f"s{settings['seed']}", short_hash(of_the_run(settings), sha256_of_corpus(corpus))])


def of_the_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a result depends on. Which stages are asked for is not among them: they can be added.

    Callbacks of this package only watch, so they are not among them either; those of others may change the weights.
    Of the trainer's settings the number of processes is not among them either: they share a batch whose size is the
    recipe's, so a run may go on with more of them or fewer. What the arithmetic is done in and on (precision,
    accelerator) is.
    """
    of_run = {
        key: _as_first(key, value) for key, value in without_places(settings).items() if key not in _NOT_OF_THE_RUN
    }
    trainer = {key: value for key, value in of_run.get("trainer", {}).items() if key not in _NOT_OF_THE_TRAINER}
    callbacks = {name: node for name, node in (settings.get("callbacks") or {}).items() if not _watches(node)}
    return {**of_run, "trainer": {**trainer, **_SHOWN, "devices": 1}, **({"callbacks": callbacks} if callbacks else {})}


def _watches(callback: Any) -> bool:
    return not callback or str(callback.get("_target_")).startswith("birthplace_lm.callbacks.")


def _as_first(group: str, value: Any) -> Any:
    """The settings of a group without those that came later and change nothing."""
    added = _ADDED.get(group, {})
    return {k: v for k, v in value.items() if k not in added or v != added[k]} if added else value


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that say where something lies on this machine."""
    data = {key: None if key == "dir" else value for key, value in settings["data"].items() if key != "cache"}
    return {**{key: value for key, value in settings.items() if key != "paths"}, "data": data}
