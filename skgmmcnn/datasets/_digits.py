"""A small convolutional network for the handwritten digits of scikit-learn."""

from __future__ import annotations

from importlib.resources import files

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch
from torch import nn

WEIGHTS = "digits_network.safetensors"
_N_EPOCHS = 40


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
    The network was trained on `images`, and its accuracy on `test_images` is 98 %.  ``python -m skgmmcnn.datasets``
    trains it again.

    Examples
    --------
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> digits.images.shape, digits.test_images.shape
    ((1347, 8, 8), (450, 8, 8))
    """
    with torch.device("meta"):  # no random weights, which would advance the global generator
        network = DigitsNetwork()
    from safetensors.torch import load

    network.load_state_dict(load(files(__package__).joinpath(WEIGHTS).read_bytes()), assign=True)
    return Bunch(network=network.eval(), **digit_images())


def digit_images() -> Bunch:
    """Return images, labels and class names as in :func:`load_digits_network`."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8)
    parts = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    names = ["images", "test_images", "labels", "test_labels"]
    return Bunch(**dict(zip(names, parts, strict=True)), class_names=[str(digit) for digit in range(10)])


def train(digits: Bunch, *, seed: int = 0, n_epochs: int = _N_EPOCHS) -> DigitsNetwork:
    """Return a network trained on `digits`, in evaluation mode; weights depend on the machine up to rounding."""
    images, labels = torch.from_numpy(digits.images)[:, None], torch.from_numpy(digits.labels)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        network = DigitsNetwork()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        n_batches = -(-len(images) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=n_epochs * n_batches)
        for _ in range(n_epochs):
            for rows in torch.randperm(len(images)).split(64):
                loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def accuracy(network: nn.Module, digits: Bunch) -> float:
    """Return the accuracy on the test images."""
    with torch.no_grad():
        decided = network(torch.from_numpy(digits.test_images)[:, None]).argmax(1).numpy()
    return float((decided == digits.test_labels).mean())
