"""A small trained network and its images, made here in seconds: for examples, tests and first steps."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch
from torch import nn

__all__ = ["DigitsNetwork", "load_digits_network"]


class DigitsNetwork(nn.Module):
    """Three convolutions for 8 x 8 grey digits; `conv1` and `conv2` see 8 x 8 locations, `conv3` sees 4 x 4.

    Examples
    --------
    >>> import torch
    >>> from skgmmcnn.datasets import DigitsNetwork
    >>> DigitsNetwork()(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

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


def load_digits_network(*, random_state: int = 0) -> Bunch:
    """Train a small convolutional network on the handwritten digits that scikit-learn ships.

    Takes some seconds; nothing is downloaded.

    Parameters
    ----------
    random_state : int, default=0
        Seeds the split, the weights and the order of training.  Around 98 % of the test images are read rightly.

    Returns
    -------
    digits : Bunch
        With `network` (:class:`DigitsNetwork`, in evaluation mode), `images` (1347, 8, 8) and `test_images`
        (450, 8, 8) as float32 in [0, 1], `labels` and `test_labels` (digits as integers) and `class_names`.

    Examples
    --------
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> digits.images.shape, digits.test_images.shape
    ((1347, 8, 8), (450, 8, 8))
    """
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=random_state
    )
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(random_state)
        network = _train(DigitsNetwork(), torch.from_numpy(train)[:, None], torch.from_numpy(train_labels))
    return Bunch(
        network=network,
        images=train,
        labels=train_labels,
        test_images=test,
        test_labels=test_labels,
        class_names=[str(digit) for digit in range(10)],
    )


def _train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int = 40) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    n_batches = -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * n_batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()
