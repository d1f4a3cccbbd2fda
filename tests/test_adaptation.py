"""What learns and what stays while a model is finetuned, and that nothing but plain weights is left of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW, Optimizer

from birthplace_lm.adaptation import PARTS, merged, n_learning, part_of
from birthplace_lm.adaptation.low_rank import low_rank
from birthplace_lm.adaptation.some_parts import some_parts
from birthplace_lm.composing import ConfigError, build
from birthplace_lm.identity import run_name
from birthplace_lm.jobs import prepare
from birthplace_lm.optimization import Muon, MuonWithAdamW, adamw, muon
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.transformer import Transformer
from birthplace_lm.world import World
from tests.helpers import VARIANTS, fits, roughened, tiny
from tests.test_configs import settings
from tests.test_stages import stop_at, tiny_run

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adamw": lambda model: adamw(model, 0.01, (0.9, 0.95), 0.1),
    "muon": lambda model: muon(model, 0.02, 0.01, (0.9, 0.95), 0.1),
}
TOKENS = torch.arange(40).reshape(2, 20) % 17


def option(name: str, **changes: Any) -> Callable[[Transformer], None]:
    """An adaptation as the command line chooses it."""
    return build({**settings(f"adaptation@finetune.adaptation={name}")["finetune"]["adaptation"], **changes})


def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(TOKENS[:, :-1]).flatten(0, 1), TOKENS[:, 1:].flatten())


def train(model: nn.Module, optimizer: Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def learned(change: Callable[[Transformer], None], optimizer: str) -> tuple[set[str], Optimizer]:
    """Which of a model's own parameters are others after training, and the optimizer that trained them."""
    model = roughened(tiny(n_layers=3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    change(model)
    made = OPTIMIZERS[optimizer](model)
    train(model, made)
    after = merged(model).state_dict()
    assert after.keys() == before.keys() and all(parameter.requires_grad for parameter in model.parameters())
    return {name for name, value in before.items() if not torch.equal(value, after[name])}, made


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("last_layers", {}, ("blocks.2.", "norm.", "head.")),
        ("last_layers", {"last_layers": 2}, ("blocks.1.", "blocks.2.", "norm.", "head.")),
        ("attention", {}, tuple(f"blocks.{i}.attention{rest}" for i in range(3) for rest in (".", "_norm."))),
        ("mlp", {"last_layers": 1}, ("blocks.2.mlp.", "blocks.2.mlp_norm.")),
        ("head", {}, ("norm.", "head.")),
        ("head", {"parts": ["embeddings"]}, ("characters.", "positions.")),
        ("lora", {}, tuple(f"blocks.{i}.{part}." for i in range(3) for part in ("attention", "mlp"))),
        ("lora", {"parts": ["mlp"]}, tuple(f"blocks.{i}.mlp." for i in range(3))),
    ],
)
def test_what_was_chosen_learns_and_nothing_else_moves(
    name: str, changes: dict[str, Any], expected: tuple[str, ...], optimizer: str
) -> None:
    moved, made = learned(option(name, **changes), optimizer)
    wanted = {key for key in tiny(n_layers=3).state_dict() if key.startswith(expected)}
    if name == "lora":
        wanted = {key for key in wanted if key.endswith(".weight")}
    assert moved == wanted
    state = {id(parameter) for parameter in made.state}
    groups = [parameter for group in made.param_groups for parameter in group["params"]]
    assert state == {id(parameter) for parameter in groups} and len(state) == len(groups)
    assert len(groups) == (2 * len(wanted) if name == "lora" else len(wanted))


def test_every_parameter_of_every_variant_belongs_to_a_part() -> None:
    for variant in VARIANTS:
        model = tiny(variant, "learned" if fits(variant, "learned") else "none")
        found = {part_of(name) for name, _ in model.named_parameters()}
        assert found == set(PARTS)
        assert all("attention" in name for name, _ in model.named_parameters() if part_of(name) == "attention")


@pytest.mark.parametrize("variant", VARIANTS)
def test_additions_of_low_rank_start_as_nothing_and_merge_into_the_function_that_was_trained(variant: str) -> None:
    model = roughened(tiny(variant)).eval()
    before, weights = model(TOKENS), {name: value.clone() for name, value in model.state_dict().items()}
    low_rank(model, rank=3, alpha=6.0)
    assert torch.allclose(model(TOKENS), before, atol=1e-6)
    additions = {name: value for name, value in model.named_parameters() if value.requires_grad}
    train(model, OPTIMIZERS["adamw"](model))
    trained = model(TOKENS)
    expected = dict(weights)
    for name, a in ((name, value.detach()) for name, value in additions.items() if name.endswith(".a")):
        b = additions[name[:-1] + "b"].detach()
        place = name.replace("parametrizations.", "").removesuffix(".0.a")
        expected[place] = weights[place] + torch.from_numpy(6.0 / 3 * np.dot(b.numpy(), a.numpy()))
        assert torch.linalg.matrix_rank(expected[place] - weights[place], atol=1e-5) <= 3
    found = merged(model).state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in expected.items())
    assert not torch.allclose(trained, before, atol=1e-2)
    assert torch.allclose(model(TOKENS), trained, atol=1e-5)


def test_gradients_of_the_additions_are_those_of_the_chain_rule() -> None:
    model = roughened(tiny()).double()
    low_rank(model, rank=2, alpha=3.0, parts=["mlp"])
    addition = model.blocks[1].mlp[0].parametrizations.weight[0]
    nn.init.normal_(addition.b)
    loss_of(model).backward()
    a, b = addition.a.detach(), addition.b.detach()
    plain = merged(roughened(tiny()).double())
    plain.load_state_dict(merged(model).state_dict())
    loss_of(plain).backward()
    whole = plain.blocks[1].mlp[0].weight.grad
    assert torch.allclose(addition.a.grad, 1.5 * b.T @ whole) and torch.allclose(addition.b.grad, 1.5 * whole @ a.T)
    assert addition.a.grad.abs().max() > 0


def test_what_is_added_to_begins_gaussian_with_the_size_of_its_input() -> None:
    model = tiny(d_model=64, n_layers=4)
    low_rank(model, rank=32, alpha=1.0)
    for block in model.blocks:
        for module in (block.attention.query_key_value, block.mlp[2]):
            a = module.parametrizations.weight[0].a.detach()
            assert a.std() * a.shape[1] ** 0.5 == pytest.approx(1, abs=0.1)


def test_muon_takes_what_learns_and_needs_not_both_halves() -> None:
    model, kinds = tiny(), {}
    for name in ("lora", "head", "last_layers"):
        model = tiny()
        option(name)(model)
        kinds[name] = type(OPTIMIZERS["muon"](model))
    assert kinds == {"lora": Muon, "head": AdamW, "last_layers": MuonWithAdamW}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora finetune.adaptation.rank=0", r"rank is 0, but blocks.0.attention.query_key_value.* choose 1 … 16"),
        ("lora finetune.adaptation.rank=17", r"rank is 17, but .* is a matrix of 48 x 16: choose 1 … 16"),
        ("lora finetune.adaptation.alpha=0", "alpha is 0: .* above 0"),
        ("lora finetune.adaptation.parts=[head]", r"one or more of attention, mlp, each once, not \['head'\]"),
        ("last_layers finetune.adaptation.last_layers=3", r"last_layers is 3, the model has 2 layers: choose 1 … 2"),
        ("last_layers finetune.adaptation.last_layers=0", r"last_layers is 0, the model has 2 layers"),
        ("head finetune.adaptation.last_layers=1", "last_layers 1 means attention and mlp, but parts has only head"),
        ("head finetune.adaptation.parts=[]", r"one or more of embeddings, attention, mlp, head, each once, not \[\]"),
        ("head finetune.adaptation.parts=[heads]", r"not \['heads'\]"),
    ],
)
def test_what_cannot_be_adapted_is_said_before_training(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"finetune\.adaptation: .*{message}"):
        tiny_run(tmp_path, *f"adaptation@finetune.adaptation={override}".split())
    assert not list(tmp_path.glob("*/pretrain"))


def test_a_part_without_parameters_is_an_error_with_the_count() -> None:
    model = tiny()
    for block in model.blocks:
        block.mlp, block.mlp_norm = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=rf"of {model.n_parameters():,} parameters none is in mlp"):
        some_parts(model, ["mlp"])
    with pytest.raises(ValueError, match="no linear map in mlp"):
        low_rank(model, 1, 1.0, ["mlp"])


@pytest.mark.parametrize("adaptation", ["lora", "last_layers"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_keeps_the_plain_model_and_resumes_to_the_same_bits(
    adaptation: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (
        "stages=[finetune,evaluate]", f"adaptation@finetune.adaptation={adaptation}",
        "averaging@finetune.averaging=ema", f"optimizer@finetune.optimizer={optimizer}",
    )  # fmt: skip
    folder = tiny_run(tmp_path / "whole", *overrides)
    said = capsys.readouterr().out
    facts, model = folder.stage("finetune").facts(), folder.load_model()
    # lora: 8·(16 + 48 + 16 + 16 + 2·(16 + 64)) a layer; last layer: attention 4·16·17, mlp 2·16·64, norms, the head
    n_characters = len(folder.tokenizer())
    expected = {"lora": 2 * 8 * 256, "last_layers": 4 * 16 * 17 + 2 * 16 * 64 + 3 * 32 + 16 * n_characters}[adaptation]
    assert facts["trained_parameters"] == expected == folder.metrics()["finetune_trained_parameters"]
    total = model.n_parameters() + (expected if adaptation == "lora" else 0)
    assert f"finetune: {expected:,} of {total:,} parameters learn" in said
    stop_at(monkeypatch, 5)
    with pytest.raises(UnfinishedError):
        tiny_run(tmp_path / "again", *overrides)
    monkeypatch.undo()
    again = tiny_run(tmp_path / "again", *overrides)
    assert "finetune: going on from step_00000005.ckpt" in capsys.readouterr().out
    assert again.stage("finetune").weights.read_bytes() == folder.stage("finetune").weights.read_bytes()
    assert (again.root / "predictions/dev.jsonl").read_text() == (folder.root / "predictions/dev.jsonl").read_text()


def test_a_run_in_which_everything_learns_keeps_the_name_it_had_before_there_was_a_choice() -> None:
    corpus, now = World(people=20).corpus(), settings("experiment=demo")
    before = {**now, **{stage: dict(now[stage]) for stage in ("finetune", "finetune_only")}}
    for stage in ("finetune", "finetune_only"):
        del before[stage]["adaptation"]
    other = settings("experiment=demo", "adaptation@finetune.adaptation=lora")
    assert run_name(now, corpus) == run_name(before, corpus) != run_name(other, corpus)


def test_additions_follow_from_the_seed_of_the_run() -> None:
    drawn = []
    for seed in (0, 0, 1):
        overrides = ("adaptation@finetune.adaptation=lora", f"seed={seed}", "model=small", "data.people=20")
        job = prepare(settings(*overrides), ())
        model = job.model()
        torch.rand(len(drawn))  # whatever else was drawn before
        drawn.append(job.adapted("finetune", model).blocks[0].mlp[0].parametrizations.weight[0].a.detach())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_all_of_a_model_learns_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    assert n_learning(model) == model.n_parameters()
    folder = tiny_run(tmp_path, "stages=[finetune]")
    count = folder.load_model().n_parameters()
    assert f"finetune: all {count:,} parameters learn" in capsys.readouterr().out
    assert folder.stage("finetune").facts()["trained_parameters"] == count
