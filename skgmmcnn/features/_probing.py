"""Networks that torch.fx cannot trace: their submodules are watched, and receptive fields found by probing with NaN."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._forms import Form, refuse
from ._network import Portable
from ._receptive_field import Reach, ReceptiveField, nothing
from ._rerun import Edits, Passed, Reached, edit
from ._running import move, prepare
from ._watching import See, Watched

_PROBES_AT_ONCE = 16


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
    gates : sequence of str
        Submodules whose outputs only rescale what is there, as the gates of squeeze-and-excitation: they are held while
        the network is probed.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        forms: Mapping[str, Form] | None = None,
        gates: Sequence[str] = (),
    ) -> None:
        self.network, self._forms, self._gates = network, forms or {}, tuple(gates)
        self._watched = Watched(network)
        known = dict(network.named_modules())
        for gate in gates:
            if gate not in known:
                near = difflib.get_close_matches(gate, known, n=5, cutoff=0.4)
                raise ValueError(
                    f"gates names {gate!r}, which is no submodule. Near names: {', '.join(near) or 'none'}."
                )
        self.layers = tuple(layers)

    def __reduce__(self) -> tuple:
        return HookedNetwork, (Portable(self.network), self.layers, dict(self._forms), self._gates)

    def select(self, layers: Sequence[str], image: Tensor) -> tuple[HookedNetwork, dict]:
        """Return the network with `layers`, in the order in which they run, captured, and their receptive fields."""
        calls = self.calls(image)
        for name in layers:
            if name not in calls:
                times = sum(call.rpartition("_")[0] == name for call in calls)
                if times > 1:
                    raise ValueError(several_calls(name, times))
                near = difflib.get_close_matches(name, calls, n=5, cutoff=0.4) or list(calls)[:10]
                raise ValueError(f"The network has no layer {name!r}. Near names: {', '.join(map(repr, near))}.")
        forms = _forms(calls)
        for name in layers:
            if name not in forms:
                raise refuse(name, calls[name])
        selected = HookedNetwork(self.network, [name for name in calls if name in set(layers)], forms, self._gates)
        return selected, selected.receptive_fields(image)

    def on(self, network: nn.Module) -> HookedNetwork:
        """Return the same for an equal `network`."""
        return HookedNetwork(network, self.layers, self._forms, self._gates)

    def survey(self, image: Tensor) -> dict[str, tuple[tuple[int, int, int], ReceptiveField | None]]:
        """Return for every call of a submodule that can be modelled the shape (C, H, W) of its map, and its field in
        the image."""
        calls = self.calls(image)
        forms = _forms(calls)
        everywhere = HookedNetwork(self.network, list(forms), forms, self._gates)
        fields = everywhere._fields_in("input", everywhere.run(image)[1], image)
        return {name: (form.shape(calls[name]), fields.get((name, "input"))) for name, form in forms.items()}

    @property
    def first_layer(self) -> nn.Module | None:
        """The first convolution or fully connected layer, in the order of definition; None without any."""
        kinds = (nn.modules.conv._ConvNd, nn.Linear)
        return next((module for module in self.network.modules() if isinstance(module, kinds)), None)

    def to(self, device: torch.device) -> HookedNetwork:
        """Move the network to `device`, if it is not there; return self."""
        move(self.network, device)
        return self

    def prepare(self, batch: Tensor) -> Tensor:
        """Return `batch` as the network takes it."""
        return prepare(self.network, batch)

    def calls(self, batch: Tensor) -> dict[str, Tensor]:
        """Return what every call of a submodule returns for `batch`, where that is one tensor, in order."""
        returned: list[tuple[str, Tensor]] = []
        with torch.no_grad(), self._watched.by(lambda name, result: returned.append((name, result.clone()))) as network:
            network(self.prepare(batch))
        total: dict[str, int] = {}
        for name, _ in returned:
            total[name] = total.get(name, 0) + 1
        seen: dict[str, int] = {}
        named = {}
        for name, result in returned:
            place = seen[name] = seen.get(name, -1) + 1
            named[name if total[name] == 1 else f"{name}_{place}"] = result
        return named

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

        def again(edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
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

        with torch.no_grad():
            outputs, maps = again({})
        return Passed(outputs, maps, again)

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

    def receptive_fields(self, batch: Tensor) -> dict[tuple[str, str], ReceptiveField]:
        """Return the field of every layer in each layer below that it depends on, and in the ``"input"``.

        NaN is put into one row, or one column, of a layer's map; what becomes NaN above depends on it.  A gate cannot
        be told from other uses: fields that it makes "everything" are warned of, unless `gates` names it.
        """
        clean = self.run(batch)[1]
        fields: dict[tuple[str, str], ReceptiveField] = {}
        for lower in ("input", *self.layers):
            fields |= self._fields_in(lower, clean, batch)
        self._warn_of_everything(fields, clean)
        return fields

    def _fields_in(self, lower: str, clean: dict[str, Tensor], batch: Tensor) -> dict[tuple[str, str], ReceptiveField]:
        """Return the fields in `lower` of all layers above it."""
        held = self._held(batch)
        size = _input_form(batch).shape(batch)[1:] if lower == "input" else _size(clean[lower])
        above = self.layers[0 if lower == "input" else self.layers.index(lower) + 1 :]
        reaches = {upper: nothing(_size(clean[upper]), size) for upper in above}
        for axis in (0, 1) if above else ():
            for positions in np.array_split(np.arange(size[axis]), -(-size[axis] // _PROBES_AT_ONCE)):
                spoiled = self._spoiled(batch, lower, axis, positions, held)
                for upper in above:
                    _mark(reaches[upper], axis, positions, self._forms[upper].as_map(spoiled[upper]))
        return {
            (upper, lower): ReceptiveField.from_reach(reach)
            for upper, reach in reaches.items()
            if reach.rows.any() and reach.columns.any()
        }

    def _held(self, batch: Tensor) -> dict[str, list[Tensor]]:
        held: dict[str, list[Tensor]] = {gate: [] for gate in self._gates}

        def keep(name: str, result: Tensor) -> None:
            if name in held:
                held[name].append(result.clone())

        with torch.no_grad(), self._watched.by(keep) as network:
            network(self.prepare(batch))
        return held

    def _spoiled(
        self, batch: Tensor, lower: str, axis: int, positions: np.ndarray, held: dict[str, list[Tensor]]
    ) -> dict[str, Tensor]:
        """Return the layers for one copy of the image per position, with NaN at that position of `lower`."""
        copies = self.prepare(batch).expand(len(positions), *batch.shape[1:]).clone()
        form = _input_form(batch) if lower == "input" else self._forms[lower]
        seen: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def spoil(value: Tensor) -> Tensor:
            value = value.clone()
            located = form.as_map(value)
            for copy, position in enumerate(positions.tolist()):
                located[copy].select(1 + axis, position).fill_(torch.nan)
            return value

        def see(name: str, result: Tensor) -> Tensor | None:
            place = counts[name] = counts.get(name, -1) + 1
            known = held[name][place].expand_as(result).clone() if name in held else None
            mine = self._layer(name, place)
            if mine is not None:
                seen[mine] = (result if known is None else known).clone()
            return spoil(result) if mine is not None and mine == lower else known

        with torch.no_grad(), self._watched.by(see) as network:
            network(spoil(copies) if lower == "input" else copies)
        return seen

    def _warn_of_everything(self, fields: dict, clean: dict[str, Tensor]) -> None:
        for (upper, lower), field in fields.items():
            height, width = _size(clean[upper])
            all_rows = (field.rows[0] == 0).all() and (field.rows[1] == field.shape[0]).all()
            all_columns = (field.columns[0] == 0).all() and (field.columns[1] == field.shape[1]).all()
            attends = self._forms[upper].grid is not None  # tokens see all of each other, which is no surprise
            if not attends and height * width > 1 and all_rows and all_columns and min(field.shape) > 1:
                warnings.warn(
                    f"Every location of layer {upper!r} depends on all of {lower!r}. If that is the work of gates, as "
                    "in squeeze-and-excitation, name these submodules in gates=[...].",
                    stacklevel=2,
                )
                return


def several_calls(name: str, times: int) -> str:
    """Return what to say of a layer that runs several times."""
    return (
        f"Layer {name!r} runs {times} times in one forward pass. Name one of these calls: {name + '_0'!r} is the "
        f"first, {name + '_1'!r} the second."
    )


def _forms(calls: Mapping[str, Tensor]) -> dict[str, Form]:
    """Return the forms of the calls that can be modelled, their tensors being those of one image."""
    sizes: dict[tuple[int, int], None] = {}
    forms = {}
    for name, tensor in calls.items():
        form = Form.of(tensor, (2, 3) if tensor.ndim == 4 else None, sizes)
        if form is not None:
            forms[name] = form
            size = form.shape(tensor)[1:]
            sizes.pop(size, None)
            sizes[size] = None
    return forms


def _input_form(batch: Tensor) -> Form:
    return Form(axes=(2, 3)) if batch.ndim == 4 else Form()


def _mark(reach: Reach, axis: int, positions: np.ndarray, spoiled: Tensor) -> None:
    """Note in `reach` where the maps `spoiled` (positions, C, H, W) are NaN."""
    bad = spoiled.isnan().numpy(force=True)
    reach[axis][:, positions] |= bad.any((1, 3 if axis == 0 else 2)).T


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]
