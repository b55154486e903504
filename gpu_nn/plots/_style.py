"""What all pictures share: an empty Figure, its colours and lines, and texts that show names as they are."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
INK, FAINT = "#222222", "#DDDDDD"

TEXT, SMALL = 10.0, 8.5

_DPI = 150
_FONT = "DejaVu Sans"  # comes with Matplotlib


def require_matplotlib() -> None:
    """Raises ImportError, with a hint, where Matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401  # only to see whether it is there
    except ModuleNotFoundError as error:
        raise ImportError("plots need Matplotlib: pip install 'gpu_nn[plot]'") from error


def sheet(width: float, height: float, heading: str) -> Any:
    """An empty Figure, in inches, that keeps its parts from overlapping. Raises ImportError without Matplotlib."""
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    size = min(max(13.0, 1.2 * width), 20.0)
    figure.suptitle(heading, fontsize=size, color=INK, family=_FONT, parse_math=False)
    return figure


def draw_lines(axes: Any, x_label: str, y_label: str, *, grid: str | None = "y") -> None:
    """Two spines, labels, and a grid that stands behind the data."""
    axes.set_xlabel(x_label, fontsize=TEXT, color=INK, family=_FONT)
    axes.set_ylabel(y_label, fontsize=TEXT, color=INK, family=_FONT)
    axes.tick_params(labelsize=SMALL, color=GREY, labelcolor=INK, labelfontfamily=_FONT)
    axes.set_facecolor("white")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=FAINT, linewidth=0.8)


def draw_legend(axes: Any, columns: int = 3) -> None:
    """Above the axes, where no data are."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns, "borderaxespad": 0.3}
    axes.legend(**place, frameon=False, prop={"family": _FONT, "size": SMALL}, labelcolor=INK, handlelength=1.8)


def logarithmic(axis_values: Iterable[float], least_ratio: float = 30) -> bool:
    """Whether values spread so far that only a logarithmic axis shows the small ones."""
    values = np.asarray(list(axis_values), np.float64)
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > least_ratio)


def set_logarithmic(axes: Any) -> None:
    """A logarithmic y axis with plain numbers, few enough to read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def number_axis(axis: Any, most: int) -> None:
    """Whole numbers at no more than so many places."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


class Names:
    """Classes as texts of one line, no wider than `widest` font sizes, and the font families that have their letters.

    Matplotlib's own font is helped out by installed ones. A name with a letter that none has is shown as its number,
    #2, and a UserWarning says so.
    """

    def __init__(self, classes: Iterable[Any], widest: float = 14.0):
        from matplotlib import font_manager

        texts = [" ".join(str(name).split()) for name in classes]
        font = font_manager.get_font(font_manager.findfont(_FONT))
        self.texts = [_cut(text, widest, font) for text in texts]
        self.family = [_FONT]
        missing = {ord(letter) for text in self.texts for letter in text} - font.get_charmap().keys()
        # The last resort draws every letter as a box.
        others = {entry.name for entry in font_manager.fontManager.ttflist if "LastResort" not in entry.fname}
        for name in sorted(others - {_FONT}):
            if not missing:
                break
            try:
                # The file that stands for the family when it is drawn: a bold one may have letters that this has not.
                found = missing & font_manager.get_font(font_manager.findfont(name)).get_charmap().keys()
            except (RuntimeError, OSError):  # a font of pictures, or gone since the list was made
                continue
            if found:
                self.family.append(name)
                missing -= found
        for i, text in enumerate(self.texts):
            if any(ord(letter) in missing for letter in text):
                self.texts[i] = f"#{i}"
                warnings.warn(f"no installed font has the letters of class {texts[i]!r}; shown as #{i}", stacklevel=3)


def _cut(text: str, widest: float, font: Any) -> str:
    """The beginning of the text that is no wider than that, with … for what is left out."""
    if len(text) <= widest / 2:
        return text
    from matplotlib.ft2font import LoadFlags

    known = font.get_charmap()
    # Letters of other fonts are as wide as their size at most.
    advances = [
        font.load_char(ord(letter), LoadFlags.NO_SCALE).horiAdvance / font.units_per_EM if ord(letter) in known else 1.0
        for letter in text
    ]
    widths = np.cumsum(advances)
    return text if widths[-1] <= widest else text[: int(np.searchsorted(widths, widest - 1))].rstrip() + "…"


def label_ticks(axis: Any, texts: list[str], family: list[str], *, size: float, rotation: float = 0) -> None:
    """Texts at 0, 1, … of an axis; a $ in them is a dollar, not mathematics."""
    places = list(range(len(texts)))
    axis.set_ticks(places, texts, fontsize=size, rotation=rotation, family=family, color=INK, parse_math=False)
