"""The attention of one answered question as a picture: layers as rows, heads as columns.

Legend: L layers, H heads, T characters of the text.
"""

import warnings
from io import BytesIO

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from birthplace_lm.attention_maps import Reading

NAME, ANSWER, PLAIN = "#0072b2", "#b34a00", "#444444"  # blue and vermilion also differ for the colour-blind
LEFT, RIGHT, TOP, BOTTOM, GAP_ACROSS, GAP_DOWN = 0.3, 0.95, 0.95, 0.3, 0.3, 0.5  # inches around and between the maps
TICKS = (0.0, 0.01, 0.1, 0.25, 0.5, 1.0)


def draw(reading: Reading) -> Figure:
    """A map a head, the characters on both axes; the row that decides the answer's first character is framed."""
    n_layers, n_heads, length = len(reading.weights), max(map(len, reading.weights)), len(reading.text)
    side = length * min(0.09, 40 / (n_heads * length))  # inches: characters that can be read, pictures that open
    width = LEFT + n_heads * side + (n_heads - 1) * GAP_ACROSS + RIGHT
    height = TOP + n_layers * side + (n_layers - 1) * GAP_DOWN + BOTTOM
    figure = Figure(figsize=(max(width, 6.8), height))
    for layer, weights in enumerate(reading.weights):
        for head in range(len(weights)):
            left, bottom = LEFT + head * (side + GAP_ACROSS), BOTTOM + (n_layers - 1 - layer) * (side + GAP_DOWN)
            axes = figure.add_axes(_inches(figure, left, bottom, side, side))
            image = _map(axes, weights[head], _bounds(reading.weights))
            _label(axes, reading, points=72 * 0.82 * side / length)
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8, pad=3)
    bar = figure.add_axes(_inches(figure, width - RIGHT + 0.2, BOTTOM, 0.12, min(side, 2.5)))
    _colour_bar(figure, bar, image)
    _say(figure, reading)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box, the page shows it
        figure.savefig(out, format="png", dpi=160)
    return out.getvalue()


def _inches(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    across, down = figure.get_size_inches()
    return left / across, bottom / down, width / across, height / down


def _shade(weights: Tensor) -> Tensor:
    """Square roots that keep their sign: small weights show, and 0 stays 0."""
    return weights.sign() * weights.abs().sqrt()


def _bounds(weights: list[Tensor]) -> tuple[float, float]:
    """The ends of the colour scale, one for all maps: 0 and 1 for shares, ±the largest where some are negative."""
    most = max(1.0, *(float(layer.abs().max()) for layer in weights)) ** 0.5
    return (-most if any((layer < 0).any() for layer in weights) else 0.0), most


def _map(axes: Axes, weights: Tensor, bounds: tuple[float, float]) -> AxesImage:
    future = torch.ones_like(weights, dtype=torch.bool).triu(1)
    axes.set_facecolor("#e2eeea")  # what comes later and is not seen
    shades = _shade(weights).masked_fill(future, torch.nan).numpy()
    return axes.imshow(shades, vmin=bounds[0], vmax=bounds[1], cmap="PuOr" if bounds[0] < 0 else "Greys")


def _label(axes: Axes, reading: Reading, points: float) -> None:
    """The characters along both axes, in the colours of name and answer, and the frame around the asking row."""
    length = len(reading.text)
    characters = [{" ": "·", "\n": "↵"}.get(character, character) for character in reading.text]
    for put in (axes.set_xticks, axes.set_yticks):
        put(range(length), characters, fontsize=points, family="monospace")
    axes.tick_params(length=0, pad=1)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_color(PLAIN)
    for span, colour in ((reading.name_span, NAME), (reading.answer_span, ANSWER)):
        for at in span:
            for tick in (axes.get_xticklabels()[at], axes.get_yticklabels()[at]):
                tick.set(color=colour, fontweight="bold")
    axes.get_yticklabels()[reading.asking].set(color=ANSWER, fontweight="bold")
    row = Rectangle((-0.5, reading.asking - 0.5), length, 1, fill=False, edgecolor=ANSWER, linewidth=1.2, clip_on=False)
    axes.add_patch(row)
    axes.spines[:].set(linewidth=0.4, color="#999999")


def _colour_bar(figure: Figure, bar: Axes, image: AxesImage) -> None:
    low, high = image.get_clim()
    ticks = sorted({sign * tick for tick in TICKS for sign in (1, -1)} if low < 0 else TICKS)
    figure.colorbar(image, cax=bar, ticks=_shade(torch.tensor(ticks)).tolist())
    bar.set_yticklabels([f"{tick:g}" for tick in ticks], fontsize=7)
    bar.set_title("weight", fontsize=8)
    bar.set_ylim(low, high)


def _say(figure: Figure, reading: Reading) -> None:
    """Above the maps: the question, the answer and its probability, and how to read what is below."""
    width, height = figure.get_size_inches()
    said = f"{reading.question.text} → {reading.answer.text or '(nothing)'}   {reading.answer.probability:.1%}"
    figure.text(LEFT / width, 1 - 0.38 / height, said, fontsize=13, parse_math=False)
    how = "A row: where one character looks. Framed: the row that decides the answer's first character."
    for inches, text, colour in ((0.0, how, "black"), (5.35, "Name", NAME), (5.75, "Answer", ANSWER)):
        figure.text((LEFT + inches) / width, 1 - 0.6 / height, text, fontsize=8, color=colour)
