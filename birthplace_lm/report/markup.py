"""The pieces that the page is made of. What is handed in is text and comes out as text: markup in it does no harm."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LONG = 30  # rows that a table may have before it scrolls in itself
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Cell:
    """What a cell shows; `value` is what its column is sorted by, if not the text, `mark` whether it stands out."""

    text: str
    value: float | None = None
    mark: bool = False


Row = list[Cell | str]


def escaped(text: object) -> str:
    """Text as it may stand between tags and in quoted attributes."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"), quote=True)


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell | str]], numbers_from: int = 1) -> str:
    """A table that a script can sort; columns from `numbers_from` on are set flush right. The first names the row."""
    sides = ["" if i < numbers_from else ' class="number"' for i in range(len(header))]
    head = "".join(f'<th scope="col"{side}>{escaped(name)}</th>' for name, side in zip(header, sides, strict=True))
    body = "\n".join(f"<tr>{''.join(map(_cell, row, sides, range(len(row))))}</tr>" for row in rows)
    title = f"<caption><span>{escaped(caption)}</span></caption>"
    inner = f"{title}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return scrolling(f'<table class="sortable">\n{inner}\n</table>', caption, tall=len(rows) > LONG)


def _cell(cell: Cell | str, side: str, column: int) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    tag = "td" if column else 'th scope="row"'
    key = "" if cell.value is None else f' data-value="{cell.value:.12g}"'
    text = f"<mark>{escaped(cell.text)}</mark>" if cell.mark else escaped(cell.text)
    if not column:
        text = text.replace("_", "_<wbr>")  # a name of several words breaks between them where there is no room
    return f"<{tag}{side}{key}>{text}</{tag.split()[0]}>"


def scrolling(inner: str, label: str, tall: bool = False) -> str:
    """A box of its own width, so that what is wide scrolls in it and the page does not; arrow keys move it too.

    `tall`: what is long scrolls in it as well.
    """
    return f'<div class="scroll{" tall" * tall}" tabindex="0" role="region" aria-label="{escaped(label)}">{inner}</div>'


def figure(svg: str, caption: str, label: str, on_white: bool = False) -> str:
    """A picture with what there is to say of it."""
    kind = ' class="white"' if on_white else ""
    return f"<figure{kind}>{scrolling(svg, label)}<figcaption>{escaped(caption)}</figcaption></figure>"


def image(path: Path, alt: str, most: int) -> str | None:
    """A PNG file as an element that holds it; None for another kind of file, or one of more than `most` bytes."""
    if path.stat().st_size > most:
        return None
    data = path.read_bytes()
    if not data.startswith(_PNG):
        return None
    return f'<img alt="{escaped(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'


def folded(summary: str, inner: str) -> str:
    """Something that is there for those who ask."""
    return f"<details><summary>{escaped(summary)}</summary>\n{inner}\n</details>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and what they are."""
    return f"<dl>{''.join(f'<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>' for name, value in pairs)}</dl>"
