"""Occlusion of the places of words in the image, and of other places of the same shape."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import torch

from ..dictionary import WordMaps
from ..features import Rerun, proba_of
from ._influence import network_of
from ._kinds import strength_of

_N_ELSEWHERE = 8  # places


def check_graphs(words: WordMaps, graphs: Sequence[nx.DiGraph], seed: int) -> None:
    """Note in each image's graph its probability with the words' places hidden, and with other places hidden."""
    if len(words.spec.input_shape) != 3:
        raise ValueError("Places can be hidden only in images; this network takes vectors.")
    if len(graphs) != len(words):
        raise ValueError(f"Give one graph for each of the {len(words)} images; got {len(graphs)}.")
    for graph in graphs:
        if "target" not in graph.graph or graph.graph["n_images"] != 1:
            raise ValueError("Only graphs that explain an output for one image can be checked so.")
    targets = np.array([graph.graph["target"] for graph in graphs])
    masks = torch.from_numpy(np.stack([_places(words[i], graph) for i, graph in enumerate(graphs)]))
    random = np.random.RandomState(seed)
    rolls = random.randint(words.spec.input_shape[1:], size=(_N_ELSEWHERE, 2))

    def work(part: Rerun) -> np.ndarray:
        """Return the probabilities of the targets with pixels in the mean colour of their image, here and elsewhere."""
        shown, grey = masks[part.rows].to(part.images.device), part.images.mean((2, 3), keepdim=True)
        places = [shown, *(shown.roll(tuple(roll), (1, 2)) for roll in rolls.tolist())]
        hidden = [part.run_images(torch.where(place[:, None], grey, part.images))[0] for place in places]
        return np.stack([proba_of(outputs, targets[part.rows]) for outputs in hidden], axis=1)

    measured = np.concatenate(list(network_of(words).rerun(work, "hiding")))
    for graph, mask, (hidden, *elsewhere) in zip(graphs, masks, measured.tolist(), strict=True):
        graph.graph |= {
            "probability_hidden": hidden,
            "probability_hidden_elsewhere": float(np.mean(elsewhere)),
            "share_hidden": float(mask.double().mean()),
        }


def _places(words: WordMaps, graph: nx.DiGraph) -> np.ndarray:
    """Return the pixels of one image where the words lie that speak for the target directly, bool (H, W)."""
    height, width = words.spec.input_shape[1:]
    mask = np.zeros((height, width), dtype=bool)
    support = strength_of(graph).support
    for key in graph.predecessors(graph.graph["root"]):
        node = graph.nodes[key]
        if node[support] > 0:
            shown = words.words[node["layer"]][0] == node["word"]
            rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), shown.shape, strict=True))
            mask |= shown[np.ix_(rows, columns)]
    return mask
