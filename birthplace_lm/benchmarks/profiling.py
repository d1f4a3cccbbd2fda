"""Where the time of a training step or of answering questions goes: every operation, by what it is for.

The profiler tells operations and how they are nested. What an operation of the forward pass is for, a label around it
says; one of the backward pass is for what the operation was for whose gradient it computes, which autograd numbers.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from birthplace_lm.benchmarks.ways import CLIP
from birthplace_lm.benchmarks.ways.bare import Bare
from birthplace_lm.decoding import answer_questions
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

DATA, EMBEDDING, ATTENTION, MLP = "data", "embedding, output and loss", "attention", "MLP"
NORMS, ADDING, CLIPPING, OPTIMIZER = "norms, dropout, residuals", "adding up gradients", "clipping", "optimizer"
CHOOSING, REST = "choosing characters, dropping rows", "rest: autograd and Python"
GROUPS = (DATA, EMBEDDING, ATTENTION, MLP, NORMS, ADDING, CLIPPING, OPTIMIZER, CHOOSING, REST)
_BACKWARD = "autograd::engine::evaluate_function: "
_BETWEEN = "(Python between operations)"
_OF_A_STEP = "one optimizer step, forward and backward pass together"


@dataclass
class Profile:
    """Milliseconds and calls of every operation, without those inside it, by (what for, operation)."""

    milliseconds: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of_group(self, group: str) -> float:
        """Milliseconds of all that is for this."""
        return sum(ms for (what, _), ms in self.milliseconds.items() if what == group)

    def operations(self, group: str | None = None) -> list[tuple[str, float, int]]:
        """(operation, milliseconds, calls) of a group or of all, the longest first."""
        found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for (what, name), ms in self.milliseconds.items():
            if group in (None, what):
                found[name][0] += ms
                found[name][1] += self.calls[what, name]
        return sorted(((name, ms, int(n)) for name, (ms, n) in found.items()), key=lambda row: -row[1])


def profile_step(way: Bare) -> Profile:
    """One optimizer step of this package, the second: the first one allocates."""
    batches = iter(way.batches)
    with _labelled(way.model):
        _step(way, lambda: next(batches))
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            _step(way, lambda: next(batches))
    return _sorted_out(recorded.events() or [])


def profile_answers(model: Transformer, tokenizer: CharTokenizer, questions: Sequence[str]) -> Profile:
    """All questions answered at once, the second time: the first one allocates."""
    answer_questions(model, tokenizer, questions)
    with _labelled(model), profile(activities=[ProfilerActivity.CPU]) as recorded, record_function(CHOOSING):
        answer_questions(model, tokenizer, questions)
    return _sorted_out(recorded.events() or [])


def _step(way: Bare, next_batch: Callable[[], Batch]) -> None:
    """What Bare.run does in a step, every part under its label."""
    with record_function(DATA):
        batch = next_batch()
    with record_function(OPTIMIZER):
        way.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=way.bfloat16):
        for x, y in zip(batch.inputs, batch.targets, strict=True):
            logits = way.model(x).flatten(0, 1)  # (B·T, V)
            with record_function(EMBEDDING):
                loss = F.cross_entropy(logits, y.flatten(), ignore_index=IGNORE, reduction="sum") / batch.n_targets
            with record_function(REST), torch.autocast("cpu", enabled=False):
                loss.backward()
    with record_function(CLIPPING):
        torch.nn.utils.clip_grad_norm_(way.model.parameters(), CLIP)
    with record_function(OPTIMIZER):
        way.optimizer.step()


@contextmanager
def _labelled(model: nn.Module) -> Iterator[None]:
    """While entered, every part of the model computes under a label that says what it is for."""
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if (group := _group_of(name)) is not None:
                running: list[Any] = []

                def begin(*_: Any, group: str = group, running: list[Any] = running) -> None:
                    running.append(record_function(group))
                    running[-1].__enter__()

                def end(*_: Any, running: list[Any] = running) -> None:
                    running.pop().__exit__(None, None, None)

                hooks.callback(module.register_forward_pre_hook(begin).remove)
                hooks.callback(module.register_forward_hook(end).remove)
        yield


def _group_of(name: str) -> str | None:
    """What a module of this name is for; None for one inside another that is asked already.

    >>> [_group_of(name) for name in ("characters", "blocks.3.attention", "blocks.3.attention.output", "")]
    ['embedding, output and loss', 'attention', None, 'norms, dropout, residuals']
    """
    path = name.split(".")
    if path[0] == "blocks" and len(path) == 3:
        return {"attention": ATTENTION, "mlp": MLP}.get(path[2])
    return {"": NORMS, "characters": EMBEDDING, "positions": EMBEDDING, "head": EMBEDDING}.get(name)


def _sorted_out(events: Sequence[Any]) -> Profile:
    forward: dict[int, str] = {}  # the number of an operation whose gradient is wanted -> what it is for
    for event in sorted(events, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and not _backward(event) and (label := _label(event)):
            forward[event.sequence_nr] = label  # the last of a number is the one that autograd remembers by it
    found = Profile()
    for event in events:
        backward = _backward(event)
        group = (_of_gradient(event, backward, forward) if backward else _label(event)) or REST
        name = _BETWEEN if event.name in GROUPS else event.name.removeprefix(_BACKWARD)
        found.milliseconds[group, name] += event.self_cpu_time_total / 1000
        found.calls[group, name] += event.count
    return found


def _of_gradient(event: Any, step: Any, forward: dict[int, str]) -> str | None:
    """What an event in a step of the backward pass is for.

    Where a tensor was used more than once its gradients are added between the steps, by the engine itself.
    """
    between = event.cpu_parent is step and event.name in ("aten::add", "aten::add_")
    return ADDING if between or "AccumulateGrad" in step.name else forward.get(step.sequence_nr)


def _label(event: Any) -> str | None:
    """The innermost label around an event."""
    while event is not None and event.name not in GROUPS:
        event = event.cpu_parent
    return event.name if event else None


def _backward(event: Any) -> Any:
    """The step of the backward pass that an event belongs to, or None."""
    while event is not None and not event.name.startswith(_BACKWARD):
        event = event.cpu_parent
    return event


def markdown(found: Profile, heading: str, of: str = _OF_A_STEP, top: int = 5, overall: int = 20) -> str:
    """Groups with their longest operations, then the longest of all; shares are of the processor time of what it is of.

    What the way to do it has no operations for has no row.
    """
    total = sum(found.milliseconds.values())
    lines = [
        f"# {heading}", "", f"Self CPU time of {of}.", "",
        "| what for | ms | share | longest operations, ms |", "|---|---:|---:|---|",
    ]  # fmt: skip
    computed = {what for what, _ in found.milliseconds}
    for group in sorted(computed, key=lambda group: -found.of_group(group)):
        longest = ", ".join(f"{name} {ms:.1f}" for name, ms, _ in found.operations(group)[:top])
        lines.append(f"| {group} | {found.of_group(group):,.1f} | {found.of_group(group) / total:.1%} | {longest} |")
    lines += [f"| all | {total:,.1f} | 100% | |", "", "| operation | ms | share | calls |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {ms:,.1f} | {ms / total:.1%} | {n:,} |" for name, ms, n in found.operations()[:overall]]
    return "\n".join(lines) + "\n"
