"""Every attention in configs/attention, with every position that it takes: the same properties."""

import math

import pytest
import torch
from torch import Tensor, nn

from birthplace_lm.attention.synthesizer import SynthesizerAttention
from birthplace_lm.attention.vanilla import VanillaAttention
from birthplace_lm.positions.rotary import RotaryPositions
from tests.helpers import PAIRS, VARIANTS, roughened, tiny

every_pair = pytest.mark.parametrize(("attention", "positions"), PAIRS)
every_variant = pytest.mark.parametrize("attention", VARIANTS)


def tokens(length: int, rows: int = 3, seed: int = 1) -> Tensor:
    return torch.randint(0, 20, (rows, length), generator=torch.Generator().manual_seed(seed))


@every_pair
def test_it_keeps_the_shape_for_any_length(attention: str, positions: str) -> None:
    model = tiny(attention, positions)
    for length in (1, 2, model.max_length):
        assert model(tokens(length)).shape == (3, length, 20)


@every_pair
def test_no_output_depends_on_a_later_character(attention: str, positions: str) -> None:
    model = roughened(tiny(attention, positions)).double().eval()
    x = tokens(model.max_length)
    before = model(x)
    for at in (1, 7, model.max_length - 1):
        changed = x.clone()
        changed[:, at:] = (changed[:, at:] + 5) % 20
        after = model(changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at], after[:, at])


@every_pair
def test_a_late_output_does_depend_on_an_early_character(attention: str, positions: str) -> None:
    model = roughened(tiny(attention, positions)).double().eval()
    x = tokens(12)
    changed = x.clone()
    changed[:, 0] = (changed[:, 0] + 5) % 20
    assert not torch.allclose(model(x)[:, -1], model(changed)[:, -1])


@every_pair
@pytest.mark.parametrize("cuts", [[1] * 20, [5, 1, 1, 8, 5], [20]])
def test_decoding_with_a_cache_is_decoding_without(attention: str, positions: str, cuts: list[int]) -> None:
    model = roughened(tiny(attention, positions)).double().eval()
    x, cache, begin, outputs = tokens(20), model.new_cache(), 0, []
    for cut in cuts:
        outputs.append(model(x[:, begin : begin + cut], cache, begin))
        begin += cut
    torch.testing.assert_close(torch.cat(outputs, 1), model(x), rtol=1e-12, atol=1e-12)


@every_variant
def test_every_parameter_learns(attention: str) -> None:
    model = roughened(tiny(attention))
    model(tokens(model.max_length)).square().sum().backward()
    positions = {"positions.weight"}  # rows beyond the longest sequence rest
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        if name not in positions and "bias" not in name and parameter.ndim == 2 and "blocks" in name:
            assert (parameter.grad != 0).float().mean() > 0.5, name


@every_variant
def test_layers_share_no_parameter(attention: str) -> None:
    model = tiny(attention, n_layers=3)
    pointers = [parameter.data_ptr() for block in model.blocks for parameter in block.parameters()]
    assert len(pointers) == len(set(pointers)) == 3 * len(list(model.blocks[0].parameters()))
    modules = [id(module) for module in model.modules()]
    assert len(modules) == len(set(modules))


@every_variant
def test_the_state_holds_parameters_only(attention: str) -> None:
    model = tiny(attention)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@every_variant
def test_dropout_acts_in_training_and_rests_in_evaluation(attention: str) -> None:
    model = roughened(tiny(attention, dropout=0.5))
    x = tokens(10)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@every_variant
def test_it_is_finite_in_bfloat16(attention: str) -> None:
    model = roughened(tiny(attention))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens(model.max_length))
    logits.float().sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_variant
def test_heads_that_do_not_divide_the_width_are_refused(attention: str) -> None:
    with pytest.raises(Exception, match="3 heads do not divide the width 16"):
        tiny(attention, n_heads=3)


@every_variant
def test_a_sequence_longer_than_the_block_is_refused(attention: str) -> None:
    model = tiny(attention)
    with pytest.raises(ValueError, match=f"{model.max_length + 1} characters, but this model sees at most"):
        model(tokens(model.max_length + 1))


# ---------------------------------------------------------------------------- against slow versions from the equations


def linear(layer: nn.Linear, x: list[float]) -> list[float]:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def attend(
    weights: list[list[list[float]]], values: list[list[float]], output: nn.Linear, width: int
) -> list[list[float]]:
    """weights[h][i][j] over values[j], a head's slice each."""
    rows = []
    for i in range(len(values)):
        mixed = []
        for h, head in enumerate(weights):
            for k in range(h * width, (h + 1) * width):
                mixed.append(sum(head[i][j] * values[j][k] for j in range(i + 1)))
        rows.append(linear(output, mixed))
    return rows


def slow_vanilla(module: VanillaAttention, x: list[list[float]], theta: float | None) -> list[list[float]]:
    """softmax(QKᵀ/√K)V in loops over heads, positions and coordinates; with theta, q and k turn as complex numbers."""
    d = len(x[0])
    width = d // module.n_heads
    projected = [linear(module.query_key_value, row) for row in x]
    q, k, v = ([row[part * d : (part + 1) * d] for row in projected] for part in range(3))

    def turned(vector: list[float], position: int) -> list[float]:
        if theta is None:
            return vector
        half = width // 2
        out = [0.0] * width
        for pair in range(half):
            z = complex(vector[pair], vector[pair + half])
            z *= complex(math.cos(angle := position * theta ** (-2 * pair / width)), math.sin(angle))
            out[pair], out[pair + half] = z.real, z.imag
        return out

    weights = []
    for h in range(module.n_heads):
        part = slice(h * width, (h + 1) * width)
        rows = []
        for i in range(len(x)):
            query = turned(q[i][part], i)
            scores = [
                sum(a * b for a, b in zip(query, turned(k[j][part], j), strict=True)) / math.sqrt(width)
                for j in range(i + 1)
            ]
            rows.append(softmax(scores))
        weights.append(rows)
    return attend(weights, v, module.output, width)


def slow_synthesizer(module: SynthesizerAttention, x: list[list[float]]) -> list[list[float]]:
    """softmax(ReLU(xA + b₁)B + b₂)V, position by position."""
    width = len(x[0]) // module.n_heads
    hidden = [[max(value, 0.0) for value in linear(module.hidden, row)] for row in x]
    table, bias = module.scores.tolist(), module.scores_bias.tolist()
    weights = [
        [
            softmax([sum(hidden[i][h * width + k] * table[k][j] for k in range(width)) + bias[j] for j in range(i + 1)])
            for i in range(len(x))
        ]
        for h in range(module.n_heads)
    ]
    return attend(weights, [linear(module.value, row) for row in x], module.output, width)


@pytest.mark.parametrize(("positions", "theta"), [("learned", None), ("rotary", 10_000.0)])
def test_vanilla_is_its_equation(positions: str, theta: float | None) -> None:
    module = roughened(tiny("vanilla", positions)).double().eval().blocks[0].attention
    assert isinstance(module, VanillaAttention)
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    expected = torch.tensor(slow_vanilla(module, x[0].tolist(), theta), dtype=torch.float64)
    # angles are computed in float32, values in float64
    torch.testing.assert_close(module(x)[0], expected, rtol=1e-6 if theta else 1e-12, atol=1e-6 if theta else 1e-12)


def test_the_synthesizer_is_its_equation() -> None:
    module = roughened(tiny("synthesizer")).double().eval().blocks[0].attention
    assert isinstance(module, SynthesizerAttention)
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    expected = torch.tensor(slow_synthesizer(module, x[0].tolist()), dtype=torch.float64)
    torch.testing.assert_close(module(x)[0], expected, rtol=1e-12, atol=1e-12)


def test_the_synthesizers_weights_ignore_what_stands_elsewhere() -> None:
    """SPEC 6: changing the content at j changes the output at i only through the value there, linearly."""
    module = roughened(tiny("synthesizer")).double().eval().blocks[0].attention
    x = torch.randn(1, 8, 16, dtype=torch.float64)
    step = torch.zeros_like(x)
    step[0, 2] = torch.randn(16, dtype=torch.float64)
    once, twice = module(x + step)[0, -1] - module(x)[0, -1], module(x + 2 * step)[0, -1] - module(x)[0, -1]
    torch.testing.assert_close(twice, 2 * once)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    rotary = RotaryPositions(64, 16, 2)
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = [float((rotary.rotate(q, at) * rotary.rotate(k, at - 5)).sum()) for at in (5, 17, 60)]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)


def test_rotary_positions_need_scores_to_act_on() -> None:
    with pytest.raises(Exception, match="RotaryPositions acts on query-key scores"):
        tiny("synthesizer", "rotary")


def test_qk_norm_makes_scores_blind_to_the_size_of_queries() -> None:
    torch.manual_seed(0)
    module = VanillaAttention(16, 2, 24, 0.0, RotaryPositions(24, 16, 2), qk_norm=True).double()
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    with torch.no_grad():
        before = module(x)
        module.query_key_value.weight[:32] *= 3
        module.query_key_value.bias[:32] *= 3
    torch.testing.assert_close(module(x), before, rtol=1e-5, atol=1e-6)
