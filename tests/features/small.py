"""A small network, images for it, and ways to write and read them."""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from skgmmcnn import FeatureExtractor

TO_TENSOR = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)])
SMALL = transforms.Compose([transforms.Resize((12, 12)), transforms.ToTensor()])
READY = np.zeros((4, 3, 9, 9), np.float32)


def small_network(channels=3, outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(5, 6, 3, 2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, outputs),
    )


def activations(maps, layer):
    return np.concatenate([batch.activations[layer].numpy() for batch in maps.batches()])


def in_memory(pixels):
    return torch.stack([TO_TENSOR(Image.fromarray(image)) for image in pixels])


def as_files(pixels, folder):
    files = []
    for i, image in enumerate(pixels):
        files.append(folder / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    return files


def with_nan(X, place):
    X = np.array(X, dtype=np.float32)
    X[place, 0, 0, 0] = np.nan
    return X


def extractor(network, **settings):
    return FeatureExtractor(network, ["0"], **{"preprocess": SMALL, "batch_size": 3, "device": "cpu", **settings})
