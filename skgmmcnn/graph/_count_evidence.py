"""Evidence of counts: words that go together with the target in the fitted images [1]_.

.. [1] Konforti, Shpigler, Lerner and Bar-Hillel, "Inference Graphs for CNN Interpretation", ECCV 2020, section 3.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
from sklearn.utils import gen_batches

from .._warnings import warn
from ..features import ReceptiveField
from ._count_tables import FEW_FITTED
from ._count_wording import CountWording
from ._evidence import ENOUGH, NONE, Evidence, Selection, Strength
from ._hierarchy import DECISION
from ._targets import Targets

NO_EVIDENCE = 1e-9  # bits; smaller differences are rounding
_HELD = 2**22  # numbers held at a time


class _Link(NamedTuple):
    """Evidence of one layer for words of a layer above it, in g graphs."""

    layer: str
    above: np.ndarray  # the upper words, (g, A)
    counts: np.ndarray  # number of locations of each word in the fields of these, (g, A, K)
    ratios: np.ndarray  # evidence of one location, (g, A, K)


class _Step(NamedTuple):
    """One layer of a walk in g graphs."""

    layer: str
    links: list[_Link]  # to the layers that it explains
    scores: np.ndarray  # (g, K)
    kept: np.ndarray  # words, (g, m)


class CountEvidence(Evidence):
    """Log-ratios of counts, in bits, walked from the targets down."""

    name = "counts"
    strength = Strength(
        unit="bits",
        node="score",
        root="score",
        support="score",
        edge="log_ratio",
        total="contribution",
        evidence="contribution",
        part="count",
        share="frequency",
        comparable_across_rows=False,
        additive=True,
    )
    wording = CountWording
    uses_network = False

    def _validate(self) -> None:
        if self.estimator.n_nodes == ENOUGH:
            raise ValueError("n_nodes='enough' needs words with a network and influence as evidence; pass a number.")

    def select(self, targets: Targets) -> list[Selection]:
        """Return the words of largest score for the words kept above."""
        self._check_counted(targets)
        selections = []
        for rows, steps in self._walks(targets):
            n_graphs = 1 if targets.together else rows.stop - rows.start
            selections += [self._selection(steps, targets, i, rows.start + i) for i in range(n_graphs)]
        n_denied = sum(selection.root["score"] < 0 for selection in selections)
        if targets.contrast is not None and n_denied:
            warn(
                f"The counts of all words together speak against {n_denied} of {len(selections)} contrasts, although "
                "the network decided so: the words shown cannot be the reason. Use evidence='influence'.",
            )
        return selections

    def totals(self) -> np.ndarray:
        """Return the score of each word in the walk from the decision, in bits."""
        walks = self._walks(Targets(DECISION, self.words.decisions))
        return np.concatenate([np.hstack([step.scores for step in reversed(steps)]) for _, steps in walks])

    def _walks(self, targets: Targets) -> Iterator[tuple[slice, list[_Step]]]:
        """Yield the walks of some images at a time, or the one walk of all."""
        each = max(self.n_nodes.values()) * sum(self.words.vocabulary.n_words.values())
        at_once = len(self.words) if targets.together else max(1, _HELD // each)
        for rows in gen_batches(len(self.words), at_once):
            yield rows, self._walk(targets, rows)

    def _walk(self, targets: Targets, rows: slice) -> list[_Step]:
        """Walk from the targets of some images down, layer by layer, in each image or in all together.

        score(t) = sum over the words s kept above of C[s, t] log2 P(t | s) / P(t), with C counted over these images.
        The `n_nodes[layer]` best words with a positive score are kept: the exact maximiser of this additive
        log-likelihood ratio, given the words above.
        """
        reached = {targets.layer: targets.words[rows][: 1 if targets.together else None, None]}
        steps = []
        for layer in reversed(self.words.layers):
            uppers = [upper for upper in self.hierarchy.above[layer] if upper in reached]
            links = [self._link(targets, rows, upper, layer, reached[upper]) for upper in uppers]
            if not links:
                continue
            scores = reduce(np.add, ((link.counts * link.ratios).sum(1) for link in links))
            # Ties go to the lower number.
            ranked = np.argsort(-(scores / NO_EVIDENCE).round(), axis=1, kind="stable")[:, : self.n_nodes[layer]]
            reached[layer] = np.where(np.take_along_axis(scores, ranked, axis=1) > NO_EVIDENCE, ranked, NONE)
            steps.append(_Step(layer, links, scores, reached[layer]))
        return steps

    def _link(self, targets: Targets, rows: slice, upper: str, layer: str, above: np.ndarray) -> _Link:
        table, field = self.estimator.log_ratios_[upper, layer], self.hierarchy.fields[upper, layer]
        ratios = table[above]
        if upper == DECISION and targets.contrast is not None:
            ratios = ratios - table[targets.contrast[rows][: len(above), None]]
        counts, lower = np.zeros(ratios.shape, dtype=np.int64), self.words.words[layer][rows]
        each = above.shape[1] * max(len(field.rows[0]) * len(field.columns[0]), lower[0].size, table.shape[1])
        for part in gen_batches(len(lower), max(1, _HELD // each)):
            graphs = slice(None) if targets.together else part
            images = slice(rows.start + part.start, rows.start + part.stop)
            present = self._present(targets, images, upper, above[graphs])
            below = _count_below(present, lower[part], field, table.shape[1])
            counts[graphs] += below.sum(0, keepdims=True) if targets.together else below
        return _Link(upper, above, counts, ratios)

    def _present(self, targets: Targets, images: slice, upper: str, above: np.ndarray) -> np.ndarray:
        """Return the locations of the words `above` (g, A), bool (n, A, H, W)."""
        if upper == DECISION:  # an output is explained in every image, whatever the network decided
            return np.ones((images.stop - images.start, above.shape[1], 1, 1), dtype=bool)
        if upper == targets.layer:
            return targets.where(self.words, images)[:, None]
        return self.words.words[upper][images, None] == above[:, :, None, None]

    def _selection(self, steps: list[_Step], targets: Targets, graph: int, image: int) -> Selection:
        """Return the words that a walk kept in one graph, with the scores of full sums."""
        selection = Selection()
        first = [step for step in steps if any(link.layer == targets.layer for link in step.links)]
        selection.root["score"] = float(sum(step.scores[graph].sum() for step in first))
        if targets.layer == DECISION:
            selection.root["n_fitted"] = int(self.estimator.class_counts_[targets.words[image]])
        for step in steps:
            kept = [word for word in step.kept[graph].tolist() if word != NONE]
            selection.words |= {(step.layer, word): {"score": float(step.scores[graph, word])} for word in kept}
            for link in step.links:
                totals = link.counts[graph].sum(1).tolist()
                for row, t in itertools.product(np.flatnonzero(link.above[graph] != NONE).tolist(), kept):
                    pair = (step.layer, t), (link.layer, int(link.above[graph, row]))
                    ratio, count = float(link.ratios[graph, row, t]), int(link.counts[graph, row, t])
                    selection.pairs[pair] = {
                        "log_ratio": ratio,
                        "count": count,
                        "frequency": count / totals[row] if totals[row] else 0.0,
                        "contribution": ratio * count,
                    }
                    if ratio > NO_EVIDENCE and count > 0:
                        selection.edges.add(pair)
        return selection

    def _check_counted(self, targets: Targets) -> None:
        """Raise ValueError for contrasts of classes without fitted images, and warn of targets with few."""
        if targets.layer != DECISION:
            return
        spec, counts, outputs = self.words.spec, self.estimator.class_counts_, np.unique(targets.words).tolist()
        for output in [] if targets.contrast is None else [*outputs, *np.unique(targets.contrast)]:
            if not counts[output]:
                raise ValueError(
                    f"No fitted image has the decision {spec.class_name(output)!r}, so there is nothing to contrast; "
                    "fit with such images, or use evidence='influence'."
                )
        few = [output for output in outputs if counts[output] < FEW_FITTED]
        if few:
            names = ", ".join(f"{spec.class_name(output)!r} ({counts[output]})" for output in few[:3])
            warn(
                f"Counts know little of decisions with fewer than {FEW_FITTED} fitted images: {names}"
                f"{' and others' if len(few) > 3 else ''}. Fit more images of them, or use evidence='influence'.",
            )


def _count_below(present: np.ndarray, lower: np.ndarray, field: ReceptiveField, n_words: int) -> np.ndarray:
    """Return the number of locations of each word of `lower` (n, h, w) in the fields of `present`, int64 (n, A, K)."""
    shape = *present.shape[:2], n_words
    # The number of fields at each location; exact in float32, as it is at most the number of locations of a map.
    n_fields = sum_over_fields(present.astype(np.float32), field)
    cells = lower[:, None] + np.arange(0, np.prod(shape), n_words).reshape(*shape[:2], 1, 1)
    return np.bincount(cells.ravel(), n_fields.ravel(), minlength=np.prod(shape)).reshape(shape).astype(np.int64)


def sum_over_fields(values: np.ndarray, field: ReceptiveField) -> np.ndarray:
    """Return at each lower location the sum of `values` (..., H, W) over the fields that contain it, (..., h, w)."""
    rows, columns = (span.mask(size).astype(values.dtype) for span, size in field.axes)
    return rows.T @ values @ columns
