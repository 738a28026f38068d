"""Occlusion of the places of words in the image, and of other places of the same shape."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import torch

from ..dictionary import WordMaps
from ..features import Rerun, proba_of
from ._influence_evidence import network_of
from ._kinds import strength_of

_N_ELSEWHERE = 8  # places


def check_graphs(words: WordMaps, graphs: Sequence[nx.DiGraph], seed: int) -> None:
    """Add to the graph of each image the probability with the places of words hidden, and with other places hidden."""
    if len(words.spec.input_shape) != 3:
        raise ValueError("Places can be hidden only in images; this network takes vectors.")
    if len(graphs) != len(words):
        raise ValueError(f"Give one graph for each of the {len(words)} images; got {len(graphs)}.")
    for graph in graphs:
        if "target" not in graph.graph or graph.graph["n_images"] != 1:
            raise ValueError("Only graphs that explain an output for one image can be checked.")
    targets = np.array([graph.graph["target"] for graph in graphs])
    masks = torch.from_numpy(np.stack([_mask(words[i], graph) for i, graph in enumerate(graphs)]))
    shifts = np.random.RandomState(seed).randint(words.spec.input_shape[1:], size=(_N_ELSEWHERE, 2)).tolist()

    def occlude(part: Rerun) -> np.ndarray:
        """Return the probabilities of the targets with pixels in the mean colour of their image, here and elsewhere."""
        mask = masks[part.rows].to(part.images.device)
        mean = part.images.mean((2, 3), keepdim=True)
        probabilities = []
        for shift in ([0, 0], *shifts):
            occluded = torch.where(mask.roll(shift, (1, 2))[:, None], mean, part.images)
            outputs, _ = part.run_images(occluded)
            probabilities.append(proba_of(outputs, targets[part.rows]))
        return np.stack(probabilities, axis=1)

    probabilities = np.concatenate(list(network_of(words).rerun(occlude, "hiding")))
    for graph, mask, (hidden, *elsewhere) in zip(graphs, masks, probabilities.tolist(), strict=True):
        graph.graph |= {
            "probability_hidden": hidden,
            "probability_hidden_elsewhere": float(np.mean(elsewhere)),
            "share_hidden": float(mask.double().mean()),
        }


def _mask(words: WordMaps, graph: nx.DiGraph) -> np.ndarray:
    """Return the pixels of the words of one image that support the target directly, bool (H, W)."""
    mask = np.zeros(words.spec.input_shape[1:], dtype=bool)
    support = strength_of(graph).support
    for key in graph.predecessors(graph.graph["root"]):
        node = graph.nodes[key]
        if node[support] > 0:
            locations = words.words[node["layer"]][0] == node["word"]
            rows, columns = (np.arange(n) * m // n for n, m in zip(mask.shape, locations.shape, strict=True))
            mask |= locations[np.ix_(rows, columns)]
    return mask
