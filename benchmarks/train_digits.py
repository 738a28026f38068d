"""Train the network of `load_digits_network` and write the weights to a file."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from skgmmcnn.datasets import DigitsNetwork, load_digits_network


def train(digits, seed=0, n_epochs=40):
    """Return a network trained on `digits`, in evaluation mode; weights depend on the machine up to rounding."""
    images, labels = torch.from_numpy(digits.images)[:, None], torch.from_numpy(digits.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fitted(DigitsNetwork(), images, labels, n_epochs)


def _fitted(network, images, labels, n_epochs):
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


def accuracy(network, digits):
    """Return the accuracy on the test images."""
    with torch.no_grad():
        decided = network(torch.from_numpy(digits.test_images)[:, None]).argmax(1).numpy()
    return float((decided == digits.test_labels).mean())


def main(arguments=None):
    """Train, write the weights, and report the accuracy on the test images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("digits_network.safetensors"), help="%(default)s")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the products are too small to be divided among threads
    digits = load_digits_network()
    network = train(digits)
    save_file(network.state_dict(), parsed.file)
    print(f"{accuracy(network, digits):.1%} test accuracy; wrote {parsed.file}")


if __name__ == "__main__":
    main()
