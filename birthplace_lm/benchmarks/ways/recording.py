"""The batches of a training's first steps, kept, so that other libraries can be fed exactly them.

Legend: B batch, M micro-batches, T time.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import islice

from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.datamodules import SpanCorruptionDataModule
from birthplace_lm.layouts import Batch
from birthplace_lm.tokenizer import CharTokenizer

_ROWS_A_GROUP = 16  # as the course's recipe has them, 8 groups of 128; a smaller batch has fewer


def data_of(
    documents: Sequence[str], tokenizer: CharTokenizer, block_size: int, batch_size: int, padded: bool = False
) -> SpanCorruptionDataModule:
    """The documents under the reference corruption; padded: every batch one tensor (B, block - 1)."""
    return SpanCorruptionDataModule(
        documents, [], tokenizer, RandomSpans(block_size), block_size, batch_size, epochs=10_000,
        micro_batches=1 if padded else max(1, batch_size // _ROWS_A_GROUP), static_width=padded,
    )  # fmt: skip


class Recording:
    """The first `steps` batches in both layouts: the same examples and targets, once padded to the block, once trimmed.

    Who is fed a recording pays nothing for making batches; this package's own ways pay for theirs in every run.
    """

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, block_size: int, batch_size: int, steps: int
    ):
        self.documents, self.tokenizer = documents, tokenizer
        self.block_size, self.batch_size, self.steps = block_size, batch_size, steps

    @cached_property
    def padded(self) -> list[Batch]:
        """One tensor a step: what a library does that is given rows of the block's length."""
        return self._batches(padded=True)

    @cached_property
    def length_aware(self) -> list[Batch]:
        """M tensors a step, (B/M, T) each with a T of its own: this package's layout."""
        return self._batches(padded=False)

    def _batches(self, padded: bool) -> list[Batch]:
        data = data_of(self.documents, self.tokenizer, self.block_size, self.batch_size, padded)
        return list(islice(data.train_dataloader(), self.steps))
