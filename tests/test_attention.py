"""Every attention in configs/attention, with every position that it takes: the same properties."""

import itertools
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_object
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from birthplace_lm.architecture import build_model, with_layers
from birthplace_lm.attention import fused, perceiver, scored
from birthplace_lm.attention.causal_sums import causal_sums
from birthplace_lm.attention.differential import DifferentialWeights
from birthplace_lm.attention.synthesizer import SynthesizerAttention
from birthplace_lm.attention.talking_heads import TalkingWeights
from birthplace_lm.attention.vanilla import VanillaAttention
from birthplace_lm.attention_maps import listening
from birthplace_lm.composing import ConfigError, build
from birthplace_lm.dropout import Dropout
from birthplace_lm.gradients import gradient_of_sum
from birthplace_lm.positions.alibi import AlibiPositions
from birthplace_lm.positions.none import NoPositions
from birthplace_lm.positions.rotary import RotaryPositions
from birthplace_lm.positions.sinusoidal import SinusoidalPositions
from birthplace_lm.runs import RunFolder, write_json
from birthplace_lm.storage import save_weights
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer
from tests.helpers import PAIRS, POSITIONS, VARIANTS, fits, option, roughened, tiny

HAVE_WEIGHTS = ("VanillaAttention", "SynthesizerAttention", "AdditiveAttention", "TalkingHeadsAttention")
every_pair = pytest.mark.parametrize(("attention", "positions"), PAIRS)
every_variant = pytest.mark.parametrize("attention", VARIANTS)


def tokens(length: int, rows: int = 3, seed: int = 1) -> Tensor:
    return torch.randint(0, 20, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[0, fused._FEW], ids=["fused", "as a matrix"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Few new positions by the fused kernel, as many of them and as on a GPU, and as on a processor."""
    monkeypatch.setattr(fused, "_FEW", request.param)
    if request.param == 0:
        monkeypatch.setattr(scored, "LONG", 0)
    assert isinstance(request.param, int)
    return request.param


@every_pair
def test_it_keeps_the_shape_for_any_length(attention: str, positions: str) -> None:
    model = tiny(attention, positions)
    for length in (1, 2, model.max_length):
        assert model(tokens(length)).shape == (3, length, 20)


@every_pair
def test_no_output_depends_on_a_later_character(attention: str, positions: str, few: int) -> None:
    model = roughened(tiny(attention, positions)).double().eval()
    x = tokens(model.max_length)
    before = model(x)
    for at in range(1, model.max_length):
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
@torch.inference_mode()
def test_decoding_with_a_cache_is_decoding_without(attention: str, positions: str, cuts: list[int], few: int) -> None:
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
    assert len(pointers) == len(set(pointers)) and all(list(block.parameters()) for block in model.blocks)
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


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("attention", ["vanilla", "vanilla_qk_norm", "grouped_query", "sliding_window"])
def test_a_processor_in_bfloat16_attends_in_float32(
    attention: str, listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    fused = F.scaled_dot_product_attention

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.extend((q.dtype, k.dtype, v.dtype))
        return fused(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    model = roughened(tiny(attention)).float()
    if listening:
        model.blocks[0].attention.weights.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    expected = model(tokens(20))
    with torch.autocast("cpu", torch.bfloat16):
        got = model(tokens(20))
    assert set(seen) == {torch.float32} and len(seen) >= 6
    assert 1e-6 < (got - expected).abs().max() < 0.05 * expected.abs().max()


@every_variant
def test_heads_that_do_not_divide_the_width_are_refused(attention: str) -> None:
    with pytest.raises(Exception, match="3 heads do not divide the width 16"):
        tiny(attention, n_heads=3)


@every_variant
def test_a_sequence_longer_than_the_block_is_refused(attention: str) -> None:
    model = tiny(attention)
    with pytest.raises(ValueError, match=f"{model.max_length + 1} characters, but this model sees at most"):
        model(tokens(model.max_length + 1))


# ------------------------------------------------------------------------------------------------- one variant or a few


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


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
@pytest.mark.parametrize("attention", VARIANTS)
def test_positions_that_act_on_scores_act_or_are_refused(attention: str, positions: str) -> None:
    """Else a table of results would say "rotary" of a model that knows no positions."""
    if not fits(attention, positions):
        kind = f"{positions.title()}Positions acts on"
        with pytest.raises(ValueError, match=rf"{kind} (query-key scores, and .* has none|dot products, and .* adds)"):
            tiny(attention, positions)
        return
    with_them, without = (roughened(tiny(attention, name)).double().eval() for name in (positions, "none"))
    without.load_state_dict(with_them.state_dict())
    assert not torch.allclose(with_them(tokens(20)), without(tokens(20)))


@pytest.mark.parametrize("attention", ["linear", "perceiver", "synthesizer", "synthesizer_random_dense", "hybrid"])
def test_who_has_no_scores_refuses_positions_that_act_on_them(attention: str) -> None:
    assert not fits(attention, "rotary") and not fits(attention, "alibi")
    assert not fits("additive", "rotary") and fits("additive", "alibi")


def test_qk_norm_makes_scores_blind_to_the_size_of_queries() -> None:
    torch.manual_seed(0)
    module = VanillaAttention(16, 2, 24, 0.0, RotaryPositions(24, 16, 2), qk_norm=True).double()
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    with torch.no_grad():
        before = module(x)
        module.query_key_value.weight[:32] *= 3
        module.query_key_value.bias[:32] *= 3
    torch.testing.assert_close(module(x), before, rtol=1e-5, atol=1e-6)


WRONG = [
    ("grouped_query", {"n_groups": 3}, "3 groups do not divide 4 heads"),
    ("grouped_query", {"n_groups": 0}, "0 groups do not divide 4 heads"),
    ("sliding_window", {"window": 0}, "a window of 0 positions"),
    ("linear", {"chunk": 0}, "a chunk of 0 positions"),
    ("perceiver", {"chunk": 0}, "a chunk of 0 positions"),
    ("perceiver", {"n_latents": 0}, "0 latents: use 1 … 24"),
    ("perceiver", {"n_latents": 25}, "25 latents: use 1 … 24"),
    ("additive", {"chunk": -1}, "a chunk of -1 queries"),
    ("differential", {"lambda_init": 1.0}, r"lambda_init 1.0 is outside \[0, 1\)"),
    ("synthesizer_random_fixed", {"std": -1.0}, "std -1.0 is no standard deviation"),
    ("synthesizer_factorized_random", {"rank": 25}, "rank 25 of a table of 24 places: use 1 … 24"),
    ("synthesizer_factorized_random", {"rank": 0}, "rank 0 of a table of 24 places"),
    ("synthesizer_factorized_dense", {"a": 4, "b": 5}, "a·b = 4·5 = 20 scores do not reach a block of 24"),
    ("synthesizer_factorized_dense", {"a": 0}, "factors a = 0 and b = None"),
    ("synthesizer_factorized_dense", {"b": -2}, "factors a = None and b = -2"),
    ("hybrid", {"layers": []}, r"layers of a hybrid are \[\]: list one or more"),
    ("hybrid", {"layers": "vanilla"}, "layers of a hybrid are 'vanilla': list one or more"),
    ("hybrid", {"layers": [3]}, r"layers of a hybrid are \[3\]: list one or more"),
    ("synthesizer_random_fixed", {"seed": 2**64}, "seed 18446744073709551616: use a whole number from 0 to 9,223,372"),
    ("synthesizer_random_fixed", {"seed": -1}, "seed -1: use a whole number from 0"),
    ("synthesizer_random_fixed", {"std": float("inf")}, "std is inf, but a number is needed"),
    ("sliding_window", {"window": 3.5}, "window is 3.5, but a whole number is needed"),
    ("sliding_window", {"window": None}, "window is None, but a whole number is needed"),
    ("grouped_query", {"n_groups": 2.0}, "n_groups is 2.0, but a whole number"),
    ("linear", {"chunk": 2.5}, "chunk is 2.5"),
    ("additive", {"chunk": True}, "chunk is True"),
    ("perceiver", {"n_latents": "8"}, "n_latents is '8'"),
    ("synthesizer_factorized_dense", {"a": 2.5}, "a is 2.5, but a whole number or null is needed"),
    ("synthesizer_random_fixed", {"std": float("nan")}, "std is nan, but a number is needed"),
    ("vanilla", {"qk_norm": "yes"}, "qk_norm is 'yes', but true or false is needed"),
]


@pytest.mark.parametrize(("attention", "knobs", "message"), WRONG)
def test_wrong_knobs_are_refused_with_their_numbers(attention: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(attention, knobs=knobs)


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
@pytest.mark.parametrize("theta", [0.0, -5.0])
def test_frequencies_need_a_base_above_zero(positions: str, theta: float) -> None:
    make = build(option("positions", positions, theta=theta))
    with pytest.raises(ValueError, match=f"theta {theta}"):
        make(block_size=24, d_model=16, n_heads=4)


@pytest.mark.parametrize("size", ["n_layers", "n_heads", "d_model", "block_size"])
def test_a_model_of_nothing_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match=r"use 1 or more of each"):
        tiny(**{size: 0})
    with pytest.raises(ValueError, match=f"{size} is 1.5, but a whole number is needed"):
        tiny(**{size: 1.5})


def test_differential_attention_halves_heads() -> None:
    with pytest.raises(ValueError, match="3 = 12/4 must be even"):
        tiny("differential", d_model=12)
    with pytest.raises(ValueError, match="a head's width must be even, not 1"):
        tiny("differential", "rotary", d_model=8)


@pytest.mark.parametrize(("a", "b"), [(None, None), (3, None), (None, 5), (24, 1), (40, 40)])
def test_factors_left_open_reach_the_block(a: int | None, b: int | None) -> None:
    model = tiny("synthesizer_factorized_dense", knobs={"a": a, "b": b})
    assert model(tokens(24)).isfinite().all() and model.max_length == 24
    if (a, b) == (None, None):
        scores = model.blocks[0].attention.scores
        assert (scores.blocks.out_features, scores.within.out_features) == (5 * 4, 5 * 4)


def test_factorized_scores_differ_from_place_to_place_even_as_a_is_b() -> None:
    model = roughened(tiny("synthesizer_factorized_dense", knobs={"a": 5, "b": 5}))
    scores = model.blocks[0].attention.scores(torch.randn(1, 24, 16), 0, None)[0, 0, -1]
    assert len(scores.unique()) == 24


MIXTURES = ["synthesizer_dense_vanilla", "synthesizer_random_dense", "synthesizer_random_vanilla"]


@pytest.mark.parametrize("attention", MIXTURES)
def test_the_parts_of_a_mixture_sum_to_one_and_are_learned(attention: str) -> None:
    model = roughened(tiny(attention))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [block.attention.scores.alpha.detach().clone() for block in model.blocks]
    F.cross_entropy(model(tokens(20))[:, :-1].flatten(0, 1), tokens(20)[:, 1:].flatten()).backward()
    optimizer.step()
    for block, was in zip(model.blocks, before, strict=True):
        alpha = block.attention.scores.alpha
        assert alpha.sum().item() == pytest.approx(1) and (alpha > 0).all() and not torch.equal(alpha, was)


def test_the_gradient_of_a_mixture_reaches_every_scalar() -> None:
    scores = roughened(tiny("synthesizer_dense_vanilla")).double().blocks[0].attention.scores
    x = torch.randn(1, 4, 16, dtype=torch.float64)

    def mixed(mix: Tensor) -> Tensor:
        return torch.func.functional_call(scores, {"mix": mix}, (x, 0, None))

    assert torch.autograd.gradcheck(mixed, scores.mix.detach().requires_grad_())


@pytest.mark.parametrize("attention", MIXTURES)
def test_a_mixture_begins_even(attention: str) -> None:
    assert tiny(attention).blocks[0].attention.scores.alpha.tolist() == [0.5, 0.5]


def test_the_fixed_table_is_not_trained_and_comes_back_with_the_model() -> None:
    model = tiny("synthesizer_random_fixed")
    table = model.blocks[0].attention.scores.table.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model(tokens(20)).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.blocks[0].attention.scores.table, table)
    again = tiny("synthesizer_random_fixed", seed=7)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.blocks[0].attention.scores.table, table)
    assert torch.equal(again(tokens(20)), model(tokens(20)))
    assert model.double().blocks[0].attention.scores.table.dtype == torch.float64  # it moves with the model


def test_the_fixed_table_follows_from_its_seed_alone() -> None:
    tables = [
        tiny("synthesizer_random_fixed", seed=run, knobs={"seed": seed}).blocks[0].attention.scores.table
        for run, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    assert tables[0].std().item() == pytest.approx(1, abs=0.05) and not torch.equal(tables[0][0], tables[0][1])


def test_a_fixed_tables_knob_is_the_spread_of_its_numbers() -> None:
    one, other = (tiny("synthesizer_random_fixed", knobs={"std": std}).blocks[0].attention for std in (1.0, 0.25))
    assert torch.allclose(0.25 * one.scores.table, other.scores.table)


@pytest.mark.parametrize(
    ("attention", "parameter", "std"),
    [
        ("synthesizer", "scores.places", 0.001 / math.sqrt(3)),  # uniform in ±0.001
        ("synthesizer", "scores.hidden.weight", 0.02),
        ("synthesizer_random", "scores.table", 0.02),
        ("synthesizer_random_vanilla", "scores.parts.0.table", 0.02),
        ("synthesizer_factorized_random", "scores.rows", 0.1),
        ("synthesizer_factorized_random", "scores.columns", 0.1),
        ("differential", "weights.lambda_query", 0.1),
        ("differential", "weights.lambda_key", 0.1),
        ("additive", "scores.w", 1 / math.sqrt(3 * 64)),  # uniform in ±1/√K
        ("vanilla", "query_key_value.weight", 0.02),
    ],
)
def test_first_values_are_spread_as_the_docstrings_say(attention: str, parameter: str, std: float) -> None:
    models = [tiny(attention, d_model=256, block_size=64, seed=seed) for seed in range(4)]
    values = torch.cat([model.blocks[0].attention.get_parameter(parameter).flatten() for model in models])
    assert values.std().item() == pytest.approx(std, rel=0.1) and abs(values.mean().item()) < 0.2 * std


@pytest.mark.parametrize("positions", POSITIONS)
def test_positions_for_other_heads_are_else_the_same(positions: str) -> None:
    one = build(option("positions", positions))(block_size=24, d_model=16, n_heads=4)
    one.strength = 5.0  # of somebody's own
    other = one.for_heads(2)
    assert (other.n_heads, one.n_heads) == (2, 4) and type(other) is type(one)
    assert {**vars(other), "n_heads": 4} == vars(one)


@pytest.mark.parametrize("window", [1, 5, 24])
def test_a_window_of_w_shows_exactly_w_positions(window: int) -> None:
    module = roughened(tiny("sliding_window", knobs={"window": window})).double().eval().blocks[0].attention
    x = torch.randn(1, 24, 16, dtype=torch.float64)
    for at in (0, 9, 23):
        changed = x.clone()
        changed[:, at] += 1
        moved = (module(changed) != module(x)).any(-1)[0]  # (T,)
        assert moved.nonzero().flatten().tolist() == list(range(at, min(24, at + window)))


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
@pytest.mark.parametrize("cuts", [[1] * 20, [9, 1, 1, 7, 2]])
@pytest.mark.parametrize("window", [1, 4])
@torch.inference_mode()
def test_a_window_forgets_what_it_cannot_see_and_still_counts(
    positions: str, cuts: list[int], window: int, few: int
) -> None:
    model = roughened(tiny("sliding_window", positions, knobs={"window": window})).double().eval()
    x, cache, begin, outputs = tokens(20), model.new_cache(), 0, []
    for cut in cuts:
        outputs.append(model(x[:, begin : begin + cut], cache, begin))
        begin += cut
        assert all(memory[name].shape[2] == min(begin, window - 1) for memory in cache for name in "kv")
    torch.testing.assert_close(torch.cat(outputs, 1), model(x), rtol=1e-12, atol=1e-12)


def same_weights(one: str, other: str, positions: str, knobs: dict[str, int]) -> tuple[Tensor, Tensor]:
    """What two variants with the same weights, the second with knobs, make of the same text."""
    first = roughened(tiny(one, positions)).double().eval()
    second = tiny(other, positions, seed=5, knobs=knobs).double().eval()
    second.load_state_dict(first.state_dict())
    return first(tokens(20)), second(tokens(20))


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
def test_grouped_queries_reach_from_multi_query_to_vanilla(positions: str) -> None:
    torch.testing.assert_close(*same_weights("vanilla", "grouped_query", positions, {"n_groups": 4}))
    torch.testing.assert_close(*same_weights("multi_query", "grouped_query", positions, {"n_groups": 1}))


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
def test_a_window_as_long_as_the_block_is_vanilla(positions: str) -> None:
    torch.testing.assert_close(*same_weights("vanilla", "sliding_window", positions, {"window": 24}))


def test_a_single_head_is_vanilla_with_one() -> None:
    model = roughened(tiny("single_head")).double().eval()
    vanilla = tiny("vanilla", n_heads=1).double().eval()
    vanilla.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(tokens(20)), vanilla(tokens(20)))


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
def test_heads_that_do_not_talk_yet_are_vanilla(positions: str) -> None:
    """The weights as a matrix and the fused kernel compute one function."""
    talking, vanilla = tiny("talking_heads", positions).double().eval(), tiny("vanilla", positions).double().eval()
    for ours, theirs in zip(talking.blocks, vanilla.blocks, strict=True):
        parts = [(ours.attention.scores.query_key, slice(0, 32)), (ours.attention.value, slice(32, 48))]
        with torch.no_grad():
            for layer, rows in parts:
                layer.weight.copy_(theirs.attention.query_key_value.weight[rows])
        ours.attention.output.load_state_dict(theirs.attention.output.state_dict())
        x = torch.randn(2, 20, 16, dtype=torch.float64)
        torch.testing.assert_close(ours.attention(x), theirs.attention(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
def test_chunks_change_nothing(chunk: int) -> None:
    for attention in ("linear", "additive", "perceiver"):
        torch.testing.assert_close(*same_weights(attention, attention, "learned", {"chunk": chunk}))


def test_causal_sums_are_the_quadratic_form() -> None:
    q, k, v = torch.rand(3, 2, 4, 11, 4, dtype=torch.float64)
    before = torch.rand(2, 4, 4, 4, dtype=torch.float64)
    for given, expected in ((before, before), (None, torch.zeros_like(before))):
        sums, state = causal_sums(q, k, v, given, 4)
        torch.testing.assert_close(sums, (q @ k.mT).tril() @ v + q @ expected)
        torch.testing.assert_close(state, expected + k.mT @ v)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("n_positions", "chunk"), [(1, 4), (3, 4), (8, 4), (11, 4), (6, 1)])
def test_the_gradient_of_causal_sums_is_theirs(n_positions: int, chunk: int, given: bool) -> None:
    """Of the sums and of the state, with respect to everything: numerically, by torch's own check."""
    q, k = (torch.randn(2, 2, n_positions, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.randn(2, 2, n_positions, 2, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True) if given else None
    assert torch.autograd.gradcheck(lambda *inputs: causal_sums(*inputs, chunk), (q, k, v, state))
    for one in (0, 1):  # the other asked for no gradient
        learns = [x for x in (q, k, v, state) if x is not None]
        assert torch.autograd.gradcheck(lambda *_, one=one: causal_sums(q, k, v, state, chunk)[one], learns)


def test_a_long_state_still_changes_by_what_one_position_adds() -> None:
    """Added up in bfloat16 it would stay where it is from 256 on, and so would all that is decoded behind it."""
    model = roughened(tiny("linear", block_size=1200)).eval()
    x = torch.randn(1, 1200, 16)
    layer = model.blocks[0].attention
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        at_once, cache = layer(x).float(), model.new_cache()[0]
        one_by_one = torch.cat([layer(one, cache).float() for one in x.split(1, dim=1)], dim=1)
    assert cache["state"].dtype == torch.float32
    assert (one_by_one - at_once)[:, 600:].std() < 0.02 * at_once[:, 600:].std()


@every_variant
def test_weights_in_bfloat16_are_computed_with(attention: str) -> None:
    """As Lightning's precision=bf16-true has them: what is computed in float32 in between comes back."""
    model = roughened(tiny(attention)).eval()
    expected = model(tokens(20))
    model.to(torch.bfloat16)
    logits = model(tokens(20))
    logits.sum().backward()
    assert logits.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (logits.float() - expected).std() < 0.1 * expected.std()
    cache, parts = model.new_cache(), []
    with torch.no_grad():
        for position in range(20):
            parts.append(model(tokens(20)[:, position : position + 1], cache, position))
    assert (torch.cat(parts, dim=1).float() - expected).std() < 0.1 * expected.std()


def test_a_perceiver_whose_latents_want_nothing_in_particular_averages_the_past() -> None:
    module = roughened(tiny("perceiver")).double().blocks[0].attention
    torch.nn.init.zeros_(module.write.weight)
    torch.nn.init.zeros_(module.write.bias)
    x = torch.randn(2, 24, 16, dtype=torch.float64)
    v = module.query_key_value(x)[..., 32:]
    means = v.cumsum(1) / torch.arange(1, 25)[:, None]
    torch.testing.assert_close(module(x), module.output(means))


def test_a_perceiver_survives_any_wish() -> None:
    """Characters that want a latent by exp(±1000) would overflow; the cap keeps values and gradients finite."""
    model = roughened(tiny("perceiver"))
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.write.weight, std=1000.0)
    logits = model(tokens(24))
    logits.sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_perceiver_goes_through_its_latents_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 only what comes in and goes out is rounded: exp(±30) and sums of it are not."""
    kinds: list[torch.dtype] = []

    def watched(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, chunk: int) -> tuple[Tensor, Tensor]:
        out, after = causal_sums(q, k, v, state, chunk)
        kinds.extend(part.dtype for part in (q, k, v, out, after))
        return out, after

    monkeypatch.setattr(perceiver, "causal_sums", watched)
    model, x = roughened(tiny("perceiver")), tokens(24)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.write.weight.mul_(100)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(x)
    assert set(kinds) == {torch.float32} and len(kinds) == 2 * 2 * 2 * 5
    assert 1e-6 < (got - expected).abs().max() < 0.05 * expected.abs().max()


def test_additive_gradients_pass_through_the_chunks() -> None:
    gradients = []
    for chunk in (5, 24):
        model = roughened(tiny("additive", knobs={"chunk": chunk})).double()
        model(tokens(20)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_hybrid_alternates_and_starts_anew_for_each_model() -> None:
    factory = build(option("attention", "hybrid"))
    for layers in (3, 2, 5):  # 3 and 5 leave the turn in mid-list
        model = Transformer(20, layers, 4, 16, 24, factory, NoPositions)
        kinds = [type(block.attention) for block in model.blocks]
        assert kinds == ([VanillaAttention, SynthesizerAttention] * 3)[:layers]
        assert model.max_length == 23  # the synthesizer's


def test_a_hybrids_layers_may_be_named(tmp_path: Path) -> None:
    from tests.test_configs import settings

    told = settings("attention=hybrid", "attention.layers=[linear,vanilla_qk_norm,synthesizer]", "model.n_layers=4")
    kinds = [type(block.attention).__name__ for block in build_model(told, 20).blocks]
    assert kinds == ["LinearAttention", "VanillaAttention", "SynthesizerAttention", "LinearAttention"]
    assert build_model(told, 20).blocks[1].attention.query_norm.weight is not None
    written = with_layers(told)["attention"]["layers"]
    assert written[1] == option("attention", "vanilla_qk_norm")
    assert with_layers(with_layers(told)) == with_layers(told)
    for name in ("flash", "hybrid", "../model/small"):
        with pytest.raises(ConfigError, match=f"no attention '{name}' for a layer, but additive, .*vanilla"):
            build_model(settings("attention=hybrid", f"attention.layers=[vanilla,{name}]"), 20)


def test_a_hybrids_layers_may_take_knobs() -> None:
    node = option("attention", "synthesizer_random_fixed")
    model = tiny("hybrid", knobs={"layers": [{**node, "seed": seed} for seed in (0, 1)]})
    one, other = (block.attention.scores.table for block in model.blocks)
    assert not torch.equal(one, other)


# --------------------------------------------------------------------------------------- weights, compilation, storage


def sum_of_rows(weights: nn.Module) -> Tensor:
    """What a row of attention weights sums to, broadcast to (B, H, T): 1 unless the variant's equation says else."""
    if isinstance(weights, DifferentialWeights):
        return 1 - weights.subtracted  # one softmax minus λ times another
    if isinstance(weights, TalkingWeights):
        return weights.after.sum(1)[:, None]  # every softmax counts as P_w says
    return torch.ones(1, dtype=torch.float64)


@every_pair
def test_a_hook_reads_every_layers_weights_and_changes_nothing(attention: str, positions: str) -> None:
    model, x = roughened(tiny(attention, positions)).double().eval(), tokens(20)
    before = model(x)
    with listening(model) as heard:
        torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)
    assert torch.equal(model(x), before)
    for block, calls in zip(model.blocks, heard, strict=True):
        (weights,) = calls
        module = block.attention
        assert weights.shape == (3, module.n_heads, 20, 20) and torch.equal(weights, weights.tril())
        expected = sum_of_rows(module.weights).expand(3, module.n_heads, 20)
        torch.testing.assert_close(weights.sum(-1), expected, rtol=1e-5, atol=1e-5)  # linear: up to its EPSILON
        if not isinstance(module.weights, DifferentialWeights | TalkingWeights):
            assert (weights >= 0).all()


@every_pair
@pytest.mark.parametrize("cuts", [[1] * 20, [5, 1, 1, 8, 5]])
def test_weights_read_while_decoding_are_those_of_a_full_pass(attention: str, positions: str, cuts: list[int]) -> None:
    knobs = {"window": 6} if attention == "sliding_window" else None
    model, x = roughened(tiny(attention, positions, knobs=knobs)).double().eval(), tokens(20)
    with listening(model) as whole:
        expected = model(x)
    cache, begin, outputs = model.new_cache(), 0, []
    with listening(model) as heard:
        for cut in cuts:
            outputs.append(model(x[:, begin : begin + cut], cache, begin))
            begin += cut
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-12, atol=1e-12)
    for calls, (full,) in zip(heard, whole, strict=True):
        for end, weights in zip(itertools.accumulate(cuts), calls, strict=True):
            n_new, n_all = weights.shape[2:]  # n_all < end where a window let go of what it cannot see
            rows = full[:, :, end - n_new : end]
            torch.testing.assert_close(weights, rows[..., end - n_all : end], rtol=1e-12, atol=1e-12)
            assert not rows[..., : end - n_all].any()


@every_variant
def test_gradients_do_not_depend_on_who_listens(attention: str) -> None:
    model = roughened(tiny(attention)).double()
    gradients = []
    for listen in (nullcontext, lambda: listening(model)):
        model.zero_grad()
        with listen():
            model(tokens(20)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", ["vanilla", "grouped_query", "sliding_window"])
def test_the_fused_kernel_rests_where_weights_are_wanted_or_dropped(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(attention, dropout=0.5).train()

    def refuse(*args: Any, **options: Any) -> Tensor:
        raise AssertionError("the fused kernel was called")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refuse)
    with listening(model) as heard:
        model(tokens(20))
    below = torch.ones(20, 20).tril().bool()
    for (weights,) in heard:  # dropout acts on them, and leaves what it leaves doubled
        assert 0.4 < (weights[..., below] == 0).float().mean() < 0.6 and weights[..., 0, 0].unique().tolist() == [0, 2]
    model(tokens(20))  # a processor drops weights by itself, the kernel has no dropout there
    with listening(model.eval()):
        model(tokens(20))
    model(tokens(fused._FEW))  # so few positions are quicker without it
    with pytest.raises(AssertionError, match="the fused kernel was called"):
        model(tokens(fused._FEW + 1))


@pytest.mark.parametrize(
    ("attention", "positions", "window", "way"),
    [
        ("vanilla", "learned", None, "_fused"),
        ("grouped_query", "rotary", None, "_fused"),
        ("sliding_window", "learned", 20, "_fused"),  # the last position sees all the others
        ("sliding_window", "learned", 19, "_step_by_step"),
        ("vanilla", "alibi", None, "_step_by_step"),
    ],
)
def test_on_a_gpu_what_needs_a_mask_goes_without_the_fused_kernel(
    attention: str, positions: str, window: int | None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that have a device and no numbers: this is about which way is taken."""
    taken: list[str] = []

    def watched(name: str) -> Any:
        return lambda self, q, *rest: (taken.append(name), q)[1]

    for name in ("_fused", "_step_by_step"):
        monkeypatch.setattr(fused.FusedAttention, name, watched(name))
    layer = tiny(attention, positions, dropout=0.1).train().blocks[0].attention
    layer.output = nn.Identity()
    with FakeTensorMode():
        q = torch.empty(2, 4, 20, 4, device="cuda", dtype=torch.bfloat16)
        k = v = torch.empty(2, layer.n_groups, 20, 4, device="cuda", dtype=torch.bfloat16)
        bias = torch.empty(4, 20, 20, device="cuda") if positions == "alibi" else None
        monkeypatch.setattr(layer.positions, "score_bias", lambda *sizes: bias)
        assert layer.attend(q, k, v, window).shape == (2, 20, 16)
    assert taken == [way]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says of itself
@every_variant
@pytest.mark.parametrize("length", [fused._FEW, 20])
def test_it_compiles_into_one_graph(attention: str, length: int) -> None:
    """A break of the graph is an error under `fullgraph`; what the compiler caught computes the same, backwards too."""
    torch.compiler.reset()
    model, x = roughened(tiny(attention, n_layers=2 if attention == "hybrid" else 1)).double(), tokens(length)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    results = []
    for forward in (model, compiled):
        model.zero_grad()
        logits = forward(x)
        logits.square().sum().backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says of itself
@every_variant
def test_compiled_under_autocast_it_goes_back_as_ever(attention: str) -> None:
    """As on a GPU: the loss under autocast, its gradient outside. A compiler traces both inside, several chunks too."""
    torch.compiler.reset()
    model = roughened(tiny(attention, block_size=80, n_layers=2 if attention == "hybrid" else 1))
    x, results = tokens(70), []
    for forward in (model, torch.compile(model, backend="aot_eager")):
        with torch.autocast("cpu", torch.bfloat16):
            loss = forward(x).square().mean()
            _, gradients = gradient_of_sum([loss], list(model.parameters()))
        results.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]))
    assert (results[0] - results[1]).norm() < 0.02 * results[0].norm()


@every_pair
def test_it_comes_back_from_a_run_folder_to_the_last_bit(attention: str, positions: str, tmp_path: Path) -> None:
    tokenizer = CharTokenizer(["□", "⁇", *"\nabcdefghijklmnopq"])
    size = {"n_layers": 2, "n_heads": 4, "d_model": 16, "block_size": 24}
    config = {
        "model": option("model", "cs224n", **size),
        "attention": option("attention", attention),
        "positions": option("positions", positions),
    }
    folder = RunFolder(tmp_path / "run")
    folder.create(config, tokenizer)
    model = roughened(build_model(config, len(tokenizer))).eval()
    stage = folder.stage("finetune")
    save_weights(stage.weights, model, {})
    write_json(stage.root / "stage.json", {"steps": 1})
    torch.manual_seed(99)
    assert torch.equal(RunFolder(tmp_path / "run").load_model()(tokens(20)), model(tokens(20)))


def test_dropout_on_weights_differs_from_row_to_row_of_the_batch() -> None:
    """Also where the scores are the same for all rows."""
    module = roughened(tiny("synthesizer_random", dropout=0.5)).train().blocks[0].attention
    one, other = module.weights(module.scores(torch.zeros(2, 20, 16), 0, None), torch.zeros(20, 20), 2)
    assert not torch.equal(one, other)


@every_variant
def test_dropout_reaches_the_weights(attention: str) -> None:
    for block in roughened(tiny(attention, dropout=0.5)).blocks:
        if not any(isinstance(part, Dropout) for part in block.attention.modules()):
            assert type(block.attention).__name__ not in HAVE_WEIGHTS
            continue  # it has no weights to drop
        module, x = block.attention, torch.randn(2, 20, 16)
        assert not torch.equal(module.train()(x), module(x)) and torch.equal(module.eval()(x), module(x))


# ------------------------------------------------------------------------------------------------------------ positions


def test_alibi_sinks_by_slope_and_distance() -> None:
    bias = AlibiPositions(64, 16, 8).score_bias(2, 5, torch.device("cpu"))
    assert bias.shape == (8, 2, 5)
    for h in range(8):
        assert bias[h, 1].tolist() == [-distance / 2 ** (h + 1) for distance in (4, 3, 2, 1, 0)]
        assert bias[h, 0, :4].tolist() == [-distance / 2 ** (h + 1) for distance in (3, 2, 1, 0)]


def test_sinusoidal_positions_are_waves_as_large_as_characters() -> None:
    table = SinusoidalPositions(50, 16, 4).embedding()
    assert table is not None and not table.state_dict() and not list(table.parameters())
    vectors = table(torch.arange(50))
    scale = 0.02 * math.sqrt(2)
    for position, pair in ((0, 0), (7, 0), (49, 3)):
        angle = position / 10_000 ** (2 * pair / 16)
        expected = [scale * math.sin(angle), scale * math.cos(angle)]
        assert vectors[position, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(expected, abs=1e-7)
    assert vectors.square().mean().sqrt().item() == pytest.approx(0.02)


def test_positions_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="the width 15 must be even"):
        SinusoidalPositions(24, 15, 3)
    with pytest.raises(ValueError, match=r"std 0\.0 say nothing"):
        SinusoidalPositions(24, 16, 4, std=0.0)
    with pytest.raises(ValueError, match="a head's width must be even, not 3"):
        RotaryPositions(24, 12, 2).for_heads(4)


def test_positions_for_other_heads_keep_their_knobs() -> None:
    assert RotaryPositions(24, 16, 2, theta=5.0).for_heads(4).theta == 5.0
    other = SinusoidalPositions(24, 16, 2, theta=5.0, std=0.1).for_heads(4)
    assert (other.theta, other.std, other.n_heads) == (5.0, 0.1, 4)


@every_variant
def test_every_docstring_says_what_it_costs_and_where_it_comes_from(attention: str) -> None:
    kind = get_object(str(option("attention", attention)["_target_"]))
    text = " ".join((kind.__doc__ or "").split())
    assert "arXiv" in text and "cache" in text, attention
    if attention != "hybrid":  # whose layers say it
        assert all(word in text.lower() for word in ("time o(", "memory o(", "numbers")), attention
