"""The profile of a step: every operation is counted once, and for what it is for."""

import pytest

from birthplace_lm.benchmarks import profiling
from birthplace_lm.benchmarks.profiling import (
    ADDING,
    ATTENTION,
    CLIPPING,
    DATA,
    EMBEDDING,
    GROUPS,
    MLP,
    NORMS,
    OPTIMIZER,
    REST,
    Profile,
)  # fmt: skip
from birthplace_lm.benchmarks.ways.bare import Bare
from tests.helpers import small_corpus, tiny, tokenizer_of

CORPUS = small_corpus()
LAYERS, MICRO_BATCHES, BLOCK = 2, 4, 64


@pytest.fixture(scope="module")
def profile() -> Profile:
    tokenizer = tokenizer_of(CORPUS)
    model = tiny(vocabulary_size=len(tokenizer), block_size=BLOCK)
    way = Bare(CORPUS.documents * 12, tokenizer, model, BLOCK, 16 * MICRO_BATCHES)
    found = profiling.profile_step(way)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return found


@pytest.mark.parametrize(
    ("operation", "group"),
    [
        ("aten::gelu", MLP),
        ("aten::gelu_backward", MLP),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", ATTENTION),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", ATTENTION),
        ("aten::native_layer_norm", NORMS),
        ("aten::native_layer_norm_backward", NORMS),
        ("aten::embedding_dense_backward", EMBEDDING),
        ("aten::nll_loss_forward", EMBEDDING),
        ("aten::nll_loss_backward", EMBEDDING),
        ("aten::_fused_adamw_", OPTIMIZER),
        ("aten::argsort", DATA),
    ],
)
def test_what_only_one_part_computes_is_counted_for_it(profile: Profile, operation: str, group: str) -> None:
    assert {what for what, name in profile.calls if name == operation} == {group}


def test_products_are_counted_for_the_layers_that_they_belong_to(profile: Profile) -> None:
    """A linear layer: a product forward, and backward one for its input's gradient and one for its weights'."""
    linear = {ATTENTION: 2 * LAYERS, MLP: 2 * LAYERS, EMBEDDING: 1}
    for group, layers in linear.items():
        products = profile.calls[group, "aten::mm"] + profile.calls[group, "aten::addmm"]
        assert products == 3 * layers * MICRO_BATCHES, group
    assert not [what for what, name in profile.calls if name in ("aten::mm", "aten::addmm") and what not in linear]


def test_gradients_of_several_micro_batches_are_added_up(profile: Profile) -> None:
    assert profile.calls[ADDING, "aten::add_"] + profile.calls[ADDING, "aten::add"] > 0
    assert {what for what, name in profile.calls if "AccumulateGrad" in name} == {ADDING}
    assert profile.of_group(CLIPPING) > 0 and profile.of_group(REST) > 0


def test_the_table_has_a_row_a_group_and_adds_up(profile: Profile) -> None:
    assert sum(profile.of_group(group) for group in GROUPS) == pytest.approx(sum(profile.milliseconds.values()))
    assert sum(ms for _, ms, _ in profile.operations()) == pytest.approx(sum(profile.milliseconds.values()))
    page = profiling.markdown(profile, "Where it goes", overall=3)
    assert page.startswith("# Where it goes\n") and all(f"| {group} |" in page for group in GROUPS)
    assert len(page.split("| operation |")[1].splitlines()) == 2 + 3


def test_operations_are_sorted_and_summed_over_groups() -> None:
    found = Profile()
    for group, ms in ((MLP, 1.0), (ATTENTION, 4.0)):
        found.milliseconds[group, "aten::mm"] += ms
        found.calls[group, "aten::mm"] += 2
    found.milliseconds[MLP, "aten::gelu"] += 3.0
    found.calls[MLP, "aten::gelu"] += 1
    assert found.operations() == [("aten::mm", 5.0, 4), ("aten::gelu", 3.0, 1)]
    assert found.operations(MLP) == [("aten::gelu", 3.0, 1), ("aten::mm", 1.0, 2)]
