"""What a search refuses before its first trial: questions it may not tune on, and values that cannot be run."""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from birthplace_lm.composing import ConfigError, check_whole
from birthplace_lm.runs import RunFolder
from birthplace_lm.search.space import Space, override
from birthplace_lm.teachers import may_know_answers


def check_search(search: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting of the search itself that is not of its kind."""
    check_whole("search.trials", search["trials"], 0)
    check_whole("search.failures", search["failures"], 1)  # so many trials in a row may fail
    for part in ("space", "fixed"):
        if not isinstance(search[part], Mapping):
            raise ConfigError(f"search.{part}={search[part]}: names of settings and what they are is needed, {{…: …}}")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError unless trials of these settings are asked about people that nothing is chosen on later."""
    if not settings["held_out_share"]:
        raise ConfigError(
            "held_out_share is 0, so the trials would be compared on dev, and what is chosen on dev says nothing any "
            "more when it is asked about dev. Add held_out_share=0.2: a fifth of the train people is asked instead"
        )
    if settings["name"]:
        raise ConfigError(
            f"name={settings['name']} would put all trials into one folder: leave it out, or say search.name"
        )
    if "evaluate" not in settings["stages"] or len(settings["stages"]) < 2:
        raise ConfigError(f"a trial trains and is then scored: stages={settings['stages']} lacks one of the two")
    if settings["trainer"]["devices"] not in (1, "1", "auto") or settings["trainer"].get("num_nodes", 1) != 1:
        raise ConfigError("each trial has one device: more of them are used by as many commands side by side")
    if settings["init_from"]:
        _check_source(RunFolder(settings["init_from"]), settings["held_out_share"])


def _check_source(source: RunFolder, share: float) -> None:
    """The weights to start from must not know the answers of the people who are held out here."""
    found = source.config()
    if may_know_answers(source) and found["held_out_share"] != share:
        raise ConfigError(
            f"{source.root} has learnt from questions with held_out_share={found['held_out_share']}: it knows answers "
            f"that held_out_share={share} asks for. Pretrain it with the same share, or without questions"
        )


def without_control(stages: Sequence[str]) -> list[str]:
    """The stages a trial needs: not the control beside the run, whose answers nobody compares."""
    return [stage for stage in stages if stage != "finetune_only" or "finetune" not in stages]


def rehearse(space: Space, prepare: Callable[[Sequence[str]], object]) -> None:
    """Prepare a run at the ends of all ranges and with every option; ConfigError with the values that cannot be run.

    `prepare` takes overrides and builds all parts of their run. All lower ends stand together, then all upper ends, so
    this takes as many preparations as the longest list of options is long, and two at least. What only some other
    combination forbids is found by the trial that meets it, which then fails alone.
    """
    columns = [[override(key, end) for end in choice.ends()] for key, choice in space.items()]
    for row in zip_longest(*columns):
        overrides = [given or column[-1] for given, column in zip(row, columns, strict=True)]
        try:
            prepare(overrides)
        except ConfigError as error:
            raise ConfigError(f"the search would try {' '.join(overrides)}, which cannot be run: {error}") from error
