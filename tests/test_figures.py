"""The picture of a run: drawn from histories of any length, absent where there is none."""

from pathlib import Path

from matplotlib.image import imread

from birthplace_lm.figures import _running_mean, loss_curves
from birthplace_lm.runs import RunFolder, write_json


def finished_stage(folder: RunFolder, name: str, rows: list[str]) -> None:
    stage = folder.stage(name)
    write_json(stage.root / "stage.json", {})
    stage.weights.write_bytes(b"")
    stage.history.write_text("\n".join(["step,name,value", *rows]) + "\n")


def test_every_finished_stage_is_drawn(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a run")
    assert loss_curves(folder) is None
    rows = [f"{i},train/loss,{3 / (i + 1)}" for i in range(0, 60, 3)] + [
        "0,train/characters,9",
        "59,train/characters,900",
    ]
    finished_stage(folder, "pretrain", rows)
    alone = imread(loss_curves(folder) or "")
    finished_stage(folder, "finetune", ["9,train/loss,0.1", "9,train/characters,50", "7,validation/exact_match,0.5"])
    both = imread(loss_curves(folder) or "")
    assert both.shape[1] == 2 * alone.shape[1] and both.std() > 0.05


def test_the_running_mean_is_one() -> None:
    assert _running_mean([1.0, 3.0, 5.0, 1.0], 2) == [1.0, 2.0, 4.0, 3.0]
