"""The walk: words, with the selected ones and the arrows of evidence between them."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch

LAYERS = [("decision", 1, [0]), ("upper layer", 7, [1, 3, 5]), ("lower layer", 9, [0, 3, 4, 7])]
EDGES = [((0, 0), (1, 1), 3), ((0, 0), (1, 3), 2), ((0, 0), (1, 5), 1.2)]
EDGES += [((1, 1), (2, 0), 2.4), ((1, 1), (2, 3), 1.4), ((1, 3), (2, 3), 3), ((1, 3), (2, 4), 1), ((1, 5), (2, 7), 2)]
place = {(i, j): (j - (n - 1) / 2, 2 - i) for i, (_, n, _) in enumerate(LAYERS) for j in range(n)}

figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
for i, (name, n, kept) in enumerate(LAYERS):
    axes.text(-6.6, 2 - i, name, ha="left", va="center", color="0.3")
    for j in range(n):
        chosen = j in kept
        axes.plot(*place[i, j], "s", markersize=17, color="tab:blue" if chosen else "0.88")
for head, tail, width in EDGES:
    axes.add_patch(
        FancyArrowPatch(
            place[tail],
            place[head],
            arrowstyle="-|>",
            mutation_scale=11,
            shrinkA=10,
            shrinkB=10,
            linewidth=width,
            color="0.35",
        )
    )
axes.text(4.9, 2, "1. start here", va="center")
axes.text(4.9, 1, "2. keep the best\n    for the decision", va="center")
axes.text(4.9, 0, "3. keep the best for\n    the words kept above", va="center")
axes.set(xlim=(-6.8, 8.6), ylim=(-0.5, 2.5))
axes.set_axis_off()
