"""The report's page: what stands in it is what the runs hold, whatever they are called, and it asks for nothing."""

import base64
import hashlib
import itertools
import json
import math
import random
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from birthplace_lm.cli import report as command
from birthplace_lm.evaluation.exact_match import wilson
from birthplace_lm.report import looks, markup, page, records, sections, tradeoffs
from birthplace_lm.report.browsing import answers_of
from birthplace_lm.report.collecting import collect
from birthplace_lm.report.comparing import Variant, compare
from birthplace_lm.report.curves import mean_curve, running_mean, stage_curves
from birthplace_lm.report.slices import Pooled, pooled, slice_picture
from tests.test_report import finished

NASTY = "\x07</script><img src=x onerror=alert(1)> $x^$ \"'&amp; <!--DATA--> ]]> #888888; url(#p)"
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40
VOID = {"meta", "img", "input", "br", "link", "hr", "wbr"}


class Reader(HTMLParser):
    """Elements as (tag, attributes, text directly in it), and the path of open tags, checked to nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)

    def texts(self, *tags: str) -> list[str]:
        return ["".join(text) for tag, _, text in self.elements if not tags or tag in tags]


def variants(*places: Path, baseline: str = "vanilla") -> list[Variant]:
    return compare(collect(places)[0], baseline)


def with_characters(folder: Path, stage: str, losses: list[float], each: int = 10) -> None:
    (folder / stage).mkdir(exist_ok=True)
    rows = "".join(f"{i},train/loss,{loss}\n{i},train/characters,{i * each}\n" for i, loss in enumerate(losses))
    (folder / stage / "metrics.csv").write_text("step,name,value\n" + rows)


def sliced(folder: Path, **tables: dict[str, tuple[int, int]]) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["slices"] = {
        name: {label: {"correct": correct, "total": total} for label, (correct, total) in rows.items()}
        for name, rows in tables.items()
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def nasty(tmp_path: Path) -> list[Variant]:
    """Two variants, everything of which is called something that means harm."""
    for name, right in (("a", "1"), ("b", "0")):
        folder = finished(tmp_path, name, right, attention=f"{NASTY}{name}", positions=NASTY)
        with_characters(folder, "pretrain", [2.0, 1.5, 1.0])
        sliced(folder, train_frequency={NASTY: (1, 2), "0": (0, 0)})
        rows = [{"question": NASTY, "answer": NASTY, "prediction": f"{NASTY}{name}", "log_probability": -0.5}]
        (folder / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        session = json.loads((folder / "provenance.json").read_text())["sessions"][0]
        session |= {"command": ["train", NASTY], "versions": {NASTY: NASTY}, "hardware": [NASTY], "started": NASTY}
        (folder / "provenance.json").write_text(json.dumps({"sessions": [session]}))
        (folder / "attention").mkdir()
        (folder / "attention" / 'x<b>&" onload="alert(1).png').write_bytes(PNG)
        (folder / "knowledge.json").write_text(
            json.dumps({"confidence": {"signals": {NASTY: {"auroc": {"value": 1}}}}})
        )
    return variants(tmp_path)


def test_names_that_mean_harm_stay_text(nasty: list[Variant]) -> None:
    read = Reader(page.page(nasty, [f"{NASTY}: no run"], title=NASTY))
    tags = Counter(tag for tag, _, _ in read.elements)
    assert tags["script"] == 2 and tags["img"] == 2 and "b" not in tags
    attributes = [(name, value) for _, own, _ in read.elements for name, value in own.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    links = [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert NASTY in read.texts("h1") and NASTY in read.texts("title") and f"{NASTY}: no run" in read.texts("li")
    assert sum(NASTY in text for text in read.texts("th")) >= 2 and sum(NASTY in text for text in read.texts("td")) >= 2


def test_the_policy_lets_one_script_run_and_nothing_be_asked_for(nasty: list[Variant]) -> None:
    read = Reader(page.page(nasty))
    (policy,) = [own["content"] or "" for tag, own, _ in read.elements if own.get("http-equiv")]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    script = next("".join(text) for tag, own, text in read.elements if tag == "script" and "type" not in own)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == ["'none'"] and rules["script-src"] == [f"'sha256-{digest}'"]
    assert rules["img-src"] == ["data:"] and "connect-src" not in rules


def test_every_id_is_there_once_and_what_refers_to_one_finds_it(nasty: list[Variant]) -> None:
    read = Reader(page.page(nasty))
    ids = Counter(own["id"] for _, own, _ in read.elements if own.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    for _, own, _ in read.elements:
        referred = (own.get("aria-labelledby") or "").split()
        referred += [
            (own.get(name) or "")[1:] for name in ("href", "xlink:href") if (own.get(name) or "").startswith("#")
        ]
        referred += [name for value in own.values() for name in re.findall(r"url\(#([^)]+)\)", value or "")]
        assert set(referred) <= set(ids)
    script = (Path(page.__file__).parent / "page.js").read_text()
    assert set(re.findall(r'byId\("(\w+)"\)', script)) <= set(ids)


def test_headings_go_down_one_step_at_a_time(nasty: list[Variant]) -> None:
    levels = [int(tag[1]) for tag, _, _ in Reader(page.page(nasty)).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(levels) == 3
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))


def test_every_picture_has_a_name_and_keeps_its_words(nasty: list[Variant]) -> None:
    read = Reader(page.page(nasty))
    pictures = [own for tag, own, _ in read.elements if tag == "svg"]
    assert len(pictures) >= 5 and all(own["role"] == "img" and own["aria-labelledby"] for own in pictures)
    assert "exact match" in read.texts("text") and all(text.strip() for text in read.texts("desc"))


def test_the_answers_of_the_page_are_those_of_the_runs(tmp_path: Path) -> None:
    for name, right in (("a", "1100"), ("b", "0111")):
        finished(tmp_path, name, right, attention=name)
    finished(tmp_path, "c", "11111", attention="c")
    found = variants(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "a" / "predictions" / "dev.jsonl").read_text().splitlines()]
    rows[0]["log_probability"], rows[1]["log_probability"] = -0.25, 0.0
    (tmp_path / "a" / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = answers_of(found)
    assert len(set(told["strings"])) == len(told["strings"])
    assert len(told["sets"]) == 2 and len({run["set"] for run in told["runs"] if run["name"] != "c"}) == 1
    (run,) = [run for run in told["runs"] if run["name"] == "a"]
    read = [[told["strings"][i] for i in numbers] for numbers in (*told["sets"][run["set"]], run["said"])]
    assert list(zip(*read, strict=True)) == [(row["question"], row["answer"], row["prediction"]) for row in rows]
    assert run["sure"] == [round(1000 * math.exp(-0.25)), 1000, -1, -1] and run["variant"] == "a"


def test_a_running_mean_is_the_mean_of_the_last() -> None:
    values = np.random.default_rng(0).normal(size=23)
    for width in (1, 4, 30):
        slow = [values[max(0, i + 1 - width) : i + 1].mean() for i in range(23)]
        assert running_mean(values, width) == pytest.approx(np.array(slow))


def test_a_mean_curve_is_the_mean_where_all_seeds_have_one() -> None:
    one = np.array([[0.0, 10, 20, 30], [4.0, 3, 2, 1]])
    other = np.array([[10.0, 20, 30, 40], [1.0, 1, 1, 1]])
    curve = mean_curve([one, other], points=3)
    assert curve is not None and curve == pytest.approx(np.array([[10, 20, 30], [2, 1.5, 1]]))
    assert mean_curve([]) is None and mean_curve([one, other + np.array([[100], [0]])]) is None
    assert mean_curve([one, np.array([[np.nan], [1.0]])]) is None


def test_a_stage_has_a_curve_where_every_seed_has_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        with_characters(finished(tmp_path, f"v{seed}", seed=seed), "pretrain", [4.0 - seed, 2.0 - seed])
    with_characters(tmp_path / "v0", "finetune", [1.0, 1.0])
    found = variants(tmp_path)
    assert stage_curves(found, "pretrain")["vanilla"][1, [0, -1]] == pytest.approx([3.5, 1.5])
    assert stage_curves(found, "finetune") == {}
    assert "Pretraining</h3>" in sections.losses(found, "vanilla")
    assert "Finetuning" not in sections.losses(found, "vanilla")


def test_the_front_is_what_no_other_point_beats() -> None:
    for seed in range(50):
        draw = random.Random(seed)
        points = [(draw.randrange(6), draw.randrange(6)) for _ in range(8)]
        slow = {
            p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)
        }  # fmt: skip
        found = [points[i] for i in tradeoffs.front(points)]
        assert set(found) == slow and found == sorted(found) and len(found) == len(slow)


def test_slices_of_all_seeds_are_taken_together(tmp_path: Path) -> None:
    for seed, right in ((0, 1), (1, 3)):
        folder = finished(tmp_path, f"v{seed}", seed=seed)
        sliced(folder, train_frequency={"0": (right, 4), "1": (0, 0), "2–4": (0, 5)}, name_script={"ASCII": (2, 1)})
    (variant,) = variants(tmp_path)
    own = pooled(variant, "train_frequency")
    assert own == {"0": Pooled(4, 8), "1": Pooled(0, 0), "2–4": Pooled(0, 10)}
    assert own["0"].interval == wilson(4, 8) and own["1"].share is None and own["2–4"].share == 0
    assert pooled(variant, "name_script") == {} == pooled(variant, "answer_end")  # more right than asked; not there
    (axes,) = slice_picture([variant], "train_frequency", "vanilla").axes
    (line,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert np.array_equal(line.get_ydata(), [0.5, np.nan, 0.0], equal_nan=True)  # a gap, not 0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\n4", "1\n0", "2–4\n5"]
    (tmp_path / "v0" / "metrics.json").write_text(
        (tmp_path / "v0" / "metrics.json").read_text().replace('"slices": {', '"slices": [], "old": {')
    )
    assert pooled(variants(tmp_path)[0], "train_frequency") == {}


def test_a_picture_follows_the_page_and_keeps_what_names_say() -> None:
    name = '#888888; url(#x) $a^$ id="x"'

    def draw() -> Figure:
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], color=looks.BLUE)
        axes.plot([1, 0], color=looks.GREY)
        axes.set_title(name)
        return figure

    svg = looks.inline_svg(draw, "key", "T<", "D&")
    root = ElementTree.fromstring(svg)
    assert name in [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert [element.text for element in list(root)[:2]] == ["T<", "D&"]
    styles = " ".join(value for element in root.iter() for value in (*element.attrib.values(),))
    assert {"currentColor", "var(--blue)", "var(--grey)"} <= set(re.findall(r"currentColor|var\([^)]*\)", styles))
    assert not re.search(r"#(000000|010203|0072b2|888888)", styles)
    assert all(element.get("id", "key-").startswith("key-") for element in root.iter())
    assert not [element for element in root.iter() if element.tag.endswith(("}style", "}metadata"))]
    assert "var(" not in looks.inline_svg(draw, "key", "T", "D", themed=False)


def luminance(colour: str) -> float:
    """Of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_and_lines_stand_out_from_the_paper(theme: int) -> None:
    style = (Path(page.__file__).parent / "page.css").read_text()
    found = re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    colours = {name: pair[theme] for name, *pair in found}
    for word in ("text", "quiet", "link", "right", "wrong"):
        assert min(contrast(colours[word], colours[ground]) for ground in ("paper", "panel")) >= 4.5, word
    assert contrast(colours["text"], colours["mark"]) >= 4.5
    for line in [*(name for name, *_ in looks.SERIES), "grey"]:
        assert contrast(colours[line], colours["paper"]) >= 3, line
    used = set(re.findall(r"var\(--(\w+)\)", style)) | {v[6:-1] for v in looks._VARIABLES.values() if "(" in v}
    assert used <= set(colours)


def test_settings_that_differ_are_shown_and_marked(tmp_path: Path) -> None:
    for name, epochs in (("a", 3), ("b", 3), ("c", 30)):
        finished(tmp_path, name, attention=name, epochs=epochs)
    read = Reader(records.settings(variants(tmp_path)))
    assert read.texts("mark") == ["30"]
    assert [text for text in read.texts("th") if "." in text] == ["attention.kind", "pretrain.epochs"]
    assert "data.people" in read.texts("dt") and "4" in read.texts("dd") and "pretrain.epochs" not in read.texts("dt")


def test_a_value_of_half_of_the_variants_is_not_what_most_have(tmp_path: Path) -> None:
    for name, epochs in (("a", 3), ("b", 3), ("c", 30), ("d", 300)):
        finished(tmp_path, name, attention=name, epochs=epochs)
    assert Reader(records.settings(variants(tmp_path))).texts("mark") == []
    finished(tmp_path, "e", attention="e", epochs=3)
    assert Reader(records.settings(variants(tmp_path))).texts("mark") == ["30", "300"]


def test_provenance_names_machines_once_and_marks_uncommitted_changes(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = finished(tmp_path, f"v{seed}", seed=seed)
        session = json.loads((folder / "provenance.json").read_text())["sessions"][0]
        session |= {"hardware": {"threads": 2, "gpu": None}, "versions": {"torch": "9"}, "command": ["train", "x=1"]}
        session |= {"dirty": True, "started": "2026-01-02T03:04:05+00:00", "python": "3.11.7"}
        (folder / "provenance.json").write_text(json.dumps({"sessions": [session, session]}))
    read = Reader(records.provenance(variants(tmp_path)))
    assert read.texts("dd") == ["threads 2, python 3.11.7, torch 9"]
    assert read.texts("mark") == ["cccccccccc with changes"] * 2
    assert {"train x=1", "2026-01-02 03:04", "dddddddddddd", "2"} <= set(read.texts("td"))


def test_pictures_of_attention_are_held_by_the_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = finished(tmp_path, name, attention=name) / "attention"
        folder.mkdir()
        for number in range(5):
            (folder / f"{name}{number}.png").write_bytes(PNG)
    (tmp_path / "a" / "attention" / "a0.png").write_bytes(b"<svg onload=alert(1)>")
    (tmp_path / "b" / "attention" / "b0.png").write_bytes(PNG + b"0" * sections.MOST_BYTES)
    read = Reader(sections.attention(variants(tmp_path)))
    captions = [text.split(",")[0] for text in read.texts("figcaption")]
    assert "4 more lie" in " ".join(read.texts("p"))
    assert captions == ["a1", "b1", "a2", "b2", "a3", "b3"] and sections.MOST_IMAGES == 6
    held = {own["src"] for tag, own, _ in read.elements if tag == "img"}
    assert held == {"data:image/png;base64," + base64.b64encode(PNG).decode()}
    assert sections.attention(variants(finished(tmp_path / "none", "c"))) == ""


def test_what_a_knowledge_card_holds_is_told_and_what_it_lacks_is_a_dash(tmp_path: Path) -> None:
    share = {"value": 0.5, "count": 2, "total": 4, "why": ""}
    undefined = {"value": None, "why": "there are no stored places"}
    card = {
        "stored": {"cloze": {"either": {"stored": share, "right_given_stored": undefined}}},
        "confidence": {"signals": {"margin": {"auroc": {"value": 0.75, "low": 0.6, "high": 0.9}}, "odd": 3}},
        "thresholds_hold": {"0.1": {"answered": share, "threshold": 0.3}},
        "unknown_names": {"gibberish": {"known_place": share, "asked": 4}, "held out": {"asked": 0}},
        "errors": {"types": {"namesake's place": share}, "right_country": share},
    }
    for name, content in (("a", json.dumps(card)), ("b", '{"stored": ['), ("c", "[]")):
        (finished(tmp_path, name, attention=name) / "knowledge.json").write_text(content)
    html = page.knowledge_cards(variants(tmp_path))
    read = Reader(html)
    assert read.texts("td") == [
        "50.0% (2 of 4)",
        "not defined: there are no stored places",
        "–",
        *("–", "–", "–", "–", "50.0% (2 of 4)", "–"),  # of the surest; nothing of calibration, so no table
        *("50.0% (2 of 4)", "–", "–"),
        "0.750 (0.60 – 0.90)",
        "–",
        *("50.0% (2 of 4)", "–", "50.0% (2 of 4)"),
    ]
    assert "<svg" not in html  # a part of a card draws no picture
    assert page.knowledge_cards(variants(finished(tmp_path / "none", "d"))) == ""


def test_cards_of_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place, right in (("a", 4), ("b", 2)):
        share = {"value": right / 4, "count": right, "total": 4, "why": ""}
        card = {"stored": {"cloze": {"either": {"stored": share}}}}
        folder = finished(tmp_path / place, "demo", attention=place)
        (folder / "knowledge.json").write_text(json.dumps(card))
    read = Reader(page.knowledge_cards(variants(tmp_path)))
    assert read.texts("th")[-2:] == [str(tmp_path / place / "demo") for place in "ab"]
    assert read.texts("td")[::3] == ["100.0% (4 of 4)", "50.0% (2 of 4)"]


def test_cells_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    finished(tmp_path, "a", "1100")
    read = Reader(sections.results(variants(tmp_path), "other"))
    row = [own for tag, own, _ in read.elements if tag == "td"]
    low = f"{wilson(2, 4)[0]:.12g}"  # type: ignore[index]
    pace = f"{500 / 90:.12g}"
    assert [own.get("data-value") for own in row] == ["1", "0.5", low, None, None, None, "1.385", "1000", pace, "90"]
    assert "no variant other" in " ".join(read.texts("p"))


def test_what_is_said_of_a_single_seed_is_what_its_interval_is_over(tmp_path: Path) -> None:
    """All questions are alike here, so that the interval can only come from the seeds of the other variant."""
    finished(tmp_path, "v", "1111")
    for seed, right in enumerate(["1111", "0000"]):
        finished(tmp_path, f"w{seed}", right, attention="linear", seed=seed)
    found = variants(tmp_path)
    (difference,) = [variant.difference for variant in found if variant.difference]
    assert (difference.low, difference.high, difference.p) == (-1, 0, None)
    text = " ".join(Reader(sections.results(found, "vanilla")).texts("p"))
    assert "questions alone" not in text
    assert "where one of the two has one seed, the interval is the bootstrap’s, over questions and the other’s" in text


def test_the_command_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "runs", "a")
    (finished(tmp_path / "runs", "b") / "metrics.json").unlink()
    out = tmp_path / "new" / "report.html"
    command.main([str(tmp_path / "runs"), "--out", str(out), "--title", "A <title>"])
    read = Reader(out.read_text(encoding="utf-8"))
    assert read.texts("h1") == ["A <title>"] and [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert any("no scored answers yet" in text for text in read.texts("li"))
    assert "report.html: 0." in capsys.readouterr().out


def many(root: Path, attentions: int, seeds: int, questions: int) -> None:
    """Runs with different answers, curves and slices."""
    draw = random.Random(0)
    for number, seed in itertools.product(range(attentions), range(seeds)):
        right = "".join(draw.choice("01") for _ in range(questions))
        folder = finished(root, f"run-{number}-{seed}", right, attention=f"variant_{number}", seed=seed)
        with_characters(folder, "pretrain", [2 + draw.random() for _ in range(300)])
        sliced(folder, train_frequency={label: (draw.randrange(9), 9) for label in ("0", "1", "2–4", "5–9")})
        places = [f"Place {i}" for i in range(200)]
        rows = [
            {"question": f"Where was P{i} born?", "answer": places[i % 200], "log_probability": -draw.random(),
             "prediction": places[i % 200] if bit == "1" else draw.choice(places)}
            for i, bit in enumerate(right)
        ]  # fmt: skip
        (folder / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_five_hundred_runs_make_a_page_that_still_opens(tmp_path: Path) -> None:
    many(tmp_path, attentions=125, seeds=4, questions=500)
    text = page.page(variants(tmp_path, baseline="variant_0"))
    told: dict[str, Any] = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert len(told["runs"]) == 500 and len(told["sets"]) == 1 and len(told["strings"]) == 700
    assert len(text.encode()) < 15e6


def test_a_name_may_break_between_its_words_and_stays_the_same_text() -> None:
    told = markup.table("caption", ["variant", "a_setting"], [["talking_heads_x", "some_value"]])
    assert "talking_<wbr>heads_<wbr>x</th>" in told and "some_value</td>" in told and "a_setting</th>" in told
    assert "talking_heads_x" in Reader(told).texts("th")
