"""The characters of all texts as one tensor, so that any training sequence is a gather from it.

Where the tensor lies makes no difference: a small corpus is encoded into memory, the texts of a mapped file stay there
and are translated from the file's numbers to the vocabulary's as they are gathered.

Legend: N texts, T characters of a gather.
"""

import copy
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor

from birthplace_lm.corpus import Question
from birthplace_lm.mapped_texts import AskedQuestions, Texts
from birthplace_lm.tokenizer import MASK, MASK_ID, PAD, PAD_ID, CharTokenizer, UnknownCharacterError

_NO_ID = -1  # of a character that no text asked for holds: an embedding refuses it


class TokenStore:
    """Texts in one tensor, MASK and PAD behind them: where each begins (`offsets`) and how long it is, (N,) each."""

    def __init__(self, texts: Iterable[Sequence[int]]):
        texts = list(texts)
        self.lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)  # (N,)
        self.offsets = self.lengths.cumsum(0) - self.lengths  # (N,)
        self._hold(torch.tensor(list(chain(*texts, (MASK_ID, PAD_ID))), dtype=torch.int32), None)

    @classmethod
    def of_mapped(cls, parts: Sequence[Texts], tokenizer: CharTokenizer) -> "TokenStore":
        """Some texts of one mapped file, part by part; raises UnknownCharacterError as encoding them would."""
        store = cls.__new__(cls)
        store.offsets = torch.cat([torch.from_numpy(texts.starts).long() for texts in parts])  # (N,)
        store.lengths = torch.cat([torch.from_numpy(texts.lengths).long() for texts in parts])  # (N,)
        for texts in parts:
            if not tokenizer.knows(texts.characters):
                for text in texts:
                    tokenizer.encode(text)
        alphabet = parts[0].alphabet
        ids = [tokenizer.encode(character)[0] if tokenizer.knows(character) else _NO_ID for character in alphabet]
        assert alphabet.startswith(PAD + MASK) and ids[:2] == [PAD_ID, MASK_ID]
        store._hold(torch.from_numpy(parts[0].ids), torch.tensor(ids))
        return store

    def _hold(self, tokens: Tensor, table: Tensor | None) -> None:
        self._tokens, self._table = tokens, table
        self._copies: dict[torch.device, TokenStore] = {}
        self.mask_at, self.pad_at = len(tokens) - 2, len(tokens) - 1

    def __len__(self) -> int:
        return len(self.lengths)

    def on(self, device: torch.device | None) -> "TokenStore":
        """The store with its tokens where `take` is to gather from them, copied there once."""
        if device is None or device.type == "cpu":
            return self
        if device not in self._copies:
            self._copies[device] = self._copy_on(device)
        return self._copies[device]

    def _copy_on(self, device: torch.device) -> "TokenStore":
        there = copy.copy(self)
        there._hold(self._tokens.to(device), None if self._table is None else self._table.to(device))
        return there

    def take(self, at: Tensor) -> Tensor:
        """The vocabulary's ids at some places of the tensor: (…, T) -> (…, T), int64."""
        found = self._tokens[at].long()
        return found if self._table is None else self._table[found]


class Lengthened(TokenStore):
    """A store with a few texts more behind its end; `texts` (offset, length) tell where these are."""

    def __init__(self, store: TokenStore, texts: Sequence[Sequence[int]]):
        self.offsets, self.lengths = store.offsets, store.lengths
        self.mask_at, self.pad_at = store.mask_at, store.pad_at
        self._store, self._end = store, max(store.mask_at, store.pad_at) + 1
        self._more = torch.tensor([i for text in texts for i in text] or [0])
        self._copies = {}
        ends = torch.tensor([len(text) for text in texts]).cumsum(0)
        self.texts = [(self._end + int(end) - len(text), len(text)) for text, end in zip(texts, ends, strict=True)]

    def _copy_on(self, device: torch.device) -> TokenStore:
        there = copy.copy(self)
        there._store, there._more = self._store.on(device), self._more.to(device)
        return there

    def take(self, at: Tensor) -> Tensor:
        ours = self._store.take(at.clamp(max=self._end - 1))
        return torch.where(at < self._end, ours, self._more[(at - self._end).clamp(min=0)])


def with_prefix(store: TokenStore, prefix: str, tokenizer: CharTokenizer) -> tuple[TokenStore, tuple[int, int] | None]:
    """The store with a prefix behind its end, and where that lies (offset, length); None where the prefix is empty."""
    if not prefix:
        return store, None
    try:
        lengthened = Lengthened(store, [tokenizer.encode(prefix)])
    except UnknownCharacterError as error:
        raise ValueError(f"document_prefix {prefix!r}: {error}") from None
    return lengthened, lengthened.texts[0]


def document_store(documents: Sequence[str], tokenizer: CharTokenizer) -> TokenStore:
    """The documents; raises UnknownCharacterError for one that the vocabulary cannot spell."""
    if isinstance(documents, Texts):
        return TokenStore.of_mapped([documents], tokenizer)
    return TokenStore(tokenizer.encode(document) for document in documents)


def question_store(questions: Sequence[Question], tokenizer: CharTokenizer, block_size: int) -> TokenStore:
    """The questions' texts and behind them their answers; an error where a pair does not fit the block."""
    if isinstance(questions, AskedQuestions) and questions.answers and questions.longest(True) + 2 <= block_size:
        return TokenStore.of_mapped([questions.texts, questions.answers], tokenizer)
    for question in questions:
        if question.answer is None:
            raise ValueError(f"{question.text!r} has no answer to learn from")
        length = len(question.text) + len(question.answer) + 2
        if length > block_size:
            raise ValueError(
                f"{question.text!r} with its answer and two sentinels has {length} characters, "
                f"the block has {block_size}: shorten it or use a model with a larger block_size"
            )
    texts = [question.text for question in questions] + [question.answer or "" for question in questions]
    return TokenStore(tokenizer.encode(text) for text in texts)
