"""
Two processes, one dictionary
=============================

Processes on one or several machines divide the passes over the images.  Each process runs this file, and all end with
the pipeline of a single process, up to rounding::

    torchrun --nproc-per-node=2 examples/two_processes.py
"""

# %%
# ``torchrun`` sets the rank of each process.  The backend is ``gloo`` for CPUs and ``nccl`` for GPUs.
import os

import torch.distributed as dist

if "RANK" in os.environ:
    dist.init_process_group("gloo")

# %%
# The other code does not change: dictionary and graph divide the images among the processes.
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

digits = load_digits_network()
pipe = make_pipeline(
    FeatureExtractor(digits.network, ["conv2", "conv3"], device="cpu"),
    LayerDictionary(20, random_state=0),
    InferenceGraph(),
).fit(digits.images)

# %%
# One process prints the result.
if not dist.is_initialized() or dist.get_rank() == 0:
    print(f"agreement with the network on test images: {pipe.score(digits.test_images):.1%}")
if dist.is_initialized():
    dist.destroy_process_group()
# sphinx_gallery_thumbnail_path = "_static/two_processes.png"
