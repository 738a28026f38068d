"""Two processes divide the images, and end with one dictionary: the picture of an example.

``python docs/figures/two_processes.py docs/_static/two_processes.png``
"""

import sys

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

COLOURS = {"Blues": "tab:blue", "Oranges": "tab:orange"}
images = load_digits().images
figure, axes = plt.subplots(4, 9, figsize=(4, 2.8))
for ax in axes.flat:
    ax.set_axis_off()
for rank, (name, colour) in enumerate(COLOURS.items()):
    for i, ax in enumerate(axes[:, 5 * rank : 5 * rank + 4].flat):
        ax.imshow(images[16 * rank + i], cmap=name)
    figure.text(0.3 + 0.43 * rank, 0.93, f"process {rank}", ha="center", color=colour, fontsize=11)
    axes[0, 0].annotate(
        "",
        (0.47 + 0.09 * rank, 0.05),
        (0.3 + 0.43 * rank, 0.17),
        xycoords="figure fraction",
        textcoords="figure fraction",
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2},
    )
figure.text(0.515, 0.02, "words", ha="center", fontsize=11)
figure.subplots_adjust(bottom=0.18, top=0.9)
figure.savefig(sys.argv[1], dpi=100)
