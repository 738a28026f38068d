"""Base classes of displays: drawings in inches with a key below, and panels."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from os import PathLike
from textwrap import wrap
from typing import IO, Any, Self

import numpy as np

from ..dictionary import Representatives
from ._cells import Cells
from ._layout import Box, Line

MARK = (0.9, 0.0, 0.8)  # magenta: rare in photographs, and unlike greys with any colour vision
INK = (0.12, 0.32, 0.55)  # dark blue, for the target
AGAINST = (0.72, 0.31, 0.0)  # dark orange, against the target: unlike INK with any colour vision
LIGHT_INK, LIGHT_AGAINST = (0.36, 0.72, 1.0), (1.0, 0.6, 0.25)  # the same on photographs, and on dark paper
# Distinct from each other and from light greys with any colour vision: after Okabe and Ito, "Color Universal Design",
# 2008, with another green and purple.
PALETTE = ("#0072B2", "#D55E00", "#00A060", "#AA3377", "#56B4E9", "#E69F00", "#F0E442", "#222222")
_SMALL = 17  # pixels, of images that are not smoothed
_TEXT_AS_TEXT: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}


class Display(ABC):
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

    @abstractmethod
    def _plot(self, ax: Any) -> None:
        """Draw into axes, or a new figure; set the fitted attributes."""

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
        """Return the picture for a notebook, and close the figure, which pyplot would show again."""
        import matplotlib.pyplot as plt

        file = io.BytesIO()
        self.save(file, format="png")
        plt.close(self.figure_)
        return file.getvalue()


class Drawing(Display):
    """A drawing in inches at its natural size with a key below it, and methods that draw its parts."""

    _key_size = 7.0  # points

    @abstractmethod
    def _draw(self) -> Box:
        """Draw all parts; return the extent of the drawing without its key."""

    @abstractmethod
    def _key(self) -> list[str]:
        """Return sentences that explain signs and colours."""

    def _plot(self, ax: Any) -> None:
        import matplotlib.pyplot as plt
        from matplotlib.colors import to_rgb

        self._has_rings = False
        self._paper = to_rgb(plt.rcParams["figure.facecolor"])
        self._letters = to_rgb(plt.rcParams["text.color"])
        self.ax_ = plt.figure().add_axes((0, 0, 1, 1)) if ax is None else ax
        self.figure_ = self.ax_.figure
        extent = self._draw()
        key = wrap(" ".join(self._key()), int(119 / self._key_size * (extent.width - 0.3)))
        bottom = extent.bottom - 0.0186 * self._key_size * len(key) - 0.1
        style: dict[str, Any] = {"color": self._grey(), "ha": "left", "va": "bottom"}
        self._write(extent.left + 0.15, bottom + 0.05, "\n".join(key), self._key_size, **style)
        self.ax_.set(xlim=(extent.left, extent.right), ylim=(bottom, extent.top), aspect="equal")
        self.ax_.axis("off")
        if ax is None:
            self.figure_.set_size_inches(extent.width, extent.top - bottom)

    def _mix(self, colour: Sequence[float], strength: float) -> tuple[float, ...]:
        """Return a mixture of the background (strength 0) and a colour (strength 1)."""
        return tuple(strength * part + (1 - strength) * paper for part, paper in zip(colour, self._paper, strict=True))

    def _grey(self, strength: float = 0.65) -> tuple[float, ...]:
        """Return a colour between background and letters."""
        return self._mix(self._letters, strength)

    def _ink(self, *, against: bool) -> tuple[float, float, float]:
        """Return the colour of evidence for or against the target."""
        on_dark_paper = sum(self._paper) < sum(self._letters)
        ink, ink_against = (LIGHT_INK, LIGHT_AGAINST) if on_dark_paper else (INK, AGAINST)
        return ink_against if against else ink

    def _write(self, x: float, y: float, text: str, size: float, *, box: bool = False, **style: Any) -> None:
        """Write text that is not parsed as markup, centred by default; with `box`, on the background colour."""
        settings: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "zorder": 6} | style
        if box:
            settings["bbox"] = {"boxstyle": "round,pad=0.12", "fc": self._paper, "ec": "none", "alpha": 0.85}
        self.ax_.text(x, y, text, parse_math=False, **settings)

    def _draw_arrow(self, line: Line, *, zorder: float, **style: Any) -> None:
        self.ax_.annotate("", line[2:], line[:2], arrowprops={"arrowstyle": "-|>", **style}, zorder=zorder)

    def _draw_rectangle(self, box: Box, **style: Any) -> None:
        from matplotlib.patches import Rectangle

        self.ax_.add_patch(Rectangle((box.left, box.bottom), box.width, box.height, **{"zorder": 4, **style}))

    def _draw_image(self, box: Box, image: np.ndarray, **style: Any) -> Box:
        """Draw an image in the middle of `box`, as large as possible; return its box."""
        fitted = box.fitted(*image.shape[:2])
        small = max(image.shape[:2]) < _SMALL
        settings = {"interpolation": "nearest" if small else "antialiased", "zorder": 3} | style
        extent = fitted.left, fitted.right, fitted.bottom, fitted.top
        self.ax_.imshow(image, extent=extent, aspect="auto", **settings)
        return fitted

    def _draw_patches(self, box: Box, typical: Representatives | None, word: int, columns: int, rows: int = 1) -> None:
        """Draw a word's most typical patches, line by line, with rings where they differ by the location."""
        if typical is None or typical.patches is None:
            self._draw_rectangle(box, fc=self._grey(0.05), ec=self._grey(0.3), zorder=1)
            self._write(box.middle, box.centre, "no patches\nstored", 8, color=self._grey())
            return
        rings = typical.whole and typical.locations.max() > 0  # of a map with more than one location
        width, height = box.width / columns, box.height / rows
        for i in range(min(columns * rows, typical.images.shape[1])):
            if typical.images[word, i] < 0:
                continue
            row, column = divmod(i, columns)
            left, bottom = box.left + width * column, box.top - height * (row + 1)
            tile = Box(left + 0.01, bottom + 0.01, width - 0.02, height - 0.02)
            patch = self._draw_image(tile, typical.patches[word, i])
            if rings:
                self._has_rings = True
                down, along = typical.marks[word, i]
                x, y = patch.left + along * patch.width, patch.top - down * patch.height
                self.ax_.plot(x, y, "o", ms=9 * width + 2, mfc="none", mec=MARK, mew=1.3, zorder=5, clip_on=False)

    def _tint(self, box: Box, cells: Cells, word_map: np.ndarray, words: Sequence[int], opacity: float) -> None:
        """Tint the cells of some words of a map (H, W), each in a colour of the palette, over the image in `box`."""
        from matplotlib.colors import to_rgba

        tint = np.zeros((*word_map.shape, 4))
        for word, colour in zip(words, PALETTE, strict=False):
            tint[word_map == word] = to_rgba(colour, opacity)
        x, y = cells.within(box)
        self.ax_.pcolormesh(x, y, tint, linewidth=0, antialiased=False, rasterized=True, zorder=3.5)

    def _outline(self, box: Box, cells: Cells, kinds: np.ndarray, *, colour: Any = "white", halo: Any = None) -> None:
        """Outline the cells of each kind (H, W) but -1 over the image in `box`, with a wider line of colour `halo`."""
        from matplotlib.collections import LineCollection

        x, y = cells.within(box)
        kinds = np.pad(kinds, 1, constant_values=-1)
        lines = [[(x[j], y[i]), (x[j], y[i + 1])] for i, j in np.argwhere(kinds[1:-1, 1:] != kinds[1:-1, :-1])]
        lines += [[(x[j], y[i]), (x[j + 1], y[i])] for i, j in np.argwhere(kinds[1:, 1:-1] != kinds[:-1, 1:-1])]
        width = min(1.4, 20 / max(kinds.shape))  # points; narrower on fine maps
        for ink, wider in ((halo, 2.2), (colour, 1)):
            if ink is not None and lines:
                collection = LineCollection(lines, colors=[ink], linewidths=width * wider, zorder=3.7)
                self.ax_.add_collection(collection, autolim=False)


class Panels(Display):
    """A display with several panels."""

    @abstractmethod
    def _grid(self) -> tuple[int, int, float, float]:
        """Return the number of panels, the number of columns, the width of the figure and the height of a row."""

    @abstractmethod
    def _draw(self) -> None:
        """Draw into the panels, `axes_`."""

    def _plot(self, ax: Any) -> None:
        import matplotlib.pyplot as plt

        n_panels, columns, width, height = self._grid()
        if ax is None:
            rows = -(-n_panels // columns)
            figure = plt.figure(figsize=(width, height * rows), layout="constrained")
            ax = [figure.add_subplot(rows, columns, place + 1) for place in range(n_panels)]
        self.axes_ = np.asarray(ax, dtype=object).ravel()
        if len(self.axes_) != n_panels:
            raise ValueError(f"There are {n_panels} panels; ax has {len(self.axes_)} axes.")
        self.figure_ = self.axes_[0].figure
        self._draw()


def wrap_name(name: str, width: int = 15) -> str:
    """Return a layer's name in lines of about this width, broken after dots and underscores."""
    lines = [""]
    for part in re.findall(r"[^._]+[._]?|[._]", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def shorten(text: str, width: int) -> str:
    """Return text, cut to at most `width` letters."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
