"""How the demonstrations look: one palette, panels in a row, and files whose bytes follow from the numbers alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Four colours of Okabe and Ito (2008) that stay apart for colour-blind readers and in grey.
BLUE, ORANGE, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"


def panels(*titles: str, height: float = 3.7, width: float = 4.4) -> "tuple[Figure, Sequence[Axes]]":
    """A figure with one panel a title, side by side; height and width of a panel in inches."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    row = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(row, titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.grid(True, color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, list(row)


def save(figure: "Figure", folder: Path, name: str) -> list[str]:
    """Write name.png and name.svg, beside and moved into place; the same picture gives the same bytes.

    Dates and versions are left out, and the identifiers inside the SVG are salted with the name instead of at random.
    """
    from matplotlib import rc_context

    nothing = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    for kind, metadata in nothing.items():
        temporary = folder / f".{name}.{os.getpid()}.{kind}"
        with rc_context({"svg.hashsalt": name}):
            figure.savefig(temporary, dpi=120, metadata=metadata)
        os.replace(temporary, folder / f"{name}.{kind}")
    return [f"{name}.{kind}" for kind in nothing]
