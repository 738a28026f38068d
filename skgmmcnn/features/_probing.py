"""Capture of layers in networks that torch.fx cannot trace."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._captured import CapturedNetwork, Fields, Survey
from ._following import Follower
from ._forms import Form
from ._rerun import Edits, ForwardPass, StopRun, edit
from ._watching import CopyPool, See


class HookedNetwork(CapturedNetwork):
    """A network whose submodules report what they return while it runs.

    ``name_0`` and ``name_1`` are the first and second call of a submodule that runs twice.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = (), forms: Mapping[str, Form] | None = None) -> None:
        self.network, self.layers, self._forms = network, tuple(layers), forms or {}
        self._copies = CopyPool(network)

    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[HookedNetwork, Fields]:
        calls = self._calls(image)
        for name in layers:
            if name not in calls:
                times = sum(call.rpartition("_")[0] == name for call in calls)
                if times > 1:
                    raise several_calls(name, times)
                if name in dict(self.network.named_modules()):
                    raise ValueError(
                        f"Layer {name!r} does not run, or does not return a single tensor. Name a layer inside it that "
                        "returns the tensor."
                    )
                raise unknown_layer(name, calls, calls)
        ordered = [name for name in calls if name in set(layers)]
        geometry = self._follow(ordered, image, layouts, pairs=True).of(layers)
        return HookedNetwork(self.network, ordered, geometry.forms), geometry.fields

    def on(self, network: nn.Module) -> HookedNetwork:
        return HookedNetwork(network, self.layers, self._forms)

    def survey(self, image: Tensor, layouts: Mapping[str, str] | None = None) -> Survey:
        return self._follow(self._calls(image), image, layouts, pairs=False).survey()

    def _pass(self, image: Tensor, layers: Sequence[str], follower: Follower) -> None:
        with self._copies.reporting_to(_of(layers, follower.see)) as network:
            network(image)

    @property
    def first_layer(self) -> nn.Module | None:
        return first_of(self.network.modules())  # in the order of definition

    def _calls(self, batch: Tensor) -> list[str]:
        """Return the names of all calls of submodules that return a tensor, in network order."""
        returned: list[str] = []
        with torch.no_grad(), self._copies.reporting_to(lambda name, result: returned.append(name)) as network:
            network(self.prepare(batch))
        total: Counter[str] = Counter(returned)
        seen: Counter[str] = Counter()
        calls = []
        for name in returned:
            calls.append(name if total[name] == 1 else f"{name}_{seen[name]}")
            seen[name] += 1
        return calls

    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        with torch.no_grad():
            output, maps = self.run_edited(batch, {})
        return output, {layer: maps[layer] for layer in self.layers}

    def start(self, batch: Tensor) -> ForwardPass:
        return ForwardPass(*self.run(batch), partial(self.run_edited, batch))

    def run_edited(self, batch: Tensor, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
        maps: dict[str, Tensor] = {}

        def see(name: str, result: Tensor) -> Tensor:
            form = self._forms[name]
            value = edit(result, form, edits[name]) if name in edits else result
            maps[name] = form.as_map(value.clone())
            if name == until:
                raise StopRun
            return value

        with self._copies.reporting_to(_of(self.layers, see)) as network:
            try:
                return network(self.prepare(batch)), maps
            except StopRun:
                return None, maps


def _of(layers: Sequence[str], see: See) -> See:
    """Return a callback that passes the tensors of `layers` to `see` by layer name."""
    counts: dict[str, int] = {}

    def one(name: str, result: Tensor) -> Tensor | None:
        place = counts[name] = counts.get(name, -1) + 1
        layer = next((layer for layer in (name, f"{name}_{place}") if layer in layers), None)
        return None if layer is None else see(layer, result)

    return one


def first_of(modules: Iterable[nn.Module]) -> nn.Module | None:
    """Return the first convolution or fully connected layer, None if there is none."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return next((module for module in modules if isinstance(module, kinds)), None)


def several_calls(name: str, times: int) -> ValueError:
    """Return the error for a layer that runs several times."""
    return ValueError(
        f"Layer {name!r} runs {times} times in one forward pass. Name one of these calls: {name + '_0'!r} is the "
        f"first, {name + '_1'!r} the second."
    )


def unknown_layer(name: str, known: Collection[str], usual: Collection[str]) -> ValueError:
    """Return the error for a layer that does not exist, with the most similar names, else the first of `usual`."""
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or list(usual)[:10]
    return ValueError(f"The network has no layer {name!r}. Near names: {', '.join(map(repr, near))}.")
