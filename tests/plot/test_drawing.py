"""Files in which text stays text, and colours that differ with any colour vision."""

import itertools
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from skgmmcnn import VisualWordDisplay
from skgmmcnn.dictionary import Vocabulary
from skgmmcnn.plot._drawing import AGAINST, INK, LIGHT_AGAINST, LIGHT_INK, MARK, PALETTE, shorten
from skgmmcnn.plot._word_similarity import _OTHER, _SAME
from tests.plot import pictures

# What protanopes, deuteranopes and tritanopes see, on linear RGB [Machado, Oliveira and Fernandes, "A physiologically-
# based model for simulation of color vision deficiency", IEEE TVCG 15(6), 2009, severity 1].
VISIONS = {
    "all": np.eye(3),
    "prot": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuter": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "trit": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, vision):
    """CIE L*a*b* of an sRGB colour as a kind of vision has it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_differ_with_any_vision(vision):
    """A difference of some 2 is just seen; these are seen at a glance."""
    pairs = [
        *itertools.combinations(PALETTE, 2),
        (_SAME, _OTHER),
        (MARK, INK),
        (INK, AGAINST),
        (LIGHT_INK, LIGHT_AGAINST),
    ]
    pairs += [(MARK, str(grey)) for grey in np.linspace(0, 1, 21)]
    pairs += [(colour, str(grey)) for colour in PALETTE for grey in np.linspace(0.5, 1, 11)]  # the image below
    for one, other in pairs:
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 10, (one, other)


def test_long_words_are_shortened_not_dropped():
    assert shorten("American_Staffordshire_terrier", 12) == "American_St…"
    assert shorten("tabby cat", 7) == "tabby…"
    assert shorten("tabby", 5) == "tabby"


@pytest.fixture
def display():
    yield VisualWordDisplay(pictures.words().vocabulary, [("top", 5)])
    plt.close("all")


def test_text_of_vector_files_stays_text(display, tmp_path):
    before = dict(mpl.rcParams)
    display.save(tmp_path / "words.svg")  # it was not drawn before
    found = re.findall(r"<text[^>]*>([^<]+)</text>", (tmp_path / "words.svg").read_text(encoding="utf-8"))
    assert {"a name of many", "letters", "top", "six, which is a good deal longer"} <= {line.strip() for line in found}
    display.save(tmp_path / "words.pdf", metadata={"Title": "a title"})
    pdf = (tmp_path / "words.pdf").read_bytes()
    assert b"/Type42" in pdf or b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert b"a title" in pdf
    assert dict(mpl.rcParams) == before


def test_the_format_follows_the_suffix(display, tmp_path):
    display.save(tmp_path / "words.png", dpi=40)
    assert (tmp_path / "words.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_shows_a_display_once(display):
    assert display._repr_png_().startswith(b"\x89PNG")
    assert not plt.get_fignums()


def _forget_pictures():
    pictures.words.cache_clear()
    pictures.estimator.cache_clear()


def test_names_are_never_markup(monkeypatch):
    formula = "$5 and $6_{$"

    def vocabulary(*fields):
        return Vocabulary(*fields[:4], {("mid", 0): formula, ("top", 5): formula}, fields[5])

    _forget_pictures()
    monkeypatch.setattr(pictures, "NAMES", (formula,) * 10)
    monkeypatch.setattr(pictures, "Vocabulary", vocabulary)
    written = 0
    for draw in pictures.DISPLAYS.values():
        figure = draw().figure_
        figure.canvas.draw()
        found = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert not any(text.get_parse_math() for text in found)
        written += len(found)
        plt.close(figure)
    assert written > 10
    _forget_pictures()
