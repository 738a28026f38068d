"""Copies of a network without wrappers, hooks and parametrisations."""

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
    """Return a deep copy on the CPU without the hooks of the caller.

    Hooks of torch, such as those that compute normalised weights, are kept.  Wrappers by ``torch.compile`` and
    ``DataParallel`` are removed.
    """
    _check_supported(network)
    network = _unwrapped(network)
    memo = copy_memo(network)
    try:
        for module in reversed(list(network.modules())):  # wrappers in wrappers first
            if _unwrapped(module) is not module:
                memo[id(module)] = copy.deepcopy(_unwrapped(module), memo)
        return copy.deepcopy(network, memo).cpu()
    except Exception as error:
        raise ValueError(
            f"{type(network).__name__} cannot be copied ({type(error).__name__}: {error}), and the extractor runs a "
            "copy. Remove attributes that are neither weights nor layers, such as caches, loggers and open files, or "
            "give a function that returns the network, and weights=... ."
        ) from error


def remove_parametrizations(network: nn.Module) -> nn.Module:
    """Replace parametrised weights of a copy by plain ones and remove hooks of loading; return the network."""
    for module in list(network.modules()):
        for kind in _HOOKS_OF_LOADING:
            getattr(module, kind).clear()
        if parametrize.is_parametrized(module):
            _remove_parametrizations(module)
    return network


def _remove_parametrizations(module: nn.Module) -> None:
    # remove_parametrizations of torch would also change the class of the caller's module.
    module.__class__ = parametrize.type_before_parametrizations(module)
    parametrizations: Any = module._modules.pop("parametrizations")
    for name, parametrization in parametrizations.items():
        parametrization.eval()  # stops the estimation of norms
        with torch.no_grad():
            value = parametrization()
        if parametrization._parameters:
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)


def plain(network: nn.Module) -> nn.Module:
    """Return `network`, or a private copy if it is wrapped or parametrised and cannot be pickled."""
    is_plain = all(
        _unwrapped(module) is module and not parametrize.is_parametrized(module) for module in network.modules()
    )
    return network if is_plain else remove_parametrizations(private_copy(network))


def copy_memo(network: nn.Module) -> dict[int, Any]:
    """Return the memo of a deep copy: replacements of hooks and computed tensors, by id."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for kind in _HOOKS:
            hooks = getattr(module, kind)
            memo[id(hooks)] = type(hooks)((key, hook) for key, hook in hooks.items() if _belongs_to_torch(hook))
        for tensor in _computed(module):
            memo[id(tensor)] = tensor.detach().clone()
    return memo


def _computed(module: nn.Module) -> Iterator[Tensor]:
    """Yield the attributes of a module that are results of a computation, which torch does not copy."""
    for value in vars(module).values():
        yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not leaf.is_leaf)


def _belongs_to_torch(hook: Any) -> bool:
    module = hook.__module__ if hasattr(hook, "__name__") else type(hook).__module__
    return (module or "").split(".")[0] == "torch"


def _unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside wrappers by ``torch.compile`` or data parallelism."""
    while True:
        if "_orig_mod" in network._modules:  # importing the class would take seconds
            network = network._orig_mod  # type: ignore[assignment]
        elif isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        else:
            return network


def _check_supported(network: nn.Module) -> None:
    for name, module in network.named_modules():
        where = f"Its submodule {name!r}" if name else "The network"
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{where} is TorchScript, whose layers cannot be captured. Give the network that was scripted or "
                "traced, with weights=..., a file of the state_dict() of the TorchScript."
            )
        if ".quantized" in type(module).__module__:
            raise ValueError(
                f"{where} is quantised ({type(module).__name__}): it computes with integers and has no gradients. "
                "Give the network before quantisation, in floating point."
            )
        if any(map(nn.parameter.is_lazy, module._parameters.values())):
            raise ValueError(
                f"{where} has weights of unknown shape ({type(module).__name__}); run it once on an image first."
            )
