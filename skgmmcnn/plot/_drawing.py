"""Base classes of displays, and parts of drawings: images, patches, notes and text in boxes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from textwrap import wrap
from typing import IO, Any, NamedTuple, Self

import numpy as np

from ..dictionary import Representatives
from ._layout import Box, Line

MARK = (0.9, 0.0, 0.8)  # magenta: rare in photographs, and unlike greys with any colour vision
INK = (0.12, 0.32, 0.55)  # dark blue, for the target
AGAINST = (0.72, 0.31, 0.0)  # dark orange, against the target: unlike INK with any colour vision
LIGHT_INK, LIGHT_AGAINST = (0.36, 0.72, 1.0), (1.0, 0.6, 0.25)  # the same on photographs, and on dark paper
# Unlike each other and light greys with any colour vision: after Okabe and Ito, "Color Universal Design", 2008,
# whose green and purple are nearer to grey.
PALETTE = ("#0072B2", "#D55E00", "#00A060", "#AA3377", "#56B4E9", "#E69F00", "#F0E442", "#222222")
_SMALL = 17  # pixels; images below are shown with hard pixels
_TEXT_AS_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}


class Display:
    """A picture that can be written to a file."""

    figure_: Any

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array-like of them, default=None
            Axes to draw into, for panels one for each; None makes a figure of fitting size.

        Returns
        -------
        display : Display
            The display itself.
        """
        self._plot(ax)
        return self

    def _plot(self, ax: Any) -> None:
        raise NotImplementedError

    def save(self, path: str | PathLike | IO[bytes], **options: Any) -> None:
        """Write the picture to a file in the format of its suffix.

        In SVG, PDF and PostScript, text can be searched and edited.

        Parameters
        ----------
        path : str or path-like
            The file, as ``"why.svg"``; an existing file is replaced.
        **options : dict
            Passed to :meth:`matplotlib.figure.Figure.savefig`.
        """
        import matplotlib as mpl

        if not hasattr(self, "figure_"):
            self.plot()
        with mpl.rc_context(_TEXT_AS_TEXT):
            self.figure_.savefig(path, **options)

    def _repr_png_(self) -> bytes:
        """Return the picture for a notebook, which would show it twice if pyplot still had the figure."""
        import matplotlib.pyplot as plt

        file = io.BytesIO()
        self.save(file, format="png")
        plt.close(self.figure_)
        return file.getvalue()


class Theme(NamedTuple):
    """Colours after matplotlib's settings: background, letters, and marks for and against the target."""

    paper: tuple[float, float, float]
    letters: tuple[float, float, float]
    ink: tuple[float, float, float]
    against: tuple[float, float, float]

    @classmethod
    def current(cls) -> Theme:
        """Return the theme of the current settings."""
        import matplotlib as mpl
        from matplotlib.colors import to_rgb

        paper, letters = to_rgb(mpl.rcParams["figure.facecolor"]), to_rgb(mpl.rcParams["text.color"])
        return cls(paper, letters, *((LIGHT_INK, LIGHT_AGAINST) if sum(paper) < sum(letters) else (INK, AGAINST)))

    def mixed(self, colour: Sequence[float], strength: float) -> tuple[float, ...]:
        """Return a mixture of the background (strength 0) and a colour (strength 1)."""
        return tuple(strength * part + (1 - strength) * ground for part, ground in zip(colour, self.paper, strict=True))

    def grey(self, strength: float = 0.65) -> tuple[float, ...]:
        """Return a colour between background and letters."""
        return self.mixed(self.letters, strength)


class Limits(NamedTuple):
    """Extent of a drawing, in inches at its natural size."""

    left: float
    right: float
    bottom: float
    top: float

    @classmethod
    def around(cls, boxes: Iterable[Box], left: float, right: float, bottom: float, top: float) -> Limits:
        """Return limits with these margins around all boxes."""
        lefts, bottoms, rights, tops = zip(*((box.left, box.bottom, box.right, box.top) for box in boxes), strict=True)
        return cls(min(lefts) - left, max(rights) + right, min(bottoms) - bottom, max(tops) + top)


class Drawing(Display):
    """A display with one drawing, and a key below it."""

    _key_size = 7.0  # points

    def _plot(self, ax: Any) -> None:
        import matplotlib.pyplot as plt

        limits, size = self._lay_out(), self._key_size
        lines = wrap(self._key(), int(119 / size * (limits.right - limits.left - 0.3)))
        limits = limits._replace(bottom=limits.bottom - 0.0186 * size * len(lines) - 0.1)
        natural = limits.right - limits.left, limits.top - limits.bottom
        self.ax_ = plt.figure(figsize=natural).add_axes((0, 0, 1, 1)) if ax is None else ax
        self.figure_ = self.ax_.figure
        self._draw()
        x, y = limits.left + 0.15, limits.bottom + 0.05
        write(self.ax_, x, y, "\n".join(lines), size=size, color=Theme.current().grey(), ha="left", va="bottom")
        self.ax_.set(xlim=limits[:2], ylim=limits[2:], aspect="equal")
        self.ax_.axis("off")

    def _lay_out(self) -> Limits:
        """Place all parts; return the limits of the drawing without its key."""
        raise NotImplementedError

    def _key(self) -> str:
        raise NotImplementedError

    def _draw(self) -> None:
        raise NotImplementedError


class Panels(Display):
    """A display with several panels."""

    def _plot(self, ax: Any) -> None:
        self.axes_ = self._make_axes() if ax is None else np.asarray(ax, dtype=object).ravel()
        if len(self.axes_) != self._n_panels:
            raise ValueError(f"There are {self._n_panels} panels; ax has {len(self.axes_)} axes.")
        self.figure_ = self.axes_[0].figure
        self._draw()

    @property
    def _n_panels(self) -> int:
        raise NotImplementedError

    def _make_axes(self) -> np.ndarray:
        raise NotImplementedError

    def _draw(self) -> None:
        raise NotImplementedError


def write(ax: Any, x: float, y: float, text: str, *, size: float, box: bool = False, **style: Any) -> None:
    """Write text, centred by default, with `box` on the background colour, and never as markup."""
    settings: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "zorder": 6} | style
    if box:
        settings["bbox"] = {"boxstyle": "round,pad=0.12", "fc": Theme.current().paper, "ec": "none", "alpha": 0.85}
    ax.text(x, y, text, parse_math=False, **settings)


def in_lines(name: str, width: int = 15) -> str:
    """Return a layer's name in lines of about this width, cut behind dots and underscores."""
    lines = [""]
    for part in re.findall(r"[^._]+[._]?|[._]", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def shortened(text: str, width: int) -> str:
    """Return text of at most `width` letters."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def draw_arrow(ax: Any, line: Line, *, zorder: float, **style: Any) -> None:
    """Draw an arrow along a line."""
    ax.annotate("", line[2:], line[:2], arrowprops={"arrowstyle": "-|>", **style}, zorder=zorder)


def draw_rectangle(ax: Any, box: Box, **style: Any) -> None:
    """Draw a rectangle."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((box.left, box.bottom), box.width, box.height, **{"zorder": 4, **style}))


def fit(box: Box, image: np.ndarray) -> Box:
    """Return the largest box with the image's proportions in the middle of `box`."""
    height, width = image.shape[:2]
    scale = min(box.width / width, box.height / height)
    left, bottom = box.middle - width * scale / 2, box.bottom + (box.height - height * scale) / 2
    return Box(left, bottom, width * scale, height * scale)


def draw_image(ax: Any, box: Box, image: np.ndarray, **style: Any) -> Box:
    """Draw `image` as large as fits into the middle of `box`; return its box."""
    fitted = fit(box, image)
    small = max(image.shape[:2]) < _SMALL
    settings = {"interpolation": "nearest" if small else "antialiased", "zorder": 3} | style
    ax.imshow(image, extent=(fitted.left, fitted.right, fitted.bottom, fitted.top), aspect="auto", **settings)
    return fitted


def grey(picture: np.ndarray) -> np.ndarray:
    """Return a picture without colour, and lighter, to be tinted."""
    grey = picture @ np.array([0.299, 0.587, 0.114])
    return (130 + 125 * grey[..., None].repeat(3, 2) / 255).astype(np.uint8)


def has_rings(typical: Representatives) -> bool:
    """Return whether patches are nearly the whole image, so that rings mark the locations."""
    return typical.whole and typical.locations.max() > 0  # of a map with more than one location


def draw_patches(ax: Any, box: Box, typical: Representatives | None, word: int, columns: int, rows: int = 1) -> None:
    """Draw a word's most typical patches into `box`, line by line, with rings where they differ by the location."""
    if typical is None or typical.patches is None:
        theme = Theme.current()
        draw_rectangle(ax, box, fc=theme.grey(0.05), ec=theme.grey(0.3), zorder=1)
        write(ax, box.middle, box.bottom + box.height / 2, "no patches\nstored", size=8, color=theme.grey())
        return
    width, height = box.width / columns, box.height / rows
    for i in range(min(columns * rows, typical.images.shape[1])):
        if typical.images[word, i] < 0:
            continue
        row, column = divmod(i, columns)
        tile = Box(box.left + width * column + 0.01, box.top - height * (row + 1) + 0.01, width - 0.02, height - 0.02)
        drawn = draw_image(ax, tile, typical.patches[word, i])
        if has_rings(typical):
            down, along = typical.marks[word, i]
            x, y = drawn.left + along * drawn.width, drawn.top - down * drawn.height
            ax.plot(x, y, "o", ms=9 * width + 2, mfc="none", mec=MARK, mew=1.3, zorder=5, clip_on=False)


def draw_share(ax: Any, box: Box, shares: np.ndarray) -> None:
    """Draw a map of shares (H, W), from white to dark where it is largest; grey where there is none."""
    strength = np.nan_to_num(shares / np.nanmax(shares))[..., None]
    colours = np.where(np.isnan(shares)[..., None], 0.85, 1 - strength * (1 - np.array(INK)))
    drawn = draw_image(ax, box, colours, interpolation="nearest", zorder=5)
    draw_rectangle(ax, drawn, fc="none", ec="0.4", lw=0.6, zorder=5.5)
