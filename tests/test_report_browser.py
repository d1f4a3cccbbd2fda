"""The report's page in a real browser: opened from disk, sorted, searched, paged, turned dark, and read on a phone.

Skipped, with the reason, where Playwright for Python or a Chromium is missing: `pip install -e ".[browser]"` and
`apt-get install chromium`, say.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from birthplace_lm.replacing import replace_file
from birthplace_lm.report import page, tables
from birthplace_lm.report.collecting import collect
from birthplace_lm.report.comparing import compare
from tests.test_report import finished
from tests.test_report_page import NASTY, PNG, many, with_characters

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SURE = (0.95, 0.8, 0.3, 0.1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of thirty-four runs, one of them with a name that means harm and with answers of known probability."""
    root = tmp_path_factory.mktemp("runs")
    many(root, attentions=11, seeds=3, questions=60)
    folder = finished(root, "zz", "1010", attention=NASTY, data="e" * 64)
    with_characters(folder, "pretrain", [2.0, 1.0])
    rows = [json.loads(line) for line in (folder / "predictions" / "dev.jsonl").read_text().splitlines()]
    for row, sure in zip(rows, SURE, strict=True):
        row["log_probability"] = math.log(sure)
    rows[1]["prediction"] = NASTY
    (folder / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "attention").mkdir()
    (folder / "attention" / "map.png").write_bytes(PNG)
    out = root / "report.html"
    replace_file(out, page.page(compare(collect([root])[0], "variant_0"), ["x: y"], "variant_0"))
    return out


class Opened:
    """A page that was opened from disk, with what it complained of and what it asked for."""

    def __init__(self, browser: Any, report: Path, width: int = 1200, scheme: str = "light", **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url[:200]))
        self.page.goto(report.as_uri())

    def rows(self, table: str) -> list[list[str]]:
        script = "table => [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
        return self.page.eval_on_selector(table, script)  # type: ignore[no-any-return]

    def number(self, script: str) -> int:
        return int(self.page.evaluate(script))


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    found = Opened(browser, report)
    yield found
    found.page.close()
    assert found.complaints == []


def test_the_page_asks_for_itself_and_for_nothing_else(opened: Opened, report: Path) -> None:
    opened.page.wait_for_timeout(200)
    assert [url for url in opened.requests if not url.startswith("data:image/png;base64,")] == [report.as_uri()]


def test_a_table_is_sorted_by_pointer_and_by_keyboard(opened: Opened) -> None:
    table = "section:first-of-type table.sortable"
    before = opened.rows(table)
    header = opened.page.locator(f"{table} thead th").nth(2)
    assert header.get_attribute("aria-sort") is None
    header.get_by_role("button").click()
    shares = [float(row[2].rstrip("%")) for row in opened.rows(table)]
    assert header.get_attribute("aria-sort") == "descending" and shares == sorted(shares, reverse=True)
    header.get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    shares = [float(row[2].rstrip("%")) for row in opened.rows(table)]
    assert header.get_attribute("aria-sort") == "ascending" and shares == sorted(shares)
    p, points_of = tables.HEADER.index("p"), tables.HEADER.index("against baseline")
    other = opened.page.locator(f"{table} thead th").nth(p)
    other.get_by_role("button").click()
    assert header.get_attribute("aria-sort") is None and other.get_attribute("aria-sort")
    assert [row[p] for row in opened.rows(table)][-1] == "–"  # without a value: last
    opened.page.locator(f"{table} thead th").nth(points_of).get_by_role("button").click()
    *points, one, other = [row[points_of].split()[0] for row in opened.rows(table)]
    assert one == other == "–"  # the baseline, and the run that was asked about people of other places
    assert points == sorted(points, key=float, reverse=True) and float(points[-1]) < 0
    assert sorted(opened.rows(table)) == sorted(before)


def test_answers_are_searched_filtered_and_sorted(opened: Opened) -> None:
    opened.page.select_option("#run", label="zz")
    assert [row[4] for row in opened.rows("#said")] == ["95.0%", "80.0%", "30.0%", "10.0%"]
    assert opened.rows("#said")[1][2] == NASTY
    opened.page.select_option("#verdict", "right")
    assert [row[0] for row in opened.rows("#said")] == ["Where was P0 born?", "Where was P2 born?"]
    opened.page.fill("#low", "50")
    assert [row[3] for row in opened.rows("#said")] == ["✓ right"]
    opened.page.select_option("#verdict", "all")
    opened.page.fill("#high", "90")
    assert [row[4] for row in opened.rows("#said")] == ["80.0%"]
    opened.page.fill("#low", "")
    opened.page.fill("#high", "")
    opened.page.fill("#search", "p3 BORN")
    assert [row[0] for row in opened.rows("#said")] == ["Where was P3 born?"]
    opened.page.fill("#search", "nobody")
    assert opened.rows("#said") == [] and "No answer" in (opened.page.text_content("#found") or "")
    opened.page.fill("#search", "")
    opened.page.locator("#said thead button").nth(4).click()
    opened.page.locator("#said thead button").nth(4).click()
    assert [row[4] for row in opened.rows("#said")] == ["10.0%", "30.0%", "80.0%", "95.0%"]


def test_answers_come_page_by_page_and_say_how_many_runs_got_them_right(opened: Opened) -> None:
    opened.page.select_option("#run", label="run-0-0")
    seen = []
    for _ in range(3):
        seen += opened.rows("#said")
        assert opened.page.is_disabled("#next") == (len(seen) == 60)
        if len(seen) < 60:
            opened.page.click("#next")
    assert [row[0] for row in seen] == [f"Where was P{i} born?" for i in range(60)]
    assert opened.page.text_content("#found", timeout=1000).startswith("51–60 of 60 answers")  # type: ignore[union-attr]
    told = json.loads(opened.page.text_content("#data") or "")
    asked = told["runs"][0]["set"]
    right = [run["said"][7] == told["sets"][asked][1][7] for run in told["runs"] if run["set"] == asked]
    assert seen[7][5] == f"{sum(right)} of 33"


def test_colours_turn_dark_and_stay_so(browser: Any, report: Path) -> None:
    found = Opened(browser, report, scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = found.page.evaluate(paper)
    assert found.page.text_content("#theme") == "Light colours"
    found.page.emulate_media(media="print")
    assert found.page.evaluate(paper) == "rgb(255, 255, 255)" and not found.page.is_visible(".controls")
    found.page.emulate_media(media="screen")
    found.page.click("#theme")
    light = found.page.evaluate(paper)
    assert light == "rgb(255, 255, 255)" != dark and found.page.text_content("#theme") == "Dark colours"
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
    assert found.page.evaluate(ink) == found.page.evaluate("getComputedStyle(document.body).color")
    found.page.reload()
    assert found.page.evaluate(paper) == light and found.complaints == []
    found.page.close()


@pytest.mark.parametrize("width", [320, 380, 768])
def test_the_page_itself_never_scrolls_sideways(browser: Any, report: Path, width: int) -> None:
    found = Opened(browser, report, width=width)
    found.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert found.number("document.documentElement.scrollWidth") <= width
    assert found.number("document.querySelector('.scroll').scrollWidth") > width - 40 or width > 400
    found.page.close()


def test_without_scripts_the_results_are_there(browser: Any, report: Path) -> None:
    found = Opened(browser, report, java_script_enabled=False)
    assert found.page.locator("section:first-of-type table tbody tr").count() == 12
    assert not found.page.is_visible("#browser") and found.page.is_visible("text=predictions/dev.tsv")
    found.page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 380)])
def test_axe_finds_nothing_serious(browser: Any, report: Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    found = Opened(browser, report, width, scheme, bypass_csp=True)
    found.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found.page.add_script_tag(path=Path(axe.__file__).with_name("axe.min.js"))
    violations = found.page.evaluate("axe.run()")["violations"]
    assert [(one["impact"], one["id"], one["nodes"][0]["html"][:200]) for one in violations] == []
    found.page.close()
