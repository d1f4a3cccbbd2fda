"""How the pictures of a report look: a few colours for everybody's eyes, and SVG that follows the theme of its page.

The colours are those of Okabe & Ito (2008), told apart by everybody; each comes with a line style and a marker of its
own, so that nothing hangs on colour alone. A picture is drawn once; what is black in it takes the colour of the text
around it, and the other colours are variables that the page sets for light and for dark.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from birthplace_lm.report.comparing import Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY = "#0072b2", "#888888"
# The variable of the page, the colour where there is no page, line style, marker.
SERIES = (
    ("blue", BLUE, "-", "o"),
    ("vermilion", "#d55e00", "--", "s"),
    ("green", "#009e73", "-.", "^"),
    ("purple", "#cc79a7", (0, (1, 1)), "D"),
    ("orange", "#e69f00", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("sky", "#56b4e9", (0, (3, 2)), "P"),
)
_INK = "#010203"  # a black that nothing else uses: what is drawn in it takes the colour of the page's text
_VARIABLES = {_INK: "currentColor", GREY: "var(--grey)"} | {colour: f"var(--{name})" for name, colour, _, _ in SERIES}
_SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")


@contextmanager
def drawing(ink: str = "black") -> Iterator[None]:
    """While pictures are drawn and saved: names are names, so "$x$" is no formula; letters without a font no news."""
    from matplotlib import rc_context

    settings: Any = dict.fromkeys(_INKED, ink)
    settings |= {"text.parse_math": False, "axes.unicode_minus": True, "svg.fonttype": "none", "grid.alpha": 0.2}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def inline_svg(draw: Callable[[], "Figure"], key: str, title: str, description: str, themed: bool = True) -> str:
    """A figure as an <svg> to stand in a page: text stays text, and `title` and `description` are read out.

    All ids begin with `key`, which is to be another one for every picture of the page. `themed` lets it take the
    colours of the page; without it, it keeps those it was drawn in.
    """
    from matplotlib import rc_context

    out = io.StringIO()
    with drawing(_INK if themed else "black"), rc_context({"svg.hashsalt": key}):
        figure = draw()
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_alpha(0)
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = ElementTree.fromstring(out.getvalue())
    _tidy(svg, key, _VARIABLES if themed else {})
    for tag, text in (("desc", description), ("title", title)):
        svg.insert(0, told := ElementTree.Element(f"{{{_SVG}}}{tag}", id=f"{key}-{tag}"))
        told.text = text
    svg.attrib |= {"role": "img", "aria-labelledby": f"{key}-title {key}-desc"}
    return ElementTree.tostring(svg, encoding="unicode")


def _tidy(svg: ElementTree.Element, key: str, variables: Mapping[str, str]) -> None:
    """Ids become the picture's own, colours variables, and rules that would hold for the whole page go; names stay."""
    for element in list(svg.iter()):
        for child in list(element):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                element.remove(child)
        for name, value in element.items():
            if name == "id":
                value = f"{key}-{value}"
            value = re.sub(r"url\(#|^#(?![0-9a-f]{6}$)", rf"\g<0>{key}-", value)
            element.set(name, re.sub(r"#[0-9a-f]{6}\b", lambda found: variables.get(found[0], found[0]), value))


def shown(variants: Sequence[Variant], baseline: str, most: int = len(SERIES)) -> list[Variant]:
    """The variants that get a colour, in their order: the best, and the baseline whether it is among them or not."""
    base = [variant for variant in variants if variant.label == baseline]
    if base and base[0] not in variants[:most]:
        return [*variants[: most - 1], *base]
    return list(variants[:most])


def short(label: str, longest: int = 34) -> str:
    """A label that leaves room for what it stands beside, without the characters that no picture can hold."""
    label = "".join(character if character.isprintable() else "�" for character in label)
    return label if len(label) <= longest else label[: longest - 1] + "…"
