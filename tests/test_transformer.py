"""The model: its published size, its first loss, and that it can learn."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from birthplace_lm.composing import build
from birthplace_lm.transformer import GeluMLP, ReluSquared, ReluSquaredMLP, in_mode
from tests.helpers import VARIANTS, option, roughened, tiny


@pytest.mark.parametrize(("attention", "parameters"), [("vanilla", 3_323_392), ("synthesizer", 3_076_988)])
def test_the_reference_models_have_the_published_number_of_parameters(attention: str, parameters: int) -> None:
    node, parts = option("model", "cs224n"), {"attention": option("attention", attention)}
    parts["positions"] = option("positions", "learned")
    model = build(node, vocabulary_size=256, **{key: build(value) for key, value in parts.items()})()
    assert model.n_parameters() == parameters


@pytest.mark.parametrize("attention", VARIANTS)
def test_the_first_loss_is_that_of_guessing(attention: str) -> None:
    model = tiny(attention, vocabulary_size=256, d_model=64, block_size=128).eval()
    tokens = torch.randint(0, 256, (16, 101))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(256), rel=0.01)


@pytest.mark.parametrize("attention", VARIANTS)
def test_four_examples_are_learned_by_heart(attention: str) -> None:
    model = tiny(attention, d_model=32)
    tokens = torch.randint(0, 20, (4, 20), generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5  # the first character of each is a guess between four: ln 4 / 19 = 0.07 is the floor


@pytest.mark.parametrize("mlp", [GeluMLP, ReluSquaredMLP])
@pytest.mark.parametrize("expansion", [0, -1])
def test_an_mlp_without_hidden_units_is_refused(mlp: Any, expansion: int) -> None:
    with pytest.raises(ValueError, match=f"an MLP {expansion} times as wide as the model"):
        mlp(8, expansion)


def test_zero_initialised_outputs_make_every_block_an_identity() -> None:
    model = tiny(zero_init_outputs=True).eval()
    x = torch.randn(2, 5, 16)
    for block in model.blocks:
        assert torch.equal(block(x), x)


def test_relu_squared_and_its_gradient_are_those_of_the_two_functions() -> None:
    x, upstream = torch.randn(3, 40, dtype=torch.float64), torch.randn(3, 40, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ReluSquared()(ours), F.relu(theirs).square()
    out.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(out, expected) and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-15, atol=0)


@pytest.mark.parametrize("mlp", ["GeluMLP", "ReluSquaredMLP"])
@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_mlps_and_norms_can_be_combined(mlp: str, norm: str) -> None:
    module = "birthplace_lm.transformer"
    parts = {key: {"_target_": f"{module}.{name}", "_partial_": True} for key, name in (("mlp", mlp), ("norm", norm))}
    assert tiny(**parts)(torch.zeros(1, 3, dtype=torch.long)).isfinite().all()


def test_every_module_has_its_mode_back_whatever_happened() -> None:
    model = tiny().train()
    model.blocks[0].eval()  # one part held still
    modes = [module.training for module in model.modules()]
    for training in (False, True):
        with pytest.raises(KeyError), in_mode(model, training):
            assert {module.training for module in model.modules()} == {training}
            raise KeyError
        assert [module.training for module in model.modules()] == modes


def test_what_is_read_and_what_every_branch_adds_is_dropped() -> None:
    """One place of dropout at a time: the characters as they are read, and both branches of each block."""
    model = tiny(dropout=0.5).train()
    calls: list[torch.Tensor] = []
    places = [model.dropout, *(block.dropout for block in model.blocks)]
    for place in places:
        place.register_forward_hook(lambda _, inputs, output: calls.append((output == 0).float().mean()))
    model(torch.arange(20)[None].expand(64, -1))
    assert len(calls) == 1 + 2 * len(model.blocks) and all(0.4 < share < 0.6 for share in calls)


def test_dropout_must_be_a_share() -> None:
    with pytest.raises(Exception, match=r"dropout is a share in \[0, 1\), to the nearest 1/65,536, not 1.5"):
        tiny(dropout=1.5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("last", [1, 3])
def test_what_follows_the_last_positions_alone_is_the_same(variant: str, last: int) -> None:
    """Also with a cache, which the positions that nobody asked for are in as well."""
    model = roughened(tiny(variant)).double().eval()
    tokens = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(0))
    whole = model(tokens)
    torch.testing.assert_close(model(tokens, last=last), whole[:, -last:], rtol=1e-10, atol=1e-12)
    cache = model.new_cache()
    torch.testing.assert_close(model(tokens[:, :5], cache, 0, last), whole[:, 5 - last : 5], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model(tokens[:, 5:], cache, 5), whole[:, 5:], rtol=1e-10, atol=1e-12)
