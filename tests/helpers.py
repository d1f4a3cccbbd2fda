"""Small models and worlds that several test files build on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf

from birthplace_lm.composing import build
from birthplace_lm.corpus import Corpus, Question
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
VARIANTS = sorted(path.stem for path in (CONFIGS / "attention").glob("*.yaml"))
POSITIONS = sorted(path.stem for path in (CONFIGS / "positions").glob("*.yaml"))


def standing_at(step: int, rank: int = 0, world_size: int = 1) -> Any:
    """As much of a trainer as a DataModule asks for."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(global_step=step, global_rank=rank, world_size=world_size, strategy=strategy)


def option(group: str, name: str, **changes: Any) -> dict[str, Any]:
    """One configuration file as a plain dict, with changes."""
    node = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    return {**node, **changes}  # type: ignore[dict-item]


def fits(attention: str, positions: str) -> bool:
    """Whether a variant takes these positions: it says so when it is built; if anything else is wrong its tests say."""
    try:
        tiny(attention, positions)
    except ValueError:
        return False
    except Exception:
        return True
    return True


def tiny(
    attention: str = "vanilla",
    positions: str = "learned",
    seed: int = 0,
    vocabulary_size: int = 20,
    knobs: dict[str, Any] | None = None,
    **model: Any,
) -> Transformer:
    """A model of two layers and width 16 that a test can afford, in float32, on 20 characters."""
    torch.manual_seed(seed)
    size: dict[str, Any] = {"n_layers": 2, "n_heads": 4, "d_model": 16, "block_size": 24, "dropout": 0.0}
    node = option("model", "cs224n", **{**size, **model})
    parts = {
        "attention": build(option("attention", attention, **(knobs or {}))),
        "positions": build(option("positions", positions)),
    }
    built = build(node, **{"vocabulary_size": vocabulary_size, **parts})()
    assert isinstance(built, Transformer)
    return built


def roughened(model: Transformer) -> Transformer:
    """The same model with all parameters moved off their first values, so that nothing is zero by construction."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def rows_at_once(model: Transformer) -> list[int]:
    """A list to which every call of the model adds how many rows it was given."""
    seen = list[int]()
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return seen


PAIRS = [(attention, positions) for attention in VARIANTS for positions in POSITIONS if fits(attention, positions)]


def small_corpus(people: int = 12) -> Corpus:
    """People of one sentence each, two thirds of them in train."""
    places = ["Pau", "Oslo", "Łódź"]
    names = [f"{first} {last}" for first in ("Ada", "Bo", "Cy", "Di") for last in ("Vik", "Byrne", "Lund")][:people]
    documents = tuple(f"{name}. {name} was born in {places[i % 3]} ." for i, name in enumerate(names))
    questions = [Question(f"Where was {name} born?", places[i % 3]) for i, name in enumerate(names)]
    test = tuple(Question(question.text) for question in questions[-2:])
    return Corpus(documents, tuple(questions[: people * 2 // 3]), tuple(questions[people * 2 // 3 : -2]), test)


def tokenizer_of(corpus: Corpus) -> CharTokenizer:
    return CharTokenizer.fit([*corpus.documents, *(q.text + (q.answer or "") for q in corpus.train)])
