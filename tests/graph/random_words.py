"""Random layers that depend on each other, and random word maps."""

import numpy as np

from skgmmcnn.dictionary import Vocabulary, WordMaps
from skgmmcnn.features import NetworkSpec, ReceptiveField, Span

CLASSES = ("cat", "dog", "layer3")
SIZES = {"low": (5, 6), "middle": (4, 4), "top": (2, 3)}
N_WORDS = {"low": 7, "middle": 6, "top": 5}


def random_words(seed, n_images=8, fingerprint="a", n_outputs=3, names=None):
    """Return random word maps of three layers, with random fields."""
    rng = np.random.default_rng(0)
    fields = {}
    for upper, lower in [("top", "middle"), ("middle", "low")]:
        axes = (random_axis(rng, u, v) for u, v in zip(SIZES[upper], SIZES[lower], strict=True))
        fields[upper, lower] = ReceptiveField(*axes, SIZES[lower])
    shapes = {layer: (2, *size) for layer, size in SIZES.items()}
    spec = NetworkSpec(tuple(SIZES), shapes, (1, 9, 9), fields, n_outputs, ("cat", "dog", "layer3")[:n_outputs])
    rng = np.random.default_rng(seed)
    return WordMaps(
        words={layer: rng.integers(0, N_WORDS[layer], (n_images, *size)) for layer, size in SIZES.items()},
        decisions=rng.integers(0, n_outputs, n_images),
        spec=spec,
        vocabulary=Vocabulary(N_WORDS, fingerprint, names=names or {}),
    )


def random_case(seed, n_fitted=6, n_images=4):
    """Return the layers below each layer, words to fit, and words to explain."""
    rng = np.random.default_rng(seed)
    spec, depends = random_spec(rng)
    n_words = {layer: int(rng.integers(1, 7)) for layer in spec.layers}
    return depends, random_words_of(rng, spec, n_words, n_fitted), random_words_of(rng, spec, n_words, n_images)


def random_spec(rng):
    """Return two to five layers with random dependencies and maps of up to five positions a side."""
    layers = tuple("abcde"[: rng.integers(2, 6)])
    sizes = {layer: (1, 1) if rng.random() < 0.2 else tuple(rng.integers(1, 6, 2).tolist()) for layer in layers}
    depends = {layer: set() for layer in layers}
    for place, upper in enumerate(layers):
        for lower in layers[:place]:
            if rng.random() < 0.5:
                depends[upper] |= {lower} | depends[lower]
    fields = {}
    for upper, lowers in depends.items():
        for lower in lowers:
            rows, columns = (random_axis(rng, u, v) for u, v in zip(sizes[upper], sizes[lower], strict=True))
            fields[upper, lower] = ReceptiveField(rows, columns, sizes[lower])
    shapes = {layer: (2, *size) for layer, size in sizes.items()}
    spec = NetworkSpec(layers, shapes, (1, 9, 9), fields, len(CLASSES), CLASSES, random_parts(rng, fields))
    return spec, depends


def random_axis(rng, upper, lower):
    """Return windows of one axis: of a convolution, cut at the border; with gaps; the whole map; or random ones."""
    kind = rng.integers(4)
    if kind == 0:
        start = np.arange(upper) * rng.integers(1, 4) - rng.integers(0, 3)
        return Span(np.clip(start, 0, lower), np.clip(start + rng.integers(1, 4), 0, lower))
    if kind == 1:
        start = np.minimum(np.arange(upper) * 3, lower)  # stride 3, windows of one
        return Span(start, np.minimum(start + 1, lower))
    if kind == 2:
        return Span(np.zeros(upper, int), np.full(upper, lower))
    start = rng.integers(0, lower, upper)
    return Span(start, np.minimum(start + rng.integers(0, lower + 1, upper), lower))


def random_parts(rng, fields):
    """Return random windows inside those of fields."""

    def part(start, stop):
        inner = rng.integers(start, stop + 1)
        return Span(inner, rng.integers(inner, stop + 1))

    return {
        pair: ReceptiveField(part(*field.rows), part(*field.columns), field.shape) for pair, field in fields.items()
    }


def random_words_of(rng, spec, n_words, n_images):
    return WordMaps(
        words={layer: rng.integers(0, n_words[layer], (n_images, *spec.shapes[layer][1:])) for layer in spec.layers},
        decisions=rng.integers(0, spec.n_outputs, n_images),
        spec=spec,
        vocabulary=Vocabulary(n_words, "a"),
    )
