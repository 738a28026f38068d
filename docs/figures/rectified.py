"""A Gaussian, and its rectified version behind a ReLU."""

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

mean, deviation = 0.4, 1.0
y = np.linspace(-3, 4, 400)
density = norm.pdf(y, mean, deviation)
figure, (before, after) = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained", sharey=True)
before.plot(y, density, color="tab:blue")
before.fill_between(y, density, where=y <= 0, color="tab:orange", alpha=0.4)
before.set(title="before the ReLU: y", xlabel="y", ylabel="density", yticks=[], xticks=[0, mean])
before.set_xticklabels(["0", r"$\mu$"])
after.plot(y[y > 0], density[y > 0], color="tab:blue")
after.plot([0, 0], [0, norm.cdf(0, mean, deviation)], color="tab:orange", linewidth=5, solid_capstyle="butt")
after.annotate(
    r"probability $\Phi(-\mu/\sigma)$",
    (0.1, norm.cdf(0, mean, deviation)),
    (1.2, 0.42),
    arrowprops={"arrowstyle": "-", "color": "0.5"},
    va="center",
)
after.set(title="behind it: x = max(0, y)", xlabel="x", xticks=[0, mean], xlim=before.get_xlim())
after.set_xticklabels(["0", r"$\mu$"])
for axes in (before, after):
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 0.48)
