"""A run's seed reaches all that is drawn in it, each thing by itself: else its seeds would agree too well."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from birthplace_lm import lightning_modules
from birthplace_lm.batches import step_seed
from birthplace_lm.jobs import Job, prepare
from birthplace_lm.lightning_modules import PretrainModule
from birthplace_lm.stages import run
from tests.test_configs import composed, settings
from tests.test_lightning_modules import fit, learner, pretraining
from tests.test_stages import TINY


def job(seed: int) -> Job:
    named = {**settings(*TINY, f"seed={seed}"), "choices": {"attention": "vanilla"}}
    return prepare(named, ())


def test_weights_order_corruption_and_questions_follow_from_the_seed() -> None:
    one, same, other = job(0), job(0), job(1)
    weights = [drawn.model().head.weight for drawn in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    for stage in ("pretrain", "finetune"):
        orders = [[index.tolist() for _, index in drawn.data(stage).plan.batches()] for drawn in (one, same, other)]
        assert orders[0] == orders[1] != orders[2]
    mixtures: list[Any] = [drawn.data("pretrain") for drawn in (one, same, other)]
    places = torch.arange(mixtures[0].mixture.sizes[0] - mixtures[0].mixture.n_documents)
    asked = [[data.mixture.questions(epoch, places).tolist() for epoch in range(3)] for data in mixtures]
    assert asked[0] == asked[1] != asked[2]
    spans = [data.parts(0, torch.arange(8))[0].pieces for data in mixtures]
    assert torch.equal(spans[0].starts, spans[1].starts) and not torch.equal(spans[0].starts, spans[2].starts)


def test_what_is_drawn_while_it_learns_follows_from_the_seed(tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {"pretrain": [], "finetune": []}

    class Watches(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
            seen["pretrain" if isinstance(module, PretrainModule) else "finetune"].append(module.seed)

    for seed in (0, 3):
        config = composed(*TINY, f"paths.runs={tmp_path}", "stages=[pretrain,finetune]", f"seed={seed}")
        run(config, {"attention": "vanilla"}, callbacks=[Watches()])
    assert seen == {"pretrain": [0, 3], "finetune": [0, 3]}


@pytest.mark.parametrize(("seed", "rank"), [(0, 0), (5, 0), (5, 1)])
def test_every_step_of_every_seed_and_rank_draws_dropout_anew(
    seed: int, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(lightning_modules, "_seed", lambda number, device: drawn.append(number))
    monkeypatch.setattr(PretrainModule, "global_rank", rank)
    module = learner()
    module.seed = seed
    fit(module, pretraining(), 3)
    assert drawn == [step_seed(seed, step, rank) for step in range(3)] and len(set(drawn)) == 3
