"""Characters to ids and back: fitted once on the pretraining text, then frozen and saved with the run."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from birthplace_lm.replacing import replace_file

PAD = "□"  # U+25A1, fills what is left of a row
MASK = "⁇"  # U+2047, stands for the removed span, and ends what is asked for
PAD_ID, MASK_ID = 0, 1


class UnknownCharacterError(ValueError):
    """A text holds a character that the pretraining text never showed."""


class CharTokenizer:
    """A frozen vocabulary of characters: PAD, MASK, then the others in code-point order.

    >>> tokenizer = CharTokenizer.fit(["Ada. Born in Pau ."])
    >>> tokenizer.decode(tokenizer.encode("Pau"))
    'Pau'
    >>> tokenizer.characters[:4]
    ('□', '⁇', '\\n', ' ')
    """

    def __init__(self, characters: Sequence[str]):
        self.characters = tuple(characters)
        if self.characters[:2] != (PAD, MASK):
            raise ValueError(f"a vocabulary starts with {PAD!r} and {MASK!r}, this one with {self.characters[:2]}")
        if any(len(character) != 1 for character in self.characters):
            raise ValueError("a vocabulary is made of single characters")
        if len(set(self.characters)) != len(self.characters):
            raise ValueError(f"{len(self.characters) - len(set(self.characters))} characters stand twice")
        self._ids = {character: i for i, character in enumerate(self.characters)}

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "CharTokenizer":
        """The vocabulary of the pretraining documents; the newline that parts them counts as a character of theirs."""
        seen = {"\n"}
        for text in texts:
            seen.update(text)
        for special in (PAD, MASK):
            if special in seen:
                raise ValueError(f"the text holds {special!r} (U+{ord(special):04X}), which is kept for the model")
        return cls((PAD, MASK, *sorted(seen)))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """One id a character; raises UnknownCharacterError for a character outside the vocabulary."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            at = text.index(error.args[0])
            raise UnknownCharacterError(
                f"character {error.args[0]!r} (U+{ord(error.args[0]):04X}) at position {at + 1} of {text!r} "
                f"is not among the {len(self)} of the vocabulary; it must occur in the pretraining text"
            ) from None

    def knows(self, characters: Iterable[str]) -> bool:
        """Whether all of these characters, or those of a text, have ids."""
        return self._ids.keys() >= set(characters)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[i] for i in ids)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that two vocabularies share only when they are the same."""
        return hashlib.sha256("".join(self.characters).encode()).hexdigest()[:16]

    def save(self, path: Path | str) -> None:
        replace_file(Path(path), json.dumps({"characters": self.characters}, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path | str) -> "CharTokenizer":
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8"))["characters"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a vocabulary file ({error})") from None
