"""Numbers of a training that have to be finite: seen as they come on a processor, some steps later on a GPU."""

import math

import torch
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became NaN or infinite; nothing that is kept was made with it."""

    def __init__(self, what: str, value: float, step: int):
        super().__init__(
            f"{what} is {value} at step {step}: nothing of it was saved, and earlier checkpoints stay. "
            "A lower learning rate or a longer warm-up makes a run of its own"
        )


class FiniteNumbers:
    """Raises NonFiniteLossError for a number that is not finite: before its step is made, if it lies on a processor.

    To look at a number on a GPU is to wait for everything that was launched before. Those are only noted, and `look` at
    all of them comes before anything is written that depends on them.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[str, int, Tensor]] = []

    def see(self, what: str, value: Tensor, step: int) -> None:
        """Take note of a scalar by its name and step."""
        self._noted.append((what, step, value))
        if value.device.type == "cpu":
            self.look()

    def look(self) -> None:
        """Raise for the first that is not finite since the last look."""
        noted, self._noted = self._noted, []
        if not noted:
            return
        values = torch.stack([value.float() for _, _, value in noted]).tolist()
        for (what, step, _), value in zip(noted, values, strict=True):
            if not math.isfinite(value):
                raise NonFiniteLossError(what, value, step)
