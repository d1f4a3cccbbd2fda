"""DataModules: span corruption of documents, questions about people, and mixtures of both.

Both serve one training as one endless row of steps. A step's batch is a pure function of (seed, step), so the loader
starts wherever the trainer stands, and no state of it has to be saved.

Legend: B examples, M micro-batches, T positions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from birthplace_lm.batches import Plan, by_length, dealt, rounded_up, stream, uniforms
from birthplace_lm.corpus import Question
from birthplace_lm.corruption import CorruptionPolicy, Pieces, assemble, behind
from birthplace_lm.mapped_texts import distinct_answers
from birthplace_lm.mixtures import Mixture
from birthplace_lm.token_store import TokenStore, document_store, question_store, with_prefix
from birthplace_lm.tokenizer import PAD_ID, CharTokenizer
from birthplace_lm.wordings import QUESTION, Wordings, ask_question

IGNORE = -100  # a target that the loss passes over


@dataclass
class Batch:
    """One optimizer step's examples in groups of like length, or this rank's share of them.

    inputs and targets: M tensors (B/M, T) each, targets IGNORE where nothing is asked; n_targets: how many targets the
    whole batch has over all ranks; n_characters: how many inputs of the whole batch are no PAD. A share without an
    example is one PAD with no target: every parameter gets a gradient, all zeros, as the other ranks expect.
    """

    inputs: list[Tensor]
    targets: list[Tensor]
    n_targets: int
    n_characters: int


def batch_of(
    parts: Sequence[tuple[TokenStore, Pieces]],
    micro_batches: int,
    width: int | None,
    rank: int = 0,
    world_size: int = 1,
) -> Batch:
    """Lay out the sequences of some stores, keep this rank's share, and group it by length.

    The ranks together have about as many groups as one alone would: a smaller batch a rank, not smaller products.
    Targets begin where `asked` says. A width makes every row that wide, for kernels that want static shapes.
    """
    n_targets = sum(int((pieces.totals - pieces.asked.clamp(min=1)).sum()) for _, pieces in parts)
    n_characters = sum(int((pieces.totals - 1).sum()) for _, pieces in parts)
    wide = width or max(int(pieces.totals.max()) for _, pieces in parts if len(pieces.totals)) - 1
    totals = torch.cat([pieces.totals for _, pieces in parts])
    mine = dealt(totals, world_size)[rank]
    rows = torch.cat([assemble(store, pieces, wide + 1) for store, pieces in parts])[mine]
    totals, asked = totals[mine], torch.cat([pieces.asked for _, pieces in parts])[mine]
    if not len(rows):
        rows, totals, asked = rows.new_full((1, (width or 1) + 1), PAD_ID), totals.new_full((1,), 2), asked.new_ones(1)
    targets = rows[:, 1:].masked_fill(rows[:, 1:] == PAD_ID, IGNORE)
    targets = targets.masked_fill(torch.arange(1, rows.shape[1]) < asked[:, None], IGNORE)
    groups = by_length(totals, -(-micro_batches // world_size))
    trims = [width or min(targets.shape[1], rounded_up(int(totals[group].max()) - 1)) for group in groups]
    return Batch(
        inputs=[rows[group, :trim] for group, trim in zip(groups, trims, strict=True)],
        targets=[targets[group, :trim] for group, trim in zip(groups, trims, strict=True)],
        n_targets=n_targets,
        n_characters=n_characters,
    )


class _Steps(IterableDataset[Batch]):
    """The batches of a training from the step that `first_step` tells when iteration begins.

    Of n loader workers each makes every nth batch, and the loader takes them in turn: the order is the same for any n.
    """

    def __init__(self, plan: Plan, first_step: Callable[[], int], make: Callable[[int, Tensor], Batch]):
        self.plan, self.first_step, self.make = plan, first_step, make

    def __len__(self) -> int:
        return self.plan.total_steps

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for epoch, index in islice(self.plan.batches(self.first_step()), mine, None, workers):
            yield self.make(epoch, index)


class _TrainingData(pl.LightningDataModule):
    """What both DataModules share: a plan, and a loader that begins at the trainer's step."""

    plan: Plan

    def __init__(
        self, block_size: int, epochs: int, micro_batches: int, static_width: bool, validation: Sequence[Question]
    ):
        super().__init__()
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {epochs}")
        if micro_batches < 1:
            raise ValueError(f"micro_batches counts the groups of a batch and is at least 1, not {micro_batches}")
        self.block_size, self.micro_batches, self.static_width = block_size, micro_batches, static_width
        self.validation = validation

    def parts(self, epoch: int, index: Tensor) -> list[tuple[TokenStore, Pieces]]:
        """The sequences of some examples of an epoch: index (B,)."""
        raise NotImplementedError

    def make_batch(self, epoch: int, index: Tensor) -> Batch:
        """The batch of these examples, or this rank's share of it."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        width = self.block_size - 1 if self.static_width else None
        return batch_of(self.parts(epoch, index), self.micro_batches, width, rank, world_size)

    def first_step(self) -> int:
        return self.trainer.global_step if self.trainer else 0

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(_Steps(self.plan, self.first_step, self.make_batch), batch_size=None)

    def val_dataloader(self) -> DataLoader[dict[str, list[str]]]:
        """All validation questions at once: they are answered by generation, which batches on its own."""
        texts = [question.text for question in self.validation]
        answers = [question.answer or "" for question in self.validation]
        batches = [{"questions": texts, "answers": answers}] if texts else []
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list will do, the types ask for a Dataset

    def positions_at(self, step: int) -> int:
        """Positions of the steps before `step` as the reference counts them: block - 1 an example, padding included."""
        return self.plan.examples_before(step) * (self.block_size - 1)


class SpanCorruptionDataModule(_TrainingData):
    """Documents with a span taken out, and if wanted training questions among them.

    A share `question_share` of an epoch's examples are questions (all of them in turn); several shares follow one
    another along the training, with straight lines between. `question_loss` says whether the questions' loss covers
    "all" of the text or the "answer" alone, `document_loss` whether that of documents covers "all" or the "span" alone.
    Each question is asked in one of the `question_wordings`, drawn anew every time.

    `document_prefix` stands before every corrupted document, so that a name is as far from the start as it is in a
    question: what looks it up by position finds it in both only where both have it in the same place.
    """

    def __init__(
        self,
        documents: Sequence[str],
        questions: Sequence[Question],
        tokenizer: CharTokenizer,
        corruption: CorruptionPolicy,
        block_size: int,
        batch_size: int = 128,
        epochs: int = 650,
        seed: int = 0,
        shuffle: bool = True,
        micro_batches: int = 16,
        static_width: bool = False,
        question_share: float | Sequence[float] = 0.0,
        question_loss: str = "all",
        document_loss: str = "all",
        question_wordings: Sequence[str] = (QUESTION,),
        document_prefix: str = "",
        validation: Sequence[Question] = (),
    ):
        super().__init__(block_size, epochs, micro_batches, static_width, validation)
        shares = (question_share,) if isinstance(question_share, int | float) else tuple(question_share)
        if question_loss not in ("all", "answer") or document_loss not in ("all", "span"):
            raise ValueError(f"question_loss is all|answer, document_loss all|span: {question_loss}|{document_loss}")
        if (longest := len(document_prefix) + corruption.max_total) > block_size:
            raise ValueError(f"corrupted documents reach {longest} characters, the block has {block_size}")
        self.corruption, self.seed = corruption, seed
        self.question_loss, self.document_loss = question_loss, document_loss
        self.documents, self.prefix = with_prefix(document_store(documents, tokenizer), document_prefix, tokenizer)
        corruption.prepare(documents, distinct_answers(questions))
        if not any(shares) and list(question_wordings) != [QUESTION]:
            raise ValueError("question_wordings say how questions are asked, and question_share is 0: raise the share")
        questions_mixed_in = questions if any(shares) else ()
        self.questions = question_store(questions_mixed_in, tokenizer, block_size)
        self.wordings = Wordings(question_wordings, self.questions, questions_mixed_in, tokenizer, block_size)
        self.mixture = Mixture(len(documents), len(questions_mixed_in), shares, epochs, seed)
        self.plan = Plan(self.mixture.sizes, batch_size, seed, shuffle)

    def parts(self, epoch: int, index: Tensor) -> list[tuple[TokenStore, Pieces]]:
        of_documents, places = self.mixture.split(index)
        u = uniforms(self.seed, epoch, of_documents, self.corruption.n_uniforms)
        corrupted = self.corruption(self.documents, of_documents, u)
        if self.prefix:
            corrupted = behind(self.prefix, corrupted)
        parts = [(self.documents, _with_loss(corrupted, self.document_loss))]
        if len(places):
            wording = stream(self.seed, epoch, places, -4) % len(self.wordings)
            asked = self.wordings.ask(self.mixture.questions(epoch, places), wording)
            parts.append((self.wordings.store, _with_loss(asked, self.question_loss)))
        return [part for part in parts if len(part[1].totals)]


def _with_loss(pieces: Pieces, on: str) -> Pieces:
    """The same sequences, asked for as a whole when the loss is on all of the text."""
    return Pieces(pieces.starts, pieces.lengths, torch.ones_like(pieces.asked)) if on == "all" else pieces


class BirthplaceDataModule(_TrainingData):
    """Questions with their answers to learn from, and questions to validate on.

    Where was Khatchig Mouradian born?⁇Lebanon⁇      the loss covers `Lebanon⁇`
    """

    def __init__(
        self,
        questions: Sequence[Question],
        validation: Sequence[Question],
        tokenizer: CharTokenizer,
        block_size: int,
        batch_size: int = 256,
        epochs: int = 10,
        seed: int = 0,
        shuffle: bool = True,
        micro_batches: int = 4,
        static_width: bool = False,
    ):
        super().__init__(block_size, epochs, micro_batches, static_width, validation)
        self.questions = question_store(questions, tokenizer, block_size)
        self.plan = Plan((len(questions),) * epochs, batch_size, seed, shuffle)

    def parts(self, epoch: int, index: Tensor) -> list[tuple[TokenStore, Pieces]]:
        return [(self.questions, ask_question(self.questions, index))]
