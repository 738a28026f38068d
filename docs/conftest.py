"""The code of the pages runs as doctests."""

import matplotlib

matplotlib.use("Agg")
# What builds the pages, and what the build leaves.
collect_ignore_glob = ["*.py", "_*", "api/generated", "figures", "gallery"]
