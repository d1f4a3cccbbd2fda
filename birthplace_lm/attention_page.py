"""The attention of one answered question as a page: a single file, no network, opened from disk.

`attention_page.html` beside this file is the page without its content. What is told of the question stands in it once,
as JSON that a script of the page reads; text reaches the page as text only, never as markup.

Legend: L layers, H heads, T characters of the text.
"""

import html
import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from birthplace_lm.attention_maps import Reading, about_the_weights

TEMPLATE = Path(__file__).with_name("attention_page.html")
SCALE = 10_000  # weights are told as whole ten-thousandths: finer than any screen, and short


def page(reading: Reading, source: str) -> str:
    """The page as HTML; `source` says whose attention it is, such as the run and its stage."""
    answer = reading.answer
    said = answer.text or "(nothing)"
    content = {
        "TITLE": f"{reading.question.text} {said}",
        "SOURCE": source,
        "QUESTION": reading.question.text,
        "ANSWER": said,
        "PROBABILITY": f"{answer.probability:.1%}",
        "ABOUT": about_the_weights(reading.weights),
    }
    parts = {name: html.escape(text) for name, text in content.items()} | {"DATA": script_safe(content_of(reading))}
    # One pass, so that nothing inserted is looked at again.
    return re.sub(r"<!--([A-Z]+)-->", lambda mark: parts[mark[1]], TEMPLATE.read_text(encoding="utf-8"))


def content_of(reading: Reading) -> dict[str, Any]:
    """What the page draws: characters, the spans in them, and weights[layer][head][row][column] for column <= row."""
    spans = {"name": reading.name_span, "answer": reading.answer_span}
    return {
        "characters": list(reading.text),
        "asking": reading.asking,
        **{name: [span.start, span.stop] for name, span in spans.items()},
        "scale": SCALE,
        "weights": [[_rows(head) for head in layer] for layer in reading.weights],
    }


def script_safe(value: Any) -> str:
    """JSON that may stand in a script element whatever it holds: no <, > or & is left to end or begin one."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _rows(weights: Tensor) -> list[list[int]]:
    """The lower triangle of a map (T, T) in whole units of 1/SCALE."""
    return [row[: i + 1] for i, row in enumerate((weights.double() * SCALE).round().int().tolist())]
