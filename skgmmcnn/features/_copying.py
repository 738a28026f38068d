"""A copy of a network that is its weights and its structure alone: no wrappers, no hooks, nothing parametrised."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HOOKS_OF_LOADING = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def private_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy on the CPU without the caller's hooks, which would report our passes to the caller.

    Hooks of torch's own, as those that compute normalised weights, are part of the network and stay.  What
    ``torch.compile`` and ``DataParallel`` have wrapped is unwrapped.
    """
    _refuse_what_cannot_be_watched(network)
    network = _unwrapped(network)
    memo = needed(network)
    try:
        for module in reversed(list(network.modules())):  # wrappers in wrappers first
            if _unwrapped(module) is not module:
                memo[id(module)] = copy.deepcopy(_unwrapped(module), memo)
        copied = copy.deepcopy(network, memo).cpu()
    except Exception as error:
        raise ValueError(
            f"{type(network).__name__} cannot be copied ({type(error).__name__}: {error}), and only a copy is run, so "
            "that yours stays as it is. Take from it what is neither weights nor layers, as caches, loggers and open "
            "files, or give a function that makes the network and weights=... ."
        ) from error
    return copied


def settle(network: nn.Module) -> nn.Module:
    """Make parametrised weights of a copy plain ones, and drop what only loading needs; return the network."""
    for module in list(network.modules()):
        for kind in _HOOKS_OF_LOADING:
            getattr(module, kind).clear()
        if parametrize.is_parametrized(module):
            _settle(module)
    return network


def _settle(module: nn.Module) -> None:
    # torch's remove_parametrizations would change the class, which is that of the caller's module, too.
    module.__class__ = parametrize.type_before_parametrizations(module)
    parametrised: Any = module._modules.pop("parametrizations")
    for name, weight in parametrised.items():
        weight.eval()  # or it goes on to estimate norms
        with torch.no_grad():
            value = weight()
        if weight._parameters:
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)


def plain(network: nn.Module) -> nn.Module:
    """Return `network`, or a private copy where it is wrapped or parametrised, as no pickle could hold it."""
    usual = all(
        _unwrapped(module) is module and not parametrize.is_parametrized(module) for module in network.modules()
    )
    return network if usual else settle(private_copy(network))


def needed(network: nn.Module) -> dict[int, Any]:
    """Return what a deep copy takes in the place of what it cannot or need not copy, by the identity of that."""
    found: dict[int, Any] = {}
    for module in network.modules():
        for kind in _HOOKS:
            hooks = getattr(module, kind)
            found[id(hooks)] = type(hooks)((key, hook) for key, hook in hooks.items() if _is_torchs(hook))
        for tensor in _computed(module):
            found[id(tensor)] = tensor.detach().clone()
    return found


def _computed(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that a module holds as the result of a computation; torch refuses to copy these."""
    for value in vars(module).values():
        yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not leaf.is_leaf)


def _is_torchs(hook: Any) -> bool:
    where = hook.__module__ if hasattr(hook, "__name__") else type(hook).__module__
    return (where or "").split(".")[0] == "torch"


def _unwrapped(network: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` or data parallelism has wrapped."""
    while True:
        if "_orig_mod" in network._modules:  # the class itself would take seconds to import
            network = network._orig_mod  # type: ignore[assignment]
        elif isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        else:
            return network


def _refuse_what_cannot_be_watched(network: nn.Module) -> None:
    for name, module in network.named_modules():
        where = f"Its submodule {name!r}" if name else "The network"
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{where} is TorchScript, whose layers cannot be watched or run one by one. Give the network of Python "
                "code that was scripted or traced, with weights=..., a file of the TorchScript's state_dict()."
            )
        if ".quantized" in type(module).__module__:
            raise ValueError(
                f"{where} is quantised ({type(module).__name__}): it computes with integers, and has no gradients. "
                "Give the network as it was before, in floating point."
            )
        if any(map(nn.parameter.is_lazy, module._parameters.values())):
            raise ValueError(
                f"{where} has weights of unknown shape ({type(module).__name__}); run it once on an image."
            )
