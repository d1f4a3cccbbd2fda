"""The profile of a step: every operation is counted once, and for what it is for."""

from types import SimpleNamespace

import pytest
import torch

from birthplace_lm.benchmarks import kernels, profiling
from birthplace_lm.benchmarks.profiling import (
    ADDING,
    ATTENTION,
    CHOOSING,
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
from birthplace_lm.benchmarks.ways.replayed import Replayed
from birthplace_lm.decoding import answer_questions
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


def test_in_bfloat16_there_are_the_same_products(profile: Profile) -> None:
    tokenizer = tokenizer_of(CORPUS)
    model = tiny(vocabulary_size=len(tokenizer), block_size=BLOCK)
    way = Bare(CORPUS.documents * 12, tokenizer, model, BLOCK, 16 * MICRO_BATCHES, bfloat16=True)
    found = profiling.profile_step(way)
    for group in (ATTENTION, MLP, EMBEDDING):
        one, other = (p.calls[group, "aten::mm"] + p.calls[group, "aten::addmm"] for p in (found, profile))
        assert one == other, group
    assert found.calls[MLP, "aten::_to_copy"] > profile.calls[MLP, "aten::_to_copy"]


def test_gradients_of_several_micro_batches_are_added_up(profile: Profile) -> None:
    assert profile.calls[ADDING, "aten::add_"] + profile.calls[ADDING, "aten::add"] > 0
    assert {what for what, name in profile.calls if "AccumulateGrad" in name} == {ADDING}
    assert profile.of_group(CLIPPING) > 0 and profile.of_group(REST) > 0


def test_the_table_has_a_row_a_group_and_adds_up(profile: Profile) -> None:
    assert sum(profile.of_group(group) for group in GROUPS) == pytest.approx(sum(profile.milliseconds.values()))
    assert sum(ms for _, ms, _ in profile.operations()) == pytest.approx(sum(profile.milliseconds.values()))
    page = profiling.markdown(profile, "Where it goes", overall=3)
    assert page.startswith("# Where it goes\n") and "one optimizer step" in page
    assert [f"| {group} |" in page for group in GROUPS] == [group != CHOOSING for group in GROUPS]
    assert len(page.split("| operation |")[1].splitlines()) == 2 + 3


def test_answers_are_profiled_with_the_products_of_every_pass_and_what_chooses_between_them() -> None:
    tokenizer, questions = tokenizer_of(CORPUS), [question.text for question in CORPUS.train]
    model = tiny(vocabulary_size=len(tokenizer), block_size=128)
    passes: list[None] = []
    counting = model.register_forward_pre_hook(lambda *_: passes.append(None))
    answer_questions(model, tokenizer, questions)
    counting.remove()
    found = profiling.profile_answers(model, tokenizer, questions)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    products = {group: found.calls[group, "aten::mm"] + found.calls[group, "aten::addmm"] for group in GROUPS}
    assert products[MLP] == products[ATTENTION] == 2 * LAYERS * len(passes) and products[EMBEDDING] == len(passes)
    assert found.calls[CHOOSING, "aten::_log_softmax"] == len(passes) - 1  # not of what all questions begin with
    assert {what for what, _ in found.calls} == {ATTENTION, MLP, NORMS, EMBEDDING, CHOOSING}
    page = profiling.markdown(found, "Answers", "answering all of them once")
    assert (
        "Self CPU time of answering all of them once." in page and f"| {CHOOSING} |" in page and OPTIMIZER not in page
    )


def test_operations_are_sorted_and_summed_over_groups() -> None:
    found = Profile()
    for group, ms in ((MLP, 1.0), (ATTENTION, 4.0)):
        found.milliseconds[group, "aten::mm"] += ms
        found.calls[group, "aten::mm"] += 2
    found.milliseconds[MLP, "aten::gelu"] += 3.0
    found.calls[MLP, "aten::gelu"] += 1
    assert found.operations() == [("aten::mm", 5.0, 4), ("aten::gelu", 3.0, 1)]
    assert found.operations(MLP) == [("aten::gelu", 3.0, 1), ("aten::mm", 1.0, 2)]


def event(name: str, microseconds: float, device: str = "CUDA", annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        device_type=getattr(torch.autograd.DeviceType, device),
        is_user_annotation=annotation,
        time_range=SimpleNamespace(elapsed_us=lambda: microseconds),
    )


def test_a_profile_on_a_gpu_has_every_kernel_once_and_nothing_else() -> None:
    """Two steps: two launches of one kernel in each, one of another in the second; a range and the processor aside."""
    of_steps = [event("nvjet_a", 10), event("nvjet_a", 30), event("nvjet_a", 20), event("nvjet_a", 40)]
    aside = [event("Optimizer.step", 500, annotation=True), event("cudaGraphLaunch", 70, device="CPU")]
    found = kernels.kernels_of([*of_steps, event("flash_fwd", 120), *aside], steps=2)
    assert [(k.name, k.microseconds, k.launches) for k in found] == [("flash_fwd", 60, 0.5), ("nvjet_a", 50, 2)]
    assert "0 kernels a step take 0.00 ms" in kernels.markdown([], 0.25, "A step")
    table = kernels.markdown(found, 0.25, "A step")
    assert "2 kernels a step take 0.11 ms of its 0.25 ms" in table
    assert "| attention | 0.060 | 54.5% | 0 |" in table and "| matrix products | 0.050 | 45.5% | 2 |" in table
    assert "| `nvjet_a` | 25.0 | 0.050 | 45.5% | 2 |" in table


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Traits>", "attention"),
        ("triton_per_fused__scaled_dot_product_flash_attention_add_3", "compiled: norms, dropout, GELU, sums"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "matrix products"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "clipping and AdamW"),
        ("Memcpy DtoD (Device -> Device)", "copies and fills"),
        ("void at::native::vectorized_elementwise_kernel<4, BinaryFunctor>", kernels.REST),
    ],
)
def test_a_kernel_is_told_by_its_name(name: str, kind: str) -> None:
    assert kernels.Kernel(name, 1.0, 1.0).kind == kind


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_profile_of_a_recorded_step_has_its_products_and_its_time() -> None:
    tokenizer = tokenizer_of(CORPUS)
    model = tiny(vocabulary_size=len(tokenizer), block_size=BLOCK).cuda()
    found, milliseconds = kernels.profile_steps(Replayed(CORPUS.documents * 12, tokenizer, model, BLOCK, 16), 5)
    assert {"matrix products", "clipping and AdamW"} <= {kernel.kind for kernel in found}
    assert 0 < sum(kernel.microseconds for kernel in found) / 1000 < 10 * milliseconds
