"""Words of a lower map in the receptive field of one location above."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import ConnectionPatch, Rectangle

COLOURS = ["#f0f0f0", "#88ccee", "#ddcc77", "#cc6677"]
upper = np.array([[0, 1, 1], [0, 2, 1], [0, 0, 0]])
lower = np.array(
    [[0, 0, 1, 1, 0, 0], [0, 1, 3, 3, 1, 0], [0, 1, 2, 3, 1, 0], [0, 0, 2, 1, 1, 0], [0, 0, 2, 0, 0, 0], [0] * 6]
)
figure, (above, table, below) = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", width_ratios=[1, 1, 1.2])
for axes, words, title in [(above, upper, "upper layer"), (below, lower, "lower layer")]:
    for (row, column), word in np.ndenumerate(words):
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=COLOURS[word], edgecolor="white"))
        axes.text(column + 0.5, row + 0.5, "stuv"[word] if axes is above else "abcd"[word], ha="center", va="center")
    axes.set(xlim=(-0.1, len(words) + 0.1), ylim=(len(words) + 0.1, -0.1), title=title, aspect="equal")
    axes.set_axis_off()
above.add_patch(Rectangle((1, 1), 1, 1, fill=False, edgecolor="#882255", linewidth=3))
below.add_patch(Rectangle((1, 1), 4, 4, fill=False, edgecolor="#882255", linewidth=3))
for corner, (x, y) in [((2, 1), (1, 1)), ((2, 2), (1, 5))]:
    figure.add_artist(ConnectionPatch(corner, (x, y), "data", axesA=above, axesB=below, color="#882255", alpha=0.4))
counts = np.bincount(lower[1:5, 1:5].ravel(), minlength=4)
table.set_axis_off()
table.set_zorder(5)
table.text(0.5, 0.62, "word u sees", ha="center", fontweight="bold", backgroundcolor="white")
table.text(
    0.5,
    0.36,
    "\n".join(f"C[u, {name}] += {n}" for name, n in zip("abcd", counts, strict=True)),
    ha="center",
    va="center",
    family="monospace",
    backgroundcolor="white",
)
