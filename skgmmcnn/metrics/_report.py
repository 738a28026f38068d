"""Report of all measures for one pipeline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from .._optional import need
from .._progress import progress
from ..features import check_layers
from ._ablation import FILLS
from ._completeness import completeness
from ._deletion import deletion
from ._edges import edge_effects
from ._faithfulness import faithfulness
from ._fidelity import Fidelity, fidelity
from ._parts import Parts, in_memory, take_apart
from ._randomisation import randomisation_test
from ._removal import Removal, removal
from ._results import Measurement, Result, Verdict, text_of_measurements
from ._stability import stability

BUDGETS = ("default", "full")
_N_IMAGES = 50
_FEW = 20
_ORDERS = ("graph", "frequency", "random")


@dataclass(frozen=True, eq=False)
class TrustReport(Result):
    """The result of :func:`trust_report`; as text, the verdicts come first."""

    results: Mapping[str, Result]
    skipped: Mapping[str, str]
    evidence: str
    names: tuple[str, ...]
    n_given: int
    seconds: float

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.names)

    def measurements(self) -> list[Measurement]:
        return [measurement for result in self.results.values() for measurement in result.measurements()]

    def to_frame(self) -> Any:
        """Return the measurements as a pandas table."""
        pandas = need("pandas", "to_frame")
        return pandas.DataFrame(self.measurements(), columns=list(Measurement._fields))

    def plot(self) -> Any:
        """Draw a panel for each measure that has one."""
        from matplotlib import pyplot as plt

        panels = [result.plot for result in self.results.values() if hasattr(result, "plot")]
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = plt.figure(figsize=(4 * columns, 3.4 * rows), layout="constrained")
        for place, plot in enumerate(panels, 1):
            plot(ax=figure.add_subplot(rows, columns, place))
        return figure

    def verdicts(self) -> list[Verdict]:
        """Return the answers of all measures, of fidelity only for graphs of counts."""
        return [
            verdict
            for result in self.results.values()
            if self.evidence == "counts" or not isinstance(result, Fidelity)
            for verdict in result.verdicts()
        ]

    def pictures(self) -> list[Verdict]:
        """Return the answers for the graphs of images, none if removal was not measured."""
        removal = self.results.get("removal")
        fidelity = self.results.get("fidelity")
        if not isinstance(removal, Removal):
            return []
        verdicts = removal.pictures(self.names)
        if self.evidence != "counts" or not isinstance(fidelity, Fidelity):
            return verdicts
        return [
            verdict if agrees else Verdict(verdict.question, "no", "words and network disagree.")
            for verdict, agrees in zip(verdicts, fidelity.agrees, strict=True)
        ]

    def __str__(self) -> str:
        images = (
            f"the first {self.n_images} of {self.n_given}" if self.n_images < self.n_given else f"all {self.n_given}"
        )
        few = f"  {self.n_images} images are few: intervals are wide." if self.n_images < _FEW else ""
        lines = [f"Graphs of {self.evidence}, measured on {images} images in {self.seconds:.0f} s.{few}"]
        lines += map(str, self.verdicts())
        pictures = self.pictures()
        if pictures:
            answers = Counter(picture.answer for picture in pictures)
            lines.append(
                f"Are the pictures of images reliable?  {answers['yes']} of {len(pictures)} are, {answers['partly']} "
                f"partly, {answers['no']} are not."
            )
            lines += [f"  {picture}" for picture in pictures if picture.answer != "yes"]
        lines += [f"Not measured, {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([*lines, "", text_of_measurements(self.measurements())])


class _Job(NamedTuple):
    """One measure of a report; `passes` is the approximate number of passes of all images through the network."""

    name: str
    passes: float
    measure: Callable[..., Result]
    options: Mapping[str, Any]


def trust_report(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    budget: str = "default",
    layers: Sequence[str] | None = None,
    n_images: int | None = None,
    verbose: int = 1,
    random_state: int | np.random.RandomState | None = None,
) -> TrustReport:
    """Run the measures of this module over images, and report the results in plain sentences.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network, preferably of images that were not fitted.
    y : array-like of shape (n,), default=None
        True classes, as output numbers or class names; see :func:`fidelity`.
    budget : {"default", "full"}, default="default"
        "default" removes words and pairs of words of the graphs, and rebuilds layers from words: about a minute on two
        cores for a network like SqueezeNet.  "full" also measures curves of deletion and insertion with all fillings,
        faithfulness and graphs of classes, and fits words and graphs again, to these images, for stability and
        randomised weights; it first prints an estimate of the time.
    layers : sequence of str, default=None
        The layers that are rebuilt and whose words are removed, all if None.  Edges of all layers are measured.
    n_images : int, default=None
        Number of images, taken from the beginning of X; if None, 50 for the default budget and all for the full one.
        Shuffle images that are sorted by class.
    verbose : int, default=1
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws words, orders and resamples.

    Returns
    -------
    report : TrustReport
        As text, sentences above a table.  ``verdicts()`` : rows of `question`, `answer` ("yes", "partly" or "no", by
        rules of thumb; "" if the answer is a number) and `why`; ``pictures()`` : the same for the graph of each image.
        ``measurements()`` : list of all measured values, and ``to_frame()`` a pandas table of them, with `measure`,
        `where`, `value`, `low`, `high` (a 95 % interval over the images) and `good`.  ``plot()`` draws a panel for each
        measure that has one.  `results` : dict of the results of the measures, by name; `skipped` : dict of the reasons
        why others could not be measured.  `evidence`, `n_images`, `n_given` (images in X), `seconds` and
        `names` (of image files, if any) describe the report.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, metrics
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(30, random_state=0), InferenceGraph()).fit(digits.images)
    >>> report = metrics.trust_report(pipe, digits.test_images, verbose=0, random_state=0)
    >>> report.n_images, report.evidence
    (50, 'influence')

    One measure at a time:

    >>> images, fitted = digits.test_images[:50], digits.images[:100]
    >>> metrics.fidelity(pipe, images).agreement.value > 0.8
    True
    >>> bool((metrics.completeness(pipe, images).completeness > 0.5).all())
    True
    >>> metrics.removal(pipe, images, random_state=0).used.value > 0.5
    True
    >>> metrics.deletion(pipe, images, "conv3", random_state=0).ratio().value < 1
    True
    >>> top = metrics.faithfulness(pipe, images, random_state=0).layers["conv3"]
    >>> top.faithfulness(top.graph).value > top.faithfulness(top.size_matched["random"]).value
    True
    >>> metrics.edge_effects(pipe, images, random_state=0).pairs["conv3", "conv2"].correlation.value > 0.5
    True
    >>> graphs = metrics.stability(pipe, fitted, n_refits=2, n_images=5, random_state=0).classes
    >>> bool(graphs.similarity.mean() > graphs.chance.mean())
    True
    >>> steps = metrics.randomisation_test(pipe, fitted, n_steps=2, n_images=5, random_state=0)
    >>> bool(steps.classes[2].mean() < steps.other_seed[0])
    True
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(map(repr, BUDGETS))}; got {budget!r}.")
    random = check_random_state(random_state)
    parts = take_apart(estimator, X)
    evidence = parts.graph.evidence_
    n_given = len(parts.maps)
    labels = None if y is None else parts.maps.spec.encode(y, n_given)
    layers = check_layers(layers, parts.maps.layers)
    if n_images is None and budget == "default":
        n_images = _N_IMAGES
    if n_images is not None and n_images < 1:
        raise ValueError(f"n_images must be at least 1; got {n_images}.")
    parts.check_scores()
    seed = int(random.randint(2**31))
    began = time.monotonic()
    parts = replace(parts, maps=in_memory(parts.maps[:n_images]), verbose=verbose)
    jobs = list(_jobs(parts, None if labels is None else labels[:n_images], layers, seed, full=budget == "full"))
    if budget == "full":
        print(f"A full report over {len(parts.maps)} images may take {_minutes(jobs, parts)} minutes.", flush=True)
    results: dict[str, Result] = {}
    skipped: dict[str, str] = {}
    bar = progress(jobs, desc="trust", unit="measure", shown=verbose)
    for job in bar:
        bar.set_postfix_str(job.name)
        try:
            results[job.name] = job.measure(parts, parts.maps, **job.options)
        except ValueError as error:  # for example, too few images; continue with the other measures
            skipped[job.name] = str(error)
    return TrustReport(results, skipped, evidence, _names(parts), n_given, time.monotonic() - began)


def _names(parts: Parts) -> tuple[str, ...]:
    """Return the file name of each image, or its number."""
    pictures = parts.maps.pictures()
    rows = range(len(parts.maps))
    return tuple((pictures is not None and pictures.file_name(row)) or f"image {row}" for row in rows)


def _jobs(parts: Parts, labels: np.ndarray | None, layers: Sequence[str], seed: int, *, full: bool) -> Iterator[_Job]:
    """Yield the measures of a budget, the most important first."""
    # In a layer of one location each image shows a single word, so there is no order.
    ordered = [layer for layer in layers if np.prod(parts.maps.shapes[layer][1:]) > 1]
    seeded = {"random_state": seed}
    if ordered:
        yield _Job("removal", 15 * len(layers) + 21, removal, {"layers": ordered, **seeded})
    yield _Job("edges", 15 * len(layers), edge_effects, seeded)
    if full or labels is not None or parts.graph.evidence_ == "counts":
        yield _Job("fidelity", 2, fidelity, {"y": labels})
    yield _Job("completeness", 2 * len(layers) + 1, completeness, {"layers": layers})
    if not full:
        return
    settings = [("", {}), *((f", {fill}", {"fill": fill}) for fill in FILLS[1:]), (", by class", {"by": "class"})]
    for name, setting in settings:
        options = {"orders": _ORDERS, **seeded, **setting}
        for layer in ordered:
            # the order of frequency does not depend on classes
            orders = ("graph", "random") if "by" in setting else _ORDERS
            yield _Job(f"deletion {layer}{name}", 60, deletion, {**options, "layer": layer, "orders": orders})
        if ordered:
            options |= {"layers": layers, "n_random": 1}
            yield _Job(f"faithfulness{name}", 60 * len(layers), faithfulness, options)
    for layer in ordered:
        for fill in FILLS:
            options = {"layer": layer, "direction": "insertion", "orders": _ORDERS, "fill": fill, **seeded}
            yield _Job(f"insertion {layer}, {fill}", 60, deletion, options)
    refit = 2 + parts.dictionary.n_iter_ / 4  # an iteration takes about a quarter of the time of a pass
    yield _Job("stability", 5 * refit, stability, {"kind": "both", **seeded})
    yield _Job("randomised weights", 6 * refit, randomisation_test, seeded)


def _minutes(jobs: Sequence[_Job], parts: Parts) -> str:
    """Return the estimated time of jobs in minutes, from one pass of one batch through the network."""
    began = time.monotonic()
    n_images = next(parts.maps.rerun(len))
    per_image = (time.monotonic() - began) / n_images
    return f"{max(1, sum(job.passes for job in jobs) * per_image * len(parts.maps) / 60):.0f}"
