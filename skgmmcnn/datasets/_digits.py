"""A small convolutional network for the handwritten digits of scikit-learn."""

from __future__ import annotations

from importlib.resources import files

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch
from torch import nn

_WEIGHTS = "digits_network.safetensors"


class DigitsNetwork(nn.Module):
    """Three convolutions for 8 x 8 grey digits; `conv1` and `conv2` have 8 x 8 locations, `conv3` has 4 x 4.

    Examples
    --------
    >>> import torch
    >>> from skgmmcnn.datasets import DigitsNetwork
    >>> DigitsNetwork()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    __module__ = __package__  # the importable name, for errors and files

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Score images.

        Parameters
        ----------
        x : Tensor of shape (n, 1, 8, 8)
            Images with values in [0, 1].

        Returns
        -------
        scores : Tensor of shape (n, 10)
            One score per digit.
        """
        x = self.conv3(self.pool(self.conv2(self.conv1(x))))
        return self.head(x.mean((2, 3)))


def load_digits_network() -> Bunch:
    """Load a small convolutional network for the handwritten digits of scikit-learn.

    Weights and images are part of the packages; nothing is downloaded or trained.

    Returns
    -------
    digits : Bunch
        With `network` (:class:`DigitsNetwork`, in evaluation mode), `images` (1347, 8, 8) and `test_images`
        (450, 8, 8) as float32 in [0, 1], `labels` and `test_labels` (digits as integers) and `class_names`.

    Notes
    -----
    The network was trained on `images`, by ``benchmarks/train_digits.py``, and its accuracy on `test_images` is 98 %.

    Examples
    --------
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> digits.images.shape, digits.test_images.shape
    ((1347, 8, 8), (450, 8, 8))
    """
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8)
    parts = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    names = ["images", "test_images", "labels", "test_labels"]
    class_names = [str(digit) for digit in range(10)]
    return Bunch(network=_trained(), **dict(zip(names, parts, strict=True)), class_names=class_names)


def _trained() -> DigitsNetwork:
    """Return the network with its weights, in evaluation mode."""
    from safetensors.torch import load

    with torch.device("meta"):  # no random weights, which would advance the global generator
        network = DigitsNetwork()
    network.load_state_dict(load(files(__package__).joinpath(_WEIGHTS).read_bytes()), assign=True)
    return network.eval()
