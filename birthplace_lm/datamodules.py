"""DataModules: span corruption of documents, questions about people, and mixtures of both.

Both serve one training as one endless row of steps. A step's batch is a pure function of (seed, step), so the loader
starts wherever the trainer stands, and no state of it has to be saved.

Legend: B examples.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from birthplace_lm.batches import Plan, stream, uniforms
from birthplace_lm.corpus import Question
from birthplace_lm.corruption import CorruptionPolicy, Pieces, behind, check_contract, check_policy
from birthplace_lm.layouts import Batch, Layout, Part, lay_out
from birthplace_lm.mapped_texts import distinct_answers
from birthplace_lm.mixtures import Mixture
from birthplace_lm.token_store import document_store, question_store, with_prefix
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.wordings import QUESTION, Wordings, ask_question

_AHEAD_OF_A_GPU = 32  # steps


class _Steps(IterableDataset[Batch]):
    """The batches of a training from the step that `first_step` tells when iteration begins.

    Of n loader workers each makes every nth batch, and the loader takes them in turn: the order is the same for any n.
    `make` is asked for up to `ahead` steps of an epoch at once, where making them together is cheaper.
    """

    def __init__(
        self,
        plan: Plan,
        first_step: Callable[[], int],
        make: Callable[[int, Sequence[Tensor]], list[Batch]],
        ahead: Callable[[], int],
    ):
        self.plan, self.first_step, self.make, self.ahead = plan, first_step, make, ahead

    def __len__(self) -> int:
        return self.plan.total_steps

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        steps = islice(self.plan.batches(self.first_step()), mine, None, workers)
        for epoch, of_epoch in groupby(steps, key=itemgetter(0)):
            while some := [index for _, index in islice(of_epoch, self.ahead())]:
                yield from self.make(epoch, some)


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
        self.device: torch.device | None = None  # for loops without a trainer

    def parts(self, epoch: int, index: Tensor) -> list[Part]:
        """The sequences of some examples of an epoch: index (B,)."""
        raise NotImplementedError

    def make_batches(self, epoch: int, indexes: Sequence[Tensor]) -> list[Batch]:
        """The batches of some steps of an epoch, whose examples are index (B,) each, or this rank's share of them.

        The ranks together have about as many groups as one alone would: a smaller batch a rank, not smaller products.
        """
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        width = self.block_size - 1 if self.static_width else None
        layout = Layout(-(-self.micro_batches // world_size), width)
        if self._on_gpu:
            layout = Layout.on_gpu(width or self.longest - 1, rows=-(-self.plan.batch_size // world_size))
        parts = self.parts(epoch, torch.cat(list(indexes)))
        return lay_out(parts, [len(index) for index in indexes], layout, rank, world_size, self._device)

    @property
    def longest(self) -> int:
        """How many characters a sequence has at most."""
        return self.block_size

    @property
    def _device(self) -> torch.device | None:
        """Where the training happens."""
        return self.trainer.strategy.root_device if self.trainer else self.device

    @property
    def _on_gpu(self) -> bool:
        return self._device is not None and self._device.type == "cuda"

    def first_step(self) -> int:
        return self.trainer.global_step if self.trainer else 0

    def ahead(self) -> int:
        """How many steps' batches are made at once: a GPU's step is over before a processor has made one alone."""
        return _AHEAD_OF_A_GPU if self._on_gpu else 1

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(_Steps(self.plan, self.first_step, self.make_batches, self.ahead), batch_size=None)

    def val_dataloader(self) -> DataLoader[dict[str, list[str]]]:
        """All validation questions at once: they are answered by generation, which batches on its own."""
        texts = [question.text for question in self.validation]
        answers = [question.answer or "" for question in self.validation]
        batches = [{"questions": texts, "answers": answers}] if texts else []
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list will do, the types ask for a Dataset

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches of a training are made where it happens; Lightning would look through every part of each."""
        return batch if isinstance(batch, Batch) else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def positions_at(self, step: int) -> int:
        """Positions of the steps before `step` as the reference counts them: block - 1 an example, padding included."""
        return self.plan.examples_before(step) * (self.block_size - 1)


class SpanCorruptionDataModule(_TrainingData):
    """Documents with a span taken out, and if wanted training questions among them.

    A share `question_share` of an epoch's examples are questions (all of them in turn); several shares follow one
    another along the training, with straight lines between. `question_loss` says whether the questions' loss covers
    "all" of the text or the "answer" alone, `document_loss` whether that of documents covers "all" or the "span" alone.
    Each question is asked in one of the `question_wordings`, drawn anew every time, the `pseudo_labelled` ones too;
    what the corruption policy is told of known places comes from `questions` alone.

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
        micro_batches: int = 8,
        static_width: bool = False,
        question_share: float | Sequence[float] = 0.0,
        question_loss: str = "all",
        document_loss: str = "all",
        question_wordings: Sequence[str] = (QUESTION,),
        document_prefix: str = "",
        validation: Sequence[Question] = (),
        pseudo_labelled: Sequence[Question] = (),
    ):
        super().__init__(block_size, epochs, micro_batches, static_width, validation)
        shares = (question_share,) if isinstance(question_share, int | float) else tuple(question_share)
        if question_loss not in ("all", "answer") or document_loss not in ("all", "span"):
            raise ValueError(f"question_loss is all|answer, document_loss all|span: {question_loss}|{document_loss}")
        check_contract(corruption)
        if (longest := len(document_prefix) + corruption.max_total) > block_size:
            raise ValueError(f"corrupted documents reach {longest} characters, the block has {block_size}")
        self.corruption, self.seed = corruption, seed
        self.question_loss, self.document_loss = question_loss, document_loss
        self.documents, self.prefix = with_prefix(document_store(documents, tokenizer), document_prefix, tokenizer)
        corruption.prepare(documents, distinct_answers(questions))
        check_policy(corruption, self.documents)
        if not any(shares) and list(question_wordings) != [QUESTION]:
            raise ValueError("question_wordings say how questions are asked, and question_share is 0: raise the share")
        if not any(shares) and pseudo_labelled:
            raise ValueError("self_training mixes questions in, and question_share is 0: raise the share")
        questions_mixed_in = (*questions, *pseudo_labelled) if pseudo_labelled else questions if any(shares) else ()
        self.questions = question_store(questions_mixed_in, tokenizer, block_size)
        self.wordings = Wordings(question_wordings, self.questions, questions_mixed_in, tokenizer, block_size)
        self.mixture = Mixture(len(documents), len(questions_mixed_in), shares, epochs, seed)
        self.plan = Plan(self.mixture.sizes, batch_size, seed, shuffle)

    @property
    def longest(self) -> int:
        of_documents = self.corruption.max_total + (self.prefix[1] if self.prefix else 0)
        return self.block_size if len(self.questions) else of_documents

    def parts(self, epoch: int, index: Tensor) -> list[Part]:
        of_documents, of_questions = self.mixture.split(index)
        documents = index[of_documents]
        u = uniforms(self.seed, epoch, documents, self.corruption.n_uniforms)
        corrupted = self.corruption(self.documents, documents, u)
        if self.prefix:
            corrupted = behind(self.prefix, corrupted)
        parts = [Part(self.documents, _with_loss(corrupted, self.document_loss), of_documents)]
        if len(of_questions):
            places = index[of_questions] - self.mixture.n_documents
            wording = stream(self.seed, epoch, places, -4) % len(self.wordings)
            asked = self.wordings.ask(self.mixture.questions(epoch, places), wording)
            parts.append(Part(self.wordings.store, _with_loss(asked, self.question_loss), of_questions))
        return [part for part in parts if len(part.places)]


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

    @property
    def longest(self) -> int:
        return int(self.questions.lengths.view(2, -1).sum(0).max()) + 2

    def parts(self, epoch: int, index: Tensor) -> list[Part]:
        return [Part(self.questions, ask_question(self.questions, index), torch.arange(len(index)))]
