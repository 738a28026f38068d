"""The whole network with forward hooks that put other values to a layer's map: what fast paths are compared with."""

import torch


def run_with(network, images, maps):
    """Return the outputs for `images` where each layer returns the map (n, C, H, W) in `maps`."""
    handles = [
        network.get_submodule(layer).register_forward_hook(lambda module, inputs, result, values=values: values)
        for layer, values in maps.items()
    ]
    try:
        with torch.no_grad():
            return network(images)
    finally:
        for handle in handles:
            handle.remove()


def maps_of(network, images, layer):
    """Return what a layer returns for `images`."""
    found = []
    handle = network.get_submodule(layer).register_forward_hook(lambda module, inputs, result: found.append(result))
    try:
        with torch.no_grad():
            network(images)
    finally:
        handle.remove()
    return found[0].clone()
