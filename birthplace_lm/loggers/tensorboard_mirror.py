"""A mirror for TensorBoard: a folder of events a stage."""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from birthplace_lm.history import RunLogger
from birthplace_lm.loggers import JobLabels, Mirror


def _harmless(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, at whose first error one line is printed and nothing more is logged: a full disk ends no training."""

    @wraps(method)
    def guarded(self: "TensorBoard", *args: Any, **kwargs: Any) -> Any:
        if self.gone:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.gone = True
            print(f"tensorboard: {' '.join(str(error).split())}; the run goes on without it", flush=True)
            return None

    return guarded


class TensorBoard(TensorBoardLogger, RunLogger):
    """Lightning's TensorBoard logger that also shows pictures and texts, final figures among them; no tables."""

    takes_images = True
    gone = False
    log_metrics = _harmless(TensorBoardLogger.log_metrics)
    log_hyperparams = _harmless(TensorBoardLogger.log_hyperparams)
    save = _harmless(TensorBoardLogger.save)
    finalize = _harmless(TensorBoardLogger.finalize)

    @_harmless
    @rank_zero_only
    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        self.experiment.add_text(name, re.sub("^", "    ", text, flags=re.M), step)  # Markdown's code block

    @_harmless
    @rank_zero_only
    def log_image(self, name: str, path: Path) -> None:
        from matplotlib.image import imread

        self.experiment.add_image(name, imread(path)[..., :3], dataformats="HWC")  # without the alpha channel

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        self.log_text("summary", json.dumps(dict(metrics), indent=2, default=str))


class TensorBoardMirror(Mirror):
    """Events in `<stage>/tensorboard/` of the run folder, those of the scores in `evaluate/tensorboard/`."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ModuleNotFoundError("the TensorBoard logger needs the package tensorboard: pip install tensorboard")
        self.folder = folder
        self._loggers = list[TensorBoard]()

    def stage(self, name: str, resume_step: int) -> TensorBoard:
        """Points from `resume_step` on that an interrupted fit left are hidden, as `CsvHistory` cuts them."""
        logger = TensorBoard(self.folder / name / "tensorboard", name="", version="", purge_step=resume_step)
        self._loggers.append(logger)
        return logger

    @property
    def reached(self) -> bool:
        return not any(logger.gone for logger in self._loggers)

    def scores(self) -> TensorBoard:
        return self.stage("evaluate", 0)


def tensorboard_of_job(labels: JobLabels) -> TensorBoardMirror:
    """The mirror of `logger=tensorboard`; without the package a ValueError, as for any choice that cannot be met."""
    try:
        return TensorBoardMirror(labels.folder)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from None
