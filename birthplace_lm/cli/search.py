"""birthplace-search: hyper-parameter search, composed by Hydra as birthplace-train is. Optuna comes with the extra."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from birthplace_lm.commits import hide_environment
from birthplace_lm.composing import ConfigError, as_config_errors, build, config_folder, plain, short_hash
from birthplace_lm.stopping import in_terminal, interruptible

if TYPE_CHECKING:
    from birthplace_lm.search.study import SharedStudy


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="search")
def _search(config: DictConfig) -> None:
    from birthplace_lm.cli.errors import in_plain_words

    hide_environment()
    task = list(HydraConfig.get().overrides.task)
    with in_plain_words():
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise ConfigError(
                "a search is its own sweep: leave --multirun out, start the command again for more workers"
            )
        _check_optuna()
        from birthplace_lm.process import set_up_process

        with set_up_process():  # before the rehearsal starts torch's threads, which keep what they begin with
            _run(plain(config.search), task)


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("birthplace-search needs Optuna 5: pip install 'birthplace-lm[search]'") from None


def _run(search: dict[str, Any], task: Sequence[str]) -> None:
    """Check everything, do what is left to do, show what there is: also after an interruption or too many failures."""
    from birthplace_lm.jobs import prepare
    from birthplace_lm.search.checks import check_search, check_settings, rehearse, without_control
    from birthplace_lm.search.space import override, read_space
    from birthplace_lm.search.trials import work

    check_search(search)
    own = [one for one in task if re.split("[=./@]", one.lstrip("+~"))[0] != "search"]
    given = [*(override(key, value) for key, value in search["fixed"].items()), *own]
    base, _ = _composed(given)
    check_settings(base)
    if (stages := without_control(base["stages"])) != base["stages"]:
        given.append(f"stages=[{','.join(stages)}]")
        base["stages"] = stages
    space = read_space(search["space"], base)
    job = prepare(*_composed(given))
    if search["trials"]:
        rehearse(space, lambda overrides: prepare(*_composed([*given, *overrides])))
    runs = Path(base["paths"]["runs"])
    study = _study(search, space, base, job.folder.name, runs)
    try:
        work(study, given, _composed, search["trials"], search["failures"])
    finally:
        with study.telling():
            _show(study, runs)


def _composed(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings that birthplace-train would have of these overrides, and the groups that they name."""
    from hydra.errors import HydraException

    from birthplace_lm.cli.train import choices_of

    try:
        config = compose("train", list(overrides), return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(str(error)) from error
    choices, chosen = choices_of(config.hydra)
    with open_dict(config):
        del config["hydra"]
    return {**plain(config), "choices": choices}, chosen


def _study(search: dict[str, Any], space: Any, base: dict[str, Any], run: str, runs: Path) -> "SharedStudy":
    """The study of this space over this run: another space, or other settings around it, is another study."""
    from birthplace_lm.search.space import value_of
    from birthplace_lm.search.study import SharedStudy, check_same_search

    choice = HydraConfig.get().runtime.choices["search"]
    name = str(search["name"] or "") or f"{choice}-{short_hash(run, search['space'])}"
    folder = (runs / ".search" / name).resolve()
    sampler, pruner = build(search["sampler"]), build(search["pruner"])
    with as_config_errors("search.sampler"):
        sampler(seed=0)
    check_same_search(folder, run, search["space"])
    return SharedStudy(
        folder,
        space,
        lambda number: sampler(seed=int(short_hash(search["seed"], number), 16)),
        pruner,
        first={key: value_of(key, base) for key in space},
    )


def _show(study: "SharedStudy", runs: Path) -> None:
    """The table, trials.csv and the pictures of a study as it stands."""
    from rich.console import Console

    from birthplace_lm.replacing import replace_file
    from birthplace_lm.search import pictures, table

    rows, keys = table.rows(study), list(study.space)
    title = f"search {study.folder.name}: exact match on held-out train people"
    print()
    Console(width=None if in_terminal() else 160, highlight=False).print(table.table(rows, keys, title))
    print(table.last_words(rows, runs))
    replace_file(study.folder / "trials.csv", table.as_csv(rows, keys))
    for sentence in pictures.draw(study, rows):
        print(sentence)
    print(f"trials.csv and pictures are in {study.folder}")


def main() -> None:
    """Compose the configuration from the command line and search."""
    with interruptible():
        _search()


if __name__ == "__main__":
    main()
