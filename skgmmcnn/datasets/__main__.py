"""Train the network of :func:`load_digits_network` and write the weights to a file."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from ._digits import WEIGHTS, accuracy, digit_images, train


def main(arguments: list[str] | None = None) -> None:
    """Train, report the accuracy on the test images, and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m skgmmcnn.datasets", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path(WEIGHTS), help="output file (%(default)s)")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the products are too small to be divided among threads
    images = digit_images()
    network = train(images)
    save_file(network.state_dict(), parsed.file)
    print(f"{accuracy(network, images):.1%} test accuracy; wrote {parsed.file}")


if __name__ == "__main__":
    main()
