"""Groups, Muon against the SVD and torch's own, two optimizers as one."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from birthplace_lm.optimization import (
    Muon,
    MuonWithAdamW,
    adamw,
    decay_groups,
    is_bias,
    is_hidden_matrix,
    muon,
    orthogonalize,
)
from birthplace_lm.storage import load_tree, save_tree
from birthplace_lm.torch_optimizers import of_torch


class Tiny(nn.Module):
    """A model with every kind of parameter that the rules tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(8, 24), "norm": nn.LayerNorm(8)}) for _ in range(3))
        self.blocks[0].position_bias = nn.Parameter(torch.zeros(2, 5))
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)
        self.head = nn.Linear(24, 7, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        hidden = sum(block["up"](block["norm"](x)) for block in self.blocks)
        return self.head(hidden + self.blocks[0].position_bias.sum())


def loss_of(model: nn.Module, seed: int) -> Tensor:
    tokens = torch.randint(0, 7, (4, 6), generator=torch.Generator().manual_seed(seed))
    return nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# --------------------------------------------------------------------------------------------------------------- groups


def test_every_trainable_parameter_is_in_one_group_and_only_biases_are_spared() -> None:
    model = Tiny()
    decaying, spared = decay_groups(model, 0.3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decaying["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert {names[id(p)] for p in spared["params"]} == {
        "blocks.0.position_bias",
        *(f"blocks.{layer}.{part}.bias" for layer in range(3) for part in ("up", "norm")),
    }
    grouped = [id(p) for group in (decaying, spared) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_shared_parameter_counts_once_and_an_empty_group_is_left_out() -> None:
    model = nn.Module()
    model.one, model.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    model.two.weight = model.one.weight
    (group,) = decay_groups(model, 0.1)
    assert group["params"] == [model.one.weight]


@pytest.mark.parametrize("fused", [True, False])
def test_adamw_is_torchs_with_those_groups(fused: bool) -> None:
    torch.manual_seed(0)
    ours = Tiny()
    theirs = copy.deepcopy(ours)
    named = [(name, p) for name, p in theirs.named_parameters() if p.requires_grad]
    biases = [p for name, p in named if name.endswith(("bias",))]
    rest = [p for name, p in named if not name.endswith("bias")]
    groups = [{"params": rest}, {"params": biases, "weight_decay": 0.0}]
    train(ours, adamw(ours, 0.01, (0.9, 0.95), 0.1, fused=fused), range(5))
    train(theirs, torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1), range(5))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


# ----------------------------------------------------------------------------------------------------------------- Muon


def matrices(shape: tuple[int, int, int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25)
@given(
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-6, 1, 1e6]),
)
def test_orthogonalized_has_the_singular_vectors_of_the_input_and_values_near_one(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    u, _, vt = torch.linalg.svd(matrices((3, rows, columns), seed), full_matrices=False)
    values = torch.linspace(1.0, 0.05, min(rows, columns))
    x = u * values @ vt * scale
    # In the basis of the input's own singular vectors the result is diagonal.
    diagonal = u.mT @ orthogonalize(x) @ vt.mT
    on = diagonal.diagonal(dim1=-2, dim2=-1)
    assert on.min() > 0.6 and on.max() < 1.3
    torch.testing.assert_close(diagonal, torch.diag_embed(on), atol=5e-3, rtol=0)


def test_orthogonalized_points_along_u_vt_of_a_slow_svd() -> None:
    x = matrices((1, 32, 48), 0)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    assert nn.functional.cosine_similarity(orthogonalize(x).flatten(), (u @ vt).flatten(), dim=0) > 0.97


def test_a_batch_is_orthogonalized_as_its_matrices_one_by_one_and_zero_stays_zero() -> None:
    x = matrices((4, 6, 5), 1)
    x[2] = 0
    alone = torch.cat([orthogonalize(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(orthogonalize(x), alone)
    assert orthogonalize(x)[2].abs().max() == 0


@pytest.mark.parametrize(
    ("kind", "more"), [("SGD", {"momentum": 0.9}), ("Adagrad", {}), ("NAdam", {"betas": (0.8, 0.9)})]
)
def test_torchs_own_optimizers_spare_biases_too(kind: str, more: dict[str, Any]) -> None:
    model = Tiny()
    made = of_torch(model, kind, 0.1, 0.5, **more)
    assert type(made).__name__ == kind and [group["weight_decay"] for group in made.param_groups] == [0.5, 0.0]
    spared = {id(parameter) for parameter in made.param_groups[1]["params"]}
    assert spared == {
        id(parameter) for name, parameter in model.named_parameters() if is_bias(name) and parameter.requires_grad
    }
    assert all(made.defaults[key] == value for key, value in more.items())
    for none in ("Optimizer", "LBFGS", "SparseAdam"):
        with pytest.raises(ValueError, match=rf"torch has no optimizer {none} for this, but .*SGD"):
            of_torch(model, none, 0.1)
    with pytest.raises(ValueError, match=r"Rprop has no weight decay: 0\.1 would do nothing"):
        of_torch(model, "Rprop", 0.1, 0.1)


@pytest.mark.parametrize("weight_decay", [-0.1, float("nan"), float("inf")])
def test_no_weight_grows_by_itself(weight_decay: float) -> None:
    model = Tiny()
    makes = (
        lambda: adamw(model, 1e-3, (0.9, 0.95), weight_decay),
        lambda: muon(model, 0.02, 0.003, (0.9, 0.95), weight_decay),
        lambda: of_torch(model, "SGD", 0.1, weight_decay),
        lambda: Muon([model.blocks[0]["up"].weight], 0.02, weight_decay),
    )
    for make in makes:
        with pytest.raises(ValueError, match=f"weight_decay .*{weight_decay}"):
            make()
    for knobs in ({"lr": float("nan")}, {"lr": -1.0}, {"lr": 0.02, "ns_steps": 0}, {"lr": 0.02, "momentum": 1.0}):
        with pytest.raises(ValueError, match="use 0 or more, of momentum below 1, and 1 step or more"):
            Muon([model.blocks[0]["up"].weight], **knobs)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_muon_is_torchs(adjust_lr_fn: str, shape: tuple[int, int]) -> None:
    start = matrices((3, *shape), 2).unbind()
    ours, theirs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    options = {"lr": 0.05, "weight_decay": 0.2, "momentum": 0.9, "adjust_lr_fn": adjust_lr_fn}
    optimizers = Muon(ours, **options, compute_dtype="bfloat16"), torch.optim.Muon(theirs, **options)
    for step in range(4):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, matrices((3, *shape), 10 + step), strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert 0.01 * (a - before).norm() > (a - b).norm()  # bfloat16 has eight bits


def test_muon_moves_every_direction_equally_far_and_decays_apart_from_that() -> None:
    weight = nn.Parameter(torch.eye(4, 6))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    weight.grad = matrices((1, 4, 6), 3)[0]
    optimizer.step()
    moved = torch.linalg.svdvals(weight.detach() - 0.95 * torch.eye(4, 6))
    expected = 0.1 * 0.2 * math.sqrt(6)
    assert ((0.6 * expected < moved) & (moved < 1.3 * expected)).all()


def test_muon_refuses_what_is_no_matrix_and_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)
    with pytest.raises(ValueError, match=r"'other'.*original"):
        Muon([nn.Parameter(torch.zeros(3, 3))], lr=0.1, adjust_lr_fn="other")


# -------------------------------------------------------------------------------------------------------------- the two


def test_hidden_matrices_go_to_muon_and_all_the_rest_to_adamw() -> None:
    model = Tiny()
    optimizer = muon(model, 0.02, 0.003, (0.9, 0.95), 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    mine = [names[id(p)] for group in optimizer.muon.param_groups for p in group["params"]]
    assert mine == ["blocks.0.up.weight", "blocks.1.up.weight", "blocks.2.up.weight"]
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert rates == [(0.02, 0.1), (0.003, 0.1), (0.003, 0.0)]
    assert not is_hidden_matrix("embedding.weight", model.embedding.weight)
    with pytest.raises(ValueError, match="0 hidden matrices among"):
        muon(nn.ModuleDict({"model": model}), 0.02, 0.003, (0.9, 0.95), 0.1)


@pytest.mark.parametrize(
    ("betas", "weight_decay", "knobs"),
    [
        ((0.9, 0.95), 0.1, {}),
        # none of them at the value that it would have anyway
        ((0.8, 0.9), 0.3, {"momentum": 0.5, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"}),
    ],
)
def test_together_they_do_what_each_does_alone(
    betas: tuple[float, float], weight_decay: float, knobs: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    together = Tiny()
    alone = copy.deepcopy(together)
    train(together, muon(together, 0.02, 0.003, betas, weight_decay, **knobs), range(4))
    matrices_alone = [block["up"].weight for block in alone.blocks]
    one, two = decay_groups(alone, weight_decay)
    one["params"] = [p for p in one["params"] if all(p is not matrix for matrix in matrices_alone)]
    first = Muon(matrices_alone, 0.02, weight_decay, **knobs)
    second = torch.optim.AdamW([one, two], 0.003, betas, fused=True)
    for step in range(4):
        alone.zero_grad()
        loss_of(alone, step).backward()
        first.step()
        second.step()
    assert same(together, alone)


def test_a_scheduler_scales_every_groups_own_rate() -> None:
    optimizer = muon(Tiny(), 0.02, 0.003, (0.9, 0.95), 0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.0015, 0.0015]
    assert [g["lr"] for o in (optimizer.muon, optimizer.adamw) for g in o.param_groups] == [0.01, 0.0015, 0.0015]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_resumption_through_a_file_is_exact_to_the_bit(kind: str, tmp_path: Path) -> None:
    def build(model: nn.Module) -> torch.optim.Optimizer:
        if kind == "adamw":
            return adamw(model, 0.01, (0.9, 0.95), 0.1)
        return muon(model, 0.02, 0.003, (0.9, 0.95), 0.1)

    torch.manual_seed(0)
    straight = Tiny()
    optimizer = build(straight)
    train(straight, optimizer, range(3))
    save_tree(tmp_path / "half.ckpt", {"model": straight.state_dict(), "optimizer": optimizer.state_dict()})
    train(straight, optimizer, range(3, 6))

    resumed = Tiny()
    tree = load_tree(tmp_path / "half.ckpt")
    resumed.load_state_dict(tree["model"])
    optimizer = build(resumed)
    optimizer.load_state_dict(tree["optimizer"])
    # The rates too: a scheduler made after loading has to reach the groups that are stepped.
    train(resumed, optimizer, range(3, 6))
    assert same(straight, resumed)
    if isinstance(optimizer, MuonWithAdamW):
        optimizer.param_groups[0]["lr"] = 123.0
        assert optimizer.muon.param_groups[0]["lr"] == 123.0
        assert optimizer.muon.state is optimizer.state is optimizer.adamw.state


def test_a_group_that_would_never_learn_is_refused() -> None:
    """Unfreezing callbacks add one; it would belong to neither of the two."""
    model = Tiny()
    optimizer = muon(model, 0.02, 3e-3, (0.9, 0.95), 0.1)
    assert isinstance(optimizer, MuonWithAdamW)
    with pytest.raises(ValueError, match="a group of 1 parameters"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_lightning_steps_and_clips(kind: str, precision: str) -> None:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Tiny()
            self.losses: list[float] = []
            self.norms: list[float] = []

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = loss_of(self.model, 0)
            self.losses.append(loss.item())
            return loss

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            gradients = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
            self.norms.append(torch.cat(gradients).norm().item())

        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:  # type: ignore[no-untyped-def]
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            self.on_before_optimizer_step(optimizer)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            if kind == "adamw":
                return adamw(self.model, 0.01, (0.9, 0.95), 0.1)
            return muon(self.model, 0.02, 0.003, (0.9, 0.95), 0.1)

    torch.manual_seed(0)
    module = Module()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=8,
        precision=precision,
        gradient_clip_val=0.1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, [torch.zeros(1)] * 8)
    assert len(module.losses) == trainer.global_step == 8  # the closure ran once a step
    assert module.losses[-1] < 0.9 * module.losses[0]
    assert max(module.norms[1::2]) < 0.1001 < min(module.norms[0::2])


def test_a_dtype_that_muon_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="compute_dtype: got 'float8', know bfloat16"):
        Muon([nn.Parameter(torch.zeros(2, 2))], lr=0.1, compute_dtype="float8")
