"""The style of all plots: an empty Figure, colours, axes, and class names as text."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

# Okabe and Ito's colours, distinct for any kind of colour vision.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
BLACK, LIGHT_GREY = "#222222", "#DDDDDD"

FONT_SIZE, SMALL_SIZE = 10.0, 8.5

_DPI = 150
_FONT = "DejaVu Sans"  # comes with Matplotlib


def require_matplotlib() -> None:
    """Raises ImportError with the command that installs Matplotlib where it is missing."""
    try:
        import matplotlib.figure  # noqa: F401  # raises where it is missing
    except ModuleNotFoundError as error:
        raise ImportError("plots need Matplotlib: pip install 'gpu_nn[plot]'") from error


def new_figure(width: float, height: float, heading: str) -> Any:
    """An empty Figure of that size in inches, with constrained layout. Raises ImportError without Matplotlib."""
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    size = min(max(13.0, 1.2 * width), 20.0)
    figure.suptitle(heading, fontsize=size, color=BLACK, family=_FONT, parse_math=False)
    return figure


def style_axes(axes: Any, x_label: str, y_label: str, *, grid: str | None = "y") -> None:
    """Two spines, labels, and a grid behind the data."""
    axes.set_xlabel(x_label, fontsize=FONT_SIZE, color=BLACK, family=_FONT)
    axes.set_ylabel(y_label, fontsize=FONT_SIZE, color=BLACK, family=_FONT)
    axes.tick_params(labelsize=SMALL_SIZE, color=GREY, labelcolor=BLACK, labelfontfamily=_FONT)
    axes.set_facecolor("white")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(axis=grid, color=LIGHT_GREY, linewidth=0.8)


def draw_legend(axes: Any, columns: int = 3) -> None:
    """A legend above the axes."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns, "borderaxespad": 0.3}
    axes.legend(**place, frameon=False, prop={"family": _FONT, "size": SMALL_SIZE}, labelcolor=BLACK, handlelength=1.8)


def needs_log_scale(values: np.ndarray) -> bool:
    """Whether the ratio of the largest to the smallest value is above 30."""
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() / finite.min() > 30)


def set_log_scale(axes: Any) -> None:
    """A logarithmic y axis with plain numbers, few enough to read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def use_integer_ticks(axis: Any, most: int) -> None:
    """Ticks at no more than `most` integers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


class ClassNames:
    """Class names as texts of one line, at most `widest` font sizes wide, and font families with their letters.

    Installed fonts supply letters that Matplotlib's font lacks. A UserWarning names a class with a letter that no font
    has; its text is its number, such as #2.
    """

    def __init__(self, classes: Iterable[Any], widest: float = 14.0):
        from matplotlib import font_manager

        texts = [" ".join(str(name).split()) for name in classes]
        font = font_manager.get_font(font_manager.findfont(_FONT))
        self.texts = [_truncate(text, widest, font) for text in texts]
        self.family = [_FONT]
        missing = {ord(letter) for text in self.texts for letter in text} - font.get_charmap().keys()
        # The LastResort font draws every letter as a box.
        others = {entry.name for entry in font_manager.fontManager.ttflist if "LastResort" not in entry.fname}
        for name in sorted(others - {_FONT}):
            if not missing:
                break
            try:
                # The file that Matplotlib draws the family with; its bold file may have other letters.
                found = missing & font_manager.get_font(font_manager.findfont(name)).get_charmap().keys()
            except (RuntimeError, OSError):  # a font of bitmaps, or removed since the list was made
                continue
            if found:
                self.family.append(name)
                missing -= found
        for i, text in enumerate(self.texts):
            if any(ord(letter) in missing for letter in text):
                self.texts[i] = f"#{i}"
                warnings.warn(f"no installed font has the letters of class {texts[i]!r}; shown as #{i}", stacklevel=3)


def _truncate(text: str, widest: float, font: Any) -> str:
    """The text, cut to at most `widest` font sizes with a … at its end."""
    if len(text) <= widest / 2:
        return text
    from matplotlib.ft2font import LoadFlags

    known = font.get_charmap()
    # Letters of other fonts are at most as wide as the font size.
    advances = [
        font.load_char(ord(letter), LoadFlags.NO_SCALE).horiAdvance / font.units_per_EM if ord(letter) in known else 1.0
        for letter in text
    ]
    widths = np.cumsum(advances)
    return text if widths[-1] <= widest else text[: int(np.searchsorted(widths, widest - 1))].rstrip() + "…"


def label_ticks(axis: Any, texts: list[str], family: list[str], *, size: float, rotation: float = 0) -> None:
    """Texts at 0, 1, … of an axis, without mathematics between $."""
    axis.set_ticks(
        range(len(texts)), texts, fontsize=size, rotation=rotation, family=family, color=BLACK, parse_math=False
    )
