"""Networks that torch.fx cannot trace: their submodules are watched while they run."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._following import Follower
from ._forms import Form
from ._network import Portable
from ._receptive_field import ReceptiveField
from ._rerun import Edits, Passed, Reached, edit
from ._running import move, prepare
from ._watching import See, Watched


class HookedNetwork:
    """A network in evaluation mode whose submodules are watched while it runs; see :class:`TracedNetwork`.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    layers : sequence of str
        Names of submodules; ``name_0`` and ``name_1`` are the first and second call of one that runs twice.
    forms : dict of str to Form
        How each layer is read as a map; found by :meth:`select`.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = (), forms: Mapping[str, Form] | None = None) -> None:
        self.network, self.layers, self._forms = network, tuple(layers), forms or {}
        self._watched = Watched(network)

    def __reduce__(self) -> tuple:
        return HookedNetwork, (Portable(self.network), self.layers, dict(self._forms))

    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[HookedNetwork, dict]:
        """Return the network with `layers`, in the order in which they run, captured, and their receptive fields."""
        calls = self._calls(image)
        for name in layers:
            if name not in calls:
                times = sum(call.rpartition("_")[0] == name for call in calls)
                if times > 1:
                    raise ValueError(several_calls(name, times))
                if name in dict(self.network.named_modules()):
                    raise ValueError(
                        f"Layer {name!r} does not run, or returns a tuple, a dict or another thing than one tensor. "
                        "Name a layer inside it that returns the tensor you mean."
                    )
                near = difflib.get_close_matches(name, calls, n=5, cutoff=0.4) or list(calls)[:10]
                raise ValueError(f"The network has no layer {name!r}. Near names: {', '.join(map(repr, near))}.")
        selected = HookedNetwork(self.network, [name for name in calls if name in set(layers)])
        geometry = selected._looked_at(image, pairs=True, layouts=layouts or {}).of(layers)
        return HookedNetwork(self.network, selected.layers, geometry.forms), geometry.fields

    def on(self, network: nn.Module) -> HookedNetwork:
        """Return the same for an equal `network`."""
        return HookedNetwork(network, self.layers, self._forms)

    def survey(
        self, image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> dict[str, tuple[tuple[int, int, int], ReceptiveField | None]]:
        """Return for every call of a submodule that can be modelled the shape (C, H, W) of its map, and its field in
        the image."""
        everywhere = HookedNetwork(self.network, self._calls(image))
        geometry = everywhere._looked_at(image, pairs=False, layouts=layouts or {}).geometry
        return {name: (shape, geometry.fields.get((name, "input"))) for name, shape in geometry.shapes.items()}

    def _looked_at(self, image: Tensor, *, pairs: bool, layouts: Mapping[str, str]) -> Follower:
        image = self.prepare(image)
        follower = Follower(image, pairs=pairs, layouts=layouts, n_layers=len(self.layers))
        with torch.no_grad(), follower, self._watched.by(self._of_layers(follower.see)) as network:
            network(image)
        return follower

    @property
    def first_layer(self) -> nn.Module | None:
        """The first convolution or fully connected layer, in the order of definition; None without any."""
        return first_of(self.network.modules())

    def to(self, device: torch.device) -> HookedNetwork:
        """Move the network to `device`, if it is not there; return self."""
        move(self.network, device)
        return self

    def prepare(self, batch: Tensor) -> Tensor:
        """Return `batch` as the network takes it."""
        return prepare(self.network, batch)

    def _calls(self, batch: Tensor) -> list[str]:
        """Return the names of all calls of submodules that return a tensor, in order."""
        returned: list[str] = []
        with torch.no_grad(), self._watched.by(lambda name, result: returned.append(name)) as network:
            network(self.prepare(batch))
        total: Counter[str] = Counter(returned)
        seen: Counter[str] = Counter()
        calls = []
        for name in returned:
            calls.append(name if total[name] == 1 else f"{name}_{seen[name]}")
            seen[name] += 1
        return calls

    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Return what the network returns for `batch`, and the map (n, C, H, W) of each layer on the way."""
        captured: dict[str, Tensor] = {}

        def keep(name: str, result: Tensor) -> None:
            captured[name] = result.clone()

        with torch.no_grad(), self._watched.by(self._of_layers(keep)) as network:
            output = network(self.prepare(batch))
        return output, {name: self._forms[name].as_map(captured[name]) for name in self.layers}

    def start(self, batch: Tensor) -> Passed:
        """Run the network over `batch`, such that it can be run again with changed layers; all of it is."""
        with torch.no_grad():
            outputs, maps = self.run_edited(batch, {})
        return Passed(outputs, maps, partial(self.run_edited, batch))

    def run_edited(self, batch: Tensor, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
        """Run the network over `batch` with changed layers; return what it returned, and the maps of all layers."""
        maps: dict[str, Tensor] = {}

        def see(name: str, result: Tensor) -> Tensor:
            form = self._forms[name]
            value = edit(result, form, edits[name]) if name in edits else result
            maps[name] = form.as_map(value.clone())
            if name == until:
                raise Reached
            return value

        with self._watched.by(self._of_layers(see)) as network:
            try:
                return network(self.prepare(batch)), maps
            except Reached:
                return None, maps

    def _of_layers(self, see: See) -> See:
        """Let `see` get what the modelled layers return alone, by their own names."""
        counts: dict[str, int] = {}

        def one(name: str, result: Tensor) -> Tensor | None:
            place = counts[name] = counts.get(name, -1) + 1
            mine = self._layer(name, place)
            return None if mine is None else see(mine, result)

        return one

    def _layer(self, name: str, place: int) -> str | None:
        """Return the modelled layer that call number `place` of a submodule is, None for none."""
        return next((layer for layer in (name, f"{name}_{place}") if layer in self.layers), None)


def first_of(modules: Iterable[nn.Module]) -> nn.Module | None:
    """Return the first convolution or fully connected layer, None without any."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return next((module for module in modules if isinstance(module, kinds)), None)


def several_calls(name: str, times: int) -> str:
    """Return what to say of a layer that runs several times."""
    return (
        f"Layer {name!r} runs {times} times in one forward pass. Name one of these calls: {name + '_0'!r} is the "
        f"first, {name + '_1'!r} the second."
    )
