"""
Two processes, one dictionary
=============================

Passes over many images can be divided among processes, on one machine or several.  Each process runs this same file,
and all end with the same pipeline, which is the one that a single process finds, up to rounding::

    torchrun --nproc-per-node=2 examples/two_processes.py
"""

# %%
# ``torchrun`` gives each process its number; ``gloo`` lets processors talk, ``nccl`` GPUs.
import os

import torch.distributed as dist

if "RANK" in os.environ:
    dist.init_process_group("gloo")

# %%
# From here on nothing is different: the dictionary and the graph divide the images among the processes.
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
# What follows, each process could do by itself; one is enough.
if not dist.is_initialized() or dist.get_rank() == 0:
    print(f"agreement with the network on test images: {pipe.score(digits.test_images):.1%}")
if dist.is_initialized():
    dist.destroy_process_group()
# sphinx_gallery_thumbnail_path = "_static/two_processes.png"
