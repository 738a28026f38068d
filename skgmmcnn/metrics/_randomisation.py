"""Similarity of graphs to those of a network with randomised weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._progress import progress
from ..dictionary import WordMaps, align_words
from ..features import Change, FeatureMaps, maps_of_changed_network
from ..graph import InferenceGraph
from ._intervals import interval_of_mean
from ._parts import in_memory
from ._refits import Reference, open_for_refits, refit, seed_of, similarities
from ._results import BASELINE, Measurement, Result, text_table


@dataclass(frozen=True, eq=False)
class Randomisation(Result):
    """The result of :func:`randomisation_test`."""

    modules: tuple[tuple[str, ...], ...]
    classes: np.ndarray
    images: np.ndarray
    image_intervals: np.ndarray
    chance: np.ndarray
    other_seed: tuple[float, float]
    words: Mapping[str, np.ndarray]
    fidelity: np.ndarray
    agreement: np.ndarray

    @property
    def survival(self) -> tuple[float, float]:
        """Similarity of class and of image graphs after all steps, on a scale from chance (0) to another seed (1)."""
        last = self.classes[-1].mean(), self.images[-1].mean()
        scale = zip(last, self.chance[-1], self.other_seed, strict=True)
        classes, images = (
            float((value - chance) / (top - chance)) if top > chance else np.nan for value, chance, top in scale
        )
        return classes, images

    def measurements(self) -> list[Measurement]:
        measurements = []
        for i, (kind, similarity) in enumerate([("class", self.classes[-1]), ("image", self.images[-1])]):
            low, high = self.image_intervals[-1].tolist() if kind == "image" else (np.nan, np.nan)
            name = f"similarity of {kind} graphs"
            chance = float(self.chance[-1, i])
            measurements += [
                Measurement(f"{name}, random weights", "graph", float(similarity.mean()), low, high, "near 0"),
                Measurement(f"{name}, other seed", "graph", self.other_seed[i], good=BASELINE),
                Measurement(f"{name}, random partners", "graph", chance, good=BASELINE),
                Measurement(f"survival of {kind} graphs", "graph", self.survival[i], good="near 0"),
            ]
        return measurements

    def __str__(self) -> str:
        words = np.mean(list(self.words.values()), axis=0)
        rows = [["down to", "class graphs", "image graphs", "words", "words agree", "decisions kept"]]
        for step, name in enumerate(["(none)", *(names[-1] for names in self.modules)]):
            similarities = self.classes[step].mean(), self.images[step].mean(), words[step]
            shares = self.fidelity[step], self.agreement[step]
            rows.append([name, *(f"{each:.2f}" for each in similarities), *(f"{share:.0%}" for share in shares)])
        return f"{text_table(rows, '<>>>>>')}\n{super().__str__()}"


def randomisation_test(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    n_steps: int | None = 5,
    explained: Any = None,
    n_images: int = 20,
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
) -> Randomisation:
    """Randomise the network's weights from the top down, fit again, and compare the graphs.

    An explanation that hardly changes with random weights explains the images, not the network [1]_.  In each step the
    weights of further modules, from the output down, are permuted within each tensor; words and graph are fitted to the
    maps of this network, with the same seed, and its graphs are compared with those of `estimator` for the same images
    and decisions.  Words at the same locations are partners (:func:`skgmmcnn.dictionary.align_words`), since channels
    of other weights have other meanings.

    Parameters
    ----------
    estimator : Pipeline
        Fitted: extractor, words and :class:`InferenceGraph`, or the latter two; an example is in :func:`trust_report`.
    X : images or FeatureMaps
        Data of the refits, preferably the images that `estimator` was fitted to.  Up to 2 GiB of activations are held
        in memory; with more, the network runs twice a step.
    y : array-like of shape (n,), default=None
        Output numbers or class names if the words were fitted with them.
    n_steps : int or None, default=5
        Number of steps, each a refit; one for each module if None.
    explained : images or FeatureMaps, default=None
        Images whose graphs and decisions are compared, X if None.
    n_images : int, default=20
        Number of random images whose graphs are compared.  Graphs of classes use all images.
    random_state : int, RandomState instance or None, default=None
        Permutes weights, draws images and random partners.
    verbose : int, default=0
        Whether to show the progress of the steps.

    Returns
    -------
    result : Randomisation
        Of S + 1 steps, the first with the unchanged network: `classes`, `images` : arrays of shape (S + 1, n_classes)
        and (S + 1, n_images), similarity of the graphs to those of `estimator`; `image_intervals` : 95 % intervals of
        the mean over images; `chance` : array of shape (S + 1, 2), mean similarities of class and image graphs with
        random partners; `words` : by layer, array of shape (S + 1,), mean Jaccard index of the locations of a word and
        its partner; `fidelity`, `agreement` : arrays of shape (S + 1,), share of the images for which the words decide
        as the randomised network, and this network as the original one.  `modules` : the modules that are randomised in
        each of S steps.  `other_seed` : mean similarities of class and image graphs with words of another seed.
        `survival` : (last similarity - chance) / (`other_seed` - chance), near 0 if graphs depend on the weights, near
        1 if they depend only on the images; NaN if another seed is no better than chance.

    Notes
    -----
    The network is copied.  Modules are sorted by the beginning of their first call.  Permutations preserve the sizes
    of weights, but not their sums: randomised batch norms estimate mean and variance from one batch of X, since
    activations would grow without bounds otherwise.

    Words of a layer stay the same until the first step that changes it.  A random network often decides for very few
    classes; the others have no evidence and an empty graph.  `words` does not depend on decisions.  `fidelity` may stay
    high even if no graph survives, since words of random networks also determine their decision.

    References
    ----------
    .. [1] Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity checks for saliency maps", NeurIPS 2018,
       section 3.
    """
    if (n_steps is not None and n_steps < 1) or n_images < 1:
        raise ValueError(f"n_steps and n_images must be at least 1; got {n_steps} and {n_images}.")
    random = check_random_state(random_state)
    parts, explained_maps = open_for_refits(estimator, X, explained)
    cascade = _Cascade(random)
    steps = _steps(_run_order(parts.maps), n_steps)
    seed = seed_of(parts.dictionary, random)
    first = Reference(parts, explained_maps, n_images, random)

    def step(maps: FeatureMaps, explained_maps: FeatureMaps, seed: int) -> dict[str, np.ndarray]:
        dictionary, graph = refit(parts, maps, y, seed)
        return _compare(first, graph, dictionary.transform(explained_maps))

    results = [step(parts.maps, explained_maps, seed)]
    other = step(parts.maps, explained_maps, int(random.randint(2**31)))
    for names in progress(steps, desc="steps", shown=verbose):
        maps = in_memory(maps_of_changed_network(parts.maps, cascade.randomise(names)))
        other_maps = maps if explained is None else maps_of_changed_network(explained_maps, cascade.repeat)
        results.append(step(maps, other_maps, seed))
    stacked = {name: np.stack([each[name] for each in results]) for name in other}
    words = dict(zip(first.words.layers, stacked.pop("words").T, strict=True))
    return Randomisation(
        modules=tuple(map(tuple, steps)),
        image_intervals=np.array([interval_of_mean(images, random) for images in stacked["images"]]),
        other_seed=(float(other["classes"].mean()), float(other["images"].mean())),
        words=words,
        **stacked,
    )


def _run_order(maps: FeatureMaps) -> list[str]:
    """Return the names of modules with own weights, in the order in which their first calls begin.

    A module that is never called, whose weights others use, follows the module defined before it.
    """
    calls: list[str] = []
    modules: dict[str, nn.Module] = {}

    def record(network: nn.Module, batch: Tensor) -> None:
        modules.update(network.named_modules())
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda module, inputs, name=name: calls.append(name))
        network(batch[:1])

    maps_of_changed_network(maps[:1], record)
    ranks = {}
    rank = -1
    for name in modules:
        if name in calls:
            rank = calls.index(name)
        ranks[name] = rank
    with_weights = [name for name, module in modules.items() if list(module.parameters(recurse=False))]
    return sorted(with_weights, key=ranks.__getitem__)


def _steps(order: Sequence[str], n_steps: int | None) -> list[list[str]]:
    """Return the modules from the last to the first, in steps of nearly equal numbers."""
    parts = np.array_split(np.array(order[::-1], dtype=object), min(n_steps or len(order), len(order)))
    return [part.tolist() for part in parts]


class _Cascade:
    """Cascading randomisation of a network; the weights are kept, not the network."""

    def __init__(self, random: np.random.RandomState) -> None:
        self._generator = torch.Generator().manual_seed(int(random.randint(2**31)))
        self._weights: dict[str, Any] = {}
        self._names: list[str] = []

    def randomise(self, names: Sequence[str]) -> Change:
        """Return the change that also randomises the modules `names`."""

        def change(network: nn.Module, batch: Tensor) -> None:
            self.repeat(network, batch)
            for name in names:
                self._permute(network.get_submodule(name))
            self._names += names
            _renormalise([network.get_submodule(name) for name in self._names], network, batch)
            self._weights = copy.deepcopy(network.state_dict())

        return change

    def repeat(self, network: nn.Module, batch: Tensor) -> None:
        """Load the last weights into a network."""
        if self._weights:
            network.load_state_dict(self._weights)

    def _permute(self, module: nn.Module) -> None:
        for weights in module.parameters(recurse=False):
            order = torch.randperm(weights.numel(), generator=self._generator).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))


def _renormalise(modules: list[nn.Module], network: nn.Module, batch: Tensor) -> None:
    """Estimate mean and variance of batch norms among the modules from one batch."""
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.track_running_stats]
    if len(batch) < 2 or not norms:
        return
    for module in norms:
        module.momentum = 1.0
        module.train()
    network(batch)
    for module in norms:
        module.eval()


def _compare(first: Reference, graph: InferenceGraph, words: WordMaps) -> dict[str, np.ndarray]:
    """Return the results of one step, by attribute of :class:`Randomisation`."""
    alignment = align_words(first.words, words)
    classes, images = first.compare(graph, words, alignment)
    n_words = first.words.vocabulary.n_words
    return {
        "classes": similarities(classes.aligned),
        "images": similarities(images.aligned),
        "chance": np.array([similarities(classes.chance).mean(), similarities(images.chance).mean()]),
        "words": np.array([alignment.similarity[layer].sum() / n for layer, n in n_words.items()]),
        "fidelity": np.array(graph.score(words)),
        "agreement": (words.decisions == first.words.decisions).mean(),
    }
