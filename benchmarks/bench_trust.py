"""Deletion of words by reruns of the layers above, compared with whole passes with hooks; time of a whole report.

The network is torchvision's ResNet18 with random weights, on images of ImageNet: times do not depend on weights.

    SKGMMCNN_DATA=... python benchmarks/bench_trust.py
"""

import numpy as np
import torch
from common import load_data, timed
from PIL import Image
from sklearn.pipeline import make_pipeline
from torchvision.models import ResNet18_Weights, resnet18

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.metrics import deletion, trust_report

LAYERS = ["layer2", "layer3", "layer4"]
N_IMAGES, N_STEPS, BATCH = 50, 10, 32


def hooked(network, batch, layer, mask):
    """Run a whole pass with zeros at the locations `mask` of a layer."""
    handle = network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, result: torch.where(mask[:, None], torch.zeros(()), result)
    )
    with torch.no_grad():
        network(batch)
    handle.remove()


def by_hooks(network, images, words):
    """Delete words in the order of their numbers, with one whole pass per step."""
    for layer, found in words.words.items():
        for end in np.linspace(0, found.max() + 1, N_STEPS + 1):
            for start in range(0, len(images), BATCH):
                mask = torch.from_numpy(found[start : start + BATCH] < end)
                hooked(network, images[start : start + BATCH], layer, mask)


def by_reruns(pipe, maps):
    """Delete words in one order."""
    for layer in LAYERS:
        deletion(pipe, maps, layer, orders=["frequency"], n_steps=N_STEPS, fill="zero", random_state=0)


def main():
    files, _, _ = load_data().imagenet()
    preprocess = ResNet18_Weights.DEFAULT.transforms()
    extractor = FeatureExtractor(resnet18(), LAYERS, preprocess=preprocess, batch_size=BATCH, device="cpu")
    pipe = make_pipeline(extractor, LayerDictionary(100, random_state=0, keep_patches=False), InferenceGraph())
    pipe.fit(files[N_IMAGES : 3 * N_IMAGES])
    maps = extractor.transform(files[:N_IMAGES]).compute()
    images = torch.stack([part for batch in batches(extractor, files) for part in batch])
    words = pipe[1].transform(maps)
    hooks, _ = timed(by_hooks, extractor.network_, images, words)
    reruns, _ = timed(by_reruns, pipe, maps)
    one_pass, _ = timed(lambda: list(maps.rerun(lambda part: part)))
    print(f"Deletion in {len(LAYERS)} layers, {N_IMAGES} images: {reruns / hooks:.2f} of the time of whole passes")
    report, _ = timed(trust_report, pipe, maps)
    print(f"trust_report: {report:.0f} s, {report / one_pass:.0f} forward passes of its images")


def batches(extractor, files):
    """Yield preprocessed batches of images."""
    for start in range(0, N_IMAGES, BATCH):
        opened = (Image.open(file).convert("RGB") for file in files[start : min(N_IMAGES, start + BATCH)])
        yield torch.stack([extractor.preprocess_(image) for image in opened])


if __name__ == "__main__":
    main()
