"""birthplace-explore: what it prints, writes and returns, and what it says to a wrong command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from birthplace_lm.cli import explore
from birthplace_lm.composing import ConfigError
from birthplace_lm.exploration import Claim, averaging, copying, fragile, keys_queries_values, lookup, two_heads
from birthplace_lm.exploration.drawing import save
from birthplace_lm.exploration.lookup_task import LookupTask
from birthplace_lm.exploration.page import line, lookup_table, markdown, write
from birthplace_lm.positions.none import NoPositions
from tests.helpers import VARIANTS


@pytest.mark.slow
def test_the_command_writes_pictures_a_page_and_all_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explore.main(["kqv", "average", "--seed", "3", "--out", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert [name.split(":")[0] for name in printed if not name.startswith(" ")][:2] == ["average", "kqv"]
    assert printed[-1].startswith("10 of 10 claims hold")
    record = json.loads((tmp_path / "demonstrations.json").read_text())
    assert record["seed"] == 3 and [found["name"] for found in record["demonstrations"]] == ["average", "kqv"]
    assert all(claim["holds"] for found in record["demonstrations"] for claim in found["claims"])
    assert record["demonstrations"][0]["figures"]["slope"] == averaging.measure(np.random.default_rng(3)).slope()
    page = (tmp_path / "README.md").read_text()
    assert "`birthplace-explore average kqv --seed 3`" in page and "demonstration_kqv.png" in page
    expected = {f"demonstration_{name}.{kind}" for name in ("average", "kqv") for kind in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"README.md", "demonstrations.json"}


@pytest.mark.slow
def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        explore.main(["average", "--out", str(tmp_path / folder)])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_a_claim_that_does_not_hold_is_said_and_ends_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(averaging, "take_out", lambda average, matrix: average @ matrix.T)
    with pytest.raises(SystemExit) as ended:
        explore.main(["average", "--out", str(tmp_path)])
    assert ended.value.code == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert "**does not hold**" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("module", [copying, averaging, fragile, two_heads, keys_queries_values])
def test_every_picture_shows_something_in_every_panel(module: object, tmp_path: Path) -> None:
    figure = module.demonstrate().draw()  # type: ignore[attr-defined]
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) >= 2
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.has_data() for axes in panels)
    save(figure, tmp_path, "picture")
    picture = imread(tmp_path / "picture.png")[..., :3]
    for part in np.array_split(picture, len(panels), axis=1):
        assert part.std() > 0.05


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["copies"], "choose from copy, average, fragile, two_heads, kqv, lookup or all"),
        (["copy", "--table"], "birthplace-explore lookup --table"),
        (["lookup", "--attention", "vanilla"], "--attention goes with lookup --table"),
        (["lookup", "--apart"], "--apart goes with lookup --table"),
        (["lookup", "--gap", "0"], "--gap goes with lookup --table"),
        (["copy", "--seed", "-1"], "--seed -1: use 0 or more"),
        (["copy", "--out", __file__], "error: "),
        (["copy", "--out", f"{__file__}/sub"], "error: "),
        (["lookup", "--table", "--seed", "3"], "--table trains with seeds 0, 1 and 2: leave --seed out"),
    ],
)
def test_a_wrong_command_says_what_would_be_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        explore.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_all_is_all_and_what_is_asked_when_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(explore, "_show", lambda names, options: bool(asked.append(names)) or True)
    for arguments in ([], ["all"], ["copy", "all"], ["kqv", "copy"]):
        explore.main(arguments)
    assert asked == [list(explore.FILES)] * 3 + [["copy", "kqv"]]


def test_every_attention_of_the_configs_can_be_measured() -> None:
    factories = explore._factories(None)
    assert list(factories) == VARIANTS
    layer = factories["vanilla"](d_model=8, n_heads=2, block_size=4, dropout=0.0, positions=NoPositions(4, 8, 2))
    assert type(layer).__name__ == "VanillaAttention"
    with pytest.raises(ConfigError, match="no attention van: choose from additive, "):
        explore._factories(["van"])


def test_the_table_of_lookups_is_measured_into_the_folder_and_shown_on_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"attention": "vanilla", "task": "content", "layers": 1, "accuracy": 0.9912, "seeds": 3},
        {"attention": "vanilla", "task": "position", "layers": 2, "accuracy": 1.0, "seeds": 2},
        {"attention": "synthesizer", "task": "content", "layers": 1, "accuracy": 0.125, "seeds": 3},
    ]

    def measure(factories: dict[str, object], path: Path, task: LookupTask) -> None:
        assert list(factories) == ["vanilla", "synthesizer"]
        setting = vars(task) | {"content_blind": task.content_blind}
        path.write_text(json.dumps({"setting": setting, "results": rows}))

    monkeypatch.setattr(lookup, "measure", measure)
    command = ["lookup", "--table", "--attention", "vanilla", "synthesizer", "--out", str(tmp_path)]
    explore.main(command)
    assert lookup_table(tmp_path / "lookup.json") == ""  # not drawn yet: the measurement goes on
    (tmp_path / "lookup.png").touch()
    shown = lookup_table(tmp_path / "lookup.json")
    assert "| attention | content, 1 layer | position, 2 layers |" in shown and "mean over 2–3 seeds" in shown
    assert "| synthesizer | 12.5% | – |" in shown and "| vanilla | 99.1% | 100.0% |" in shown
    assert "asked 32 places behind the pairs\n" in shown and "lookup --table`" in shown and "](lookup.png)" in shown
    for options, stem, gap in ((["--apart"], "lookup_apart", 32), (["--apart", "--gap", "8"], "lookup_apart_gap8", 8)):
        explore.main([*command, *options])
        setting = json.loads((tmp_path / f"{stem}.json").read_text())["setting"]
        assert setting.items() >= vars(LookupTask(gap=gap, apart=True)).items()
        (tmp_path / f"{stem}.png").touch()
        other = lookup_table(tmp_path / f"{stem}.json")
        assert f"{gap} places behind the pairs, key and value at a place of their own each" in other
        assert f"lookup --table {' '.join(options)}`" in other and f"]({stem}.png)" in other
        assert "By content 12.5% is" in other and "takes two layers" in other and "takes two layers" not in shown
    write([copying.demonstrate()], tmp_path, 0, "birthplace-explore copy")
    page = (tmp_path / "README.md").read_text()
    assert [page.count(f"]({stem}.png)") for stem in ("lookup", "lookup_apart", "lookup_apart_gap8")] == [1, 1, 1]
    with pytest.raises(SystemExit):
        explore.main([*command, "--gap", "-1"])


@pytest.mark.parametrize("text", ["{", "{}", '{"setting": {}}', "[]"])
def test_a_table_that_is_none_is_told_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "lookup.json").write_text(text)
    (tmp_path / "lookup.png").touch()
    for command in (["copy"], ["lookup", "--table", "--attention", "vanilla"]):
        with pytest.raises(SystemExit, match="2"):
            explore.main([*command, "--out", str(tmp_path)])
        assert f"{tmp_path / 'lookup.json'} is no table of lookups" in capsys.readouterr().err


def test_help_waits_for_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "birthplace_lm.cli.explore", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {row.rsplit("|", 1)[-1].strip() for row in done.stderr.splitlines()}
    assert "argparse" in modules and not modules & {"torch", "matplotlib", "numpy", "hydra"}


def test_a_line_keeps_measured_and_bound_apart() -> None:
    assert "0.333 < 0.334" in line(Claim("a third", 0.3333, 0.3338))
    assert "0.33333 < 0.33334" in line(Claim("a third", 1 / 3, 0.33334))
    assert "DOES NOT HOLD        1.0 < 1.0" in line(Claim("equal", 1.0, 1.0))


def test_bars_do_not_break_the_tables_of_the_page() -> None:
    for row in markdown([averaging.demonstrate()], "command").splitlines():
        if row.startswith("| ") and "holds" in row:
            assert row.replace("\\|", "").count("|") == 5
