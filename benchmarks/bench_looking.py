"""Time to inspect a network, in forward passes of one image.

Compared in one process: a forward pass; the inspection of all layers, as in `list_layers`; the inspection of the
default layers and their pairs; and a complete `fit` to four images, which does both and measures effective fields.
Each includes all previous steps but the weights.  Times are seconds of one thread.  Names are those of torchvision, of
timm after ``timm:``, or ``lite0`` for an EfficientNet-Lite0 of the package ``efficientnet_lite_pytorch``.

    python benchmarks/bench_looking.py [network ...]
"""

import sys
import time
import warnings

import torch
import torchvision

from skgmmcnn import FeatureExtractor
from skgmmcnn.features._captured import CapturedNetwork
from skgmmcnn.features._layers import choose_layers

NETWORKS = (
    "alexnet vgg16 resnet50 resnext50_32x4d densenet121 inception_v3 googlenet squeezenet1_1 mobilenet_v2 "
    "mobilenet_v3_small efficientnet_b0 regnet_y_400mf convnext_tiny mnasnet0_5 shufflenet_v2_x0_5 vit_b_32 swin_t"
).split()
N_TIMES = 5


def build(name):
    torch.manual_seed(0)
    if name == "lite0":
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
    elif name.startswith("timm:"):
        import timm

        network = timm.create_model(name.removeprefix("timm:"))
    else:
        network = torchvision.models.get_model(name, weights=None)
    return network.eval().requires_grad_(False)


def least(function):
    """Return the shortest processor time of several calls, and the last result."""
    found = []
    for _ in range(N_TIMES):
        started = time.process_time()
        result = function()
        found.append(time.process_time() - started)
    return min(found), result


def look(network, image):
    watched = CapturedNetwork(network)
    return watched, watched.survey(image)


def main(names):
    print(f"{'network':34}{'pass ms':>9}{'list':>8}{'select':>8}{'fit':>8}  layers by default")
    for name in names or NETWORKS:
        network, image = build(name), torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            once, _ = least(lambda network=network, image=image: network(image))
        listing, (watched, survey) = least(lambda network=network, image=image: look(network, image))
        layers = choose_layers(survey, network)
        selecting, _ = least(lambda watched=watched, layers=layers, image=image: watched.select(layers, image))
        fitting, _ = least(
            lambda network=network: FeatureExtractor(network, preprocess=None).fit(torch.rand(4, 3, 224, 224))
        )
        row = f"{name:34}{once * 1e3:9.1f}{listing / once:8.1f}{selecting / once:8.1f}{fitting / once:8.1f}"
        print(row, *layers, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(sys.argv[1:])
