"""Tables of trust for the real networks of the folder SKGMMCNN_DATA, as the documentation shows them.

SKGMMCNN_DATA=... python benchmarks/trust_tables.py resnet20|squeezenet|tiny_darknet [options of skgmmcnn.metrics]
"""

import sys

import numpy as np
from common import load_data
from PIL import Image

from skgmmcnn.metrics.__main__ import main

DATA = load_data()
RESNET20, SQUEEZENET, TINY_DARKNET = DATA.cifar_resnet20, DATA.squeezenet, DATA.tiny_darknet
ASKED = {
    "resnet20": ["cifar_train", "cifar_test", "--n-images", "200", "--layers", "layer1", "layer2", "layer3"],
    "squeezenet": ["imagenet", "imagenet", "--n-images", "30", "--layers", "features.9", "features.12"],
    "tiny_darknet": ["imagenet_unscaled", "imagenet_unscaled", "--n-images", "30", "--layers", "42", "48"],
}


def scaled(pixels):
    """Return uint8 images (n, 32, 32, 3) with ImageNet's mean and deviation taken out."""
    return ((pixels / 255 - DATA.IMAGENET_MEAN) / DATA.IMAGENET_STD).astype(np.float32).transpose(0, 3, 1, 2)


def cifar_train():
    return scaled(DATA.cifar10("train")[0])


def cifar_test():
    return scaled(DATA.cifar10("test")[0])


def cropped(file):
    """Return the middle of an image (224, 224, 3) in [0, 1]."""
    image = Image.open(file).convert("RGB")
    share = 256 / min(image.size)
    image = image.resize([round(side * share) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255


def imagenet_unscaled():
    return np.stack([cropped(file) for file in DATA.imagenet()[0]]).transpose(0, 3, 1, 2)


def imagenet():
    mean, deviation = (
        np.asarray(values, np.float32).reshape(3, 1, 1) for values in (DATA.IMAGENET_MEAN, DATA.IMAGENET_STD)
    )
    return (imagenet_unscaled() - mean) / deviation


if __name__ == "__main__":
    name, *options = sys.argv[1:]
    images, test_images, *rest = ASKED[name]
    named = [f"trust_tables:{each}" for each in (name.upper(), images, test_images)]
    main([*named, *rest, "--preprocess", "none", "--keep", *options])
