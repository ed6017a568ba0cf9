"""Keras files opened: the architecture as JSON, the version that saved it, and the weights.

============================  ==========================  ===================================
file                          architecture                weights
============================  ==========================  ===================================
``.keras`` (v3, a zip)        ``config.json``             ``model.weights.h5``, numbered
``.h5``, ``.hdf5`` (legacy)   attribute ``model_config``  ``model_weights/<layer>``, by name
weights only, legacy          none                        ``<layer>``, by name
weights only, ``.weights.h5`` none                        numbered, as in ``.keras``
============================  ==========================  ===================================
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_lstm.arrays import F32
from edge_lstm.errors import UnreadableModel, UnsupportedModel
from edge_lstm_converters.float_weights import as_float32
from edge_lstm_converters.hdf5_file import Hdf5File

LARGEST_JSON = 2**26
LARGEST_WEIGHTS = 2**31
# Keras 2.12 wrote the second word.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")

RECURRENT_VARIABLES = ("kernel", "recurrent_kernel", "bias")
# What the numbers under ``vars`` mean, by class; a layer leaves out those its config denies.
VARIABLES: dict[str, tuple[str, ...]] = {
    "LSTM": RECURRENT_VARIABLES,
    "GRU": RECURRENT_VARIABLES,
    "SimpleRNN": RECURRENT_VARIABLES,
    "CuDNNLSTM": RECURRENT_VARIABLES,
    "CuDNNGRU": RECURRENT_VARIABLES,
    "Dense": ("kernel", "bias"),
    "Conv1D": ("kernel", "bias"),
    "Embedding": ("embeddings",),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "Normalization": ("mean", "variance", "count"),
}
UNUSED = ("count",)  # of samples that were adapted to; a whole number
SWITCHES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
Half = Literal["", "forward", "backward"]
IN_A_CELL = ("LSTM", "GRU", "SimpleRNN")


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """One layer of a Keras model and where its weights are.

    Args:
        class_name: as ``LSTM``.
        name: as the user sees it in ``model.summary()``.
        config: its arguments, as Keras saved them.
        where: file and layer, for messages.
        group: of its weights, in files that number them.
        owner: the layer of the outermost model that holds its weights, in files that name them.
        mark: a part of its weights' names, where it is in a model inside that model.
        half: of a Bidirectional.
        output: which of its outputs is used; above 0: a state.
        branches: forward and backward layer, of a Bidirectional.
    """

    class_name: str
    name: str
    config: Mapping[str, Any]
    where: str
    group: str = ""
    owner: str = ""
    mark: str = ""
    half: Half = ""
    output: int = 0
    branches: tuple[KerasLayer, ...] = ()

    def get(self, key: str, default: Any = None) -> Any:
        """Return one of its arguments."""
        value = self.config.get(key, default)
        return default if value is None else value

    def refuse(self, found: str, accepted: str) -> UnsupportedModel:
        """Return the error that names the layer, what was found, and what to do."""
        return UnsupportedModel(f"{self.where}: {found}; {accepted}")


@dataclass(frozen=True, eq=False)
class KerasFile:
    """An open Keras file.

    Args:
        path: its path.
        weights: its HDF5 part.
        config: class_name and config of the model; None: the file holds weights only.
        version: of the Keras that saved it; None: not said.
        root: the group that holds the layers.
        numbered: whether weights are numbered in class-named groups; False: both have names.
    """

    path: Path
    weights: Hdf5File
    config: Mapping[str, Any] | None
    version: tuple[int, int] | None
    root: str
    numbered: bool

    def variables(self, layer: KerasLayer) -> dict[str, F32]:
        """Return a layer's weights by the names that Keras gives them.

        Raises:
            UnreadableModel: some are missing, or damaged.
            UnsupportedModel: they are not floats.
        """
        wanted = [
            name
            for name in VARIABLES[layer.class_name]
            if name not in SWITCHES or layer.get(SWITCHES[name], True)
        ]
        paths = self._paths(layer)
        if self.numbered and sorted(paths) == [str(n) for n in range(len(wanted))]:
            paths = {name: paths[str(number)] for number, name in enumerate(wanted)}
        if sorted(paths) != sorted(wanted):
            found = f"{len(paths)} weights" if self.numbered else _listed(list(paths))
            raise UnreadableModel(
                f"{layer.where}: {self.path.name} has {found} for it; want {', '.join(wanted)};"
                " save the model again"
            )
        return {
            name: as_float32(f"{layer.where}, {name}", self.weights.read(paths[name]))
            for name in wanted
            if name not in UNUSED
        }

    def present(self, layer: KerasLayer) -> list[str] | None:
        """Return which variables a layer has, whatever it says of itself; None: another layer's.

        Where they are numbered, all that a layer can do without are there, or none of them.
        """
        every = VARIABLES[layer.class_name]
        least = [name for name in every if name not in SWITCHES]
        paths = self._paths(layer)
        if not self.numbered:
            fits = set(least) <= set(paths) <= set(every)
            return [name for name in every if name in paths] if fits else None
        return next((list(n) for n in (every, least) if len(n) == len(paths)), None)

    def _paths(self, layer: KerasLayer) -> dict[str, str]:
        """Return the paths of a layer's weights, by number or by name."""
        return self._numbered(layer) if self.numbered else self._named(layer)

    def _numbered(self, layer: KerasLayer) -> dict[str, str]:
        group = self._container(f"{self.root}/{layer.group}")
        said = self.weights.text(f"{group}/vars", "name")
        if said is not None and said != layer.name and not layer.half and self.config is not None:
            raise UnreadableModel(
                f"{layer.where}: its weights belong to layer {said!r}; save the model again"
            )
        folder = f"{group}/cell/vars" if layer.class_name in IN_A_CELL else f"{group}/vars"
        return {number: f"{folder}/{number}" for number in self.weights.names(folder)}

    def _container(self, group: str) -> str:
        """Return ``group`` with the word that the file has for what holds a model's layers."""
        if self.weights.has(group):
            return group
        return re.sub(rf"(^|/){CONTAINERS[0]}(?=/)", rf"\1{CONTAINERS[1]}", group)

    def _named(self, layer: KerasLayer) -> dict[str, str]:
        group = f"{self.root}/{layer.owner}".strip("/")
        names = self.weights.texts(group, "weight_names")
        if names is None:
            raise UnreadableModel(
                f"{layer.where}: {self.path.name} has no weights for it under {group!r};"
                " save the model again"
            )
        # From the layer's own name on: a model can be called like a part of another's name.
        split = [(name, _after(name, layer.owner)) for name in names]
        if layer.mark:
            split = [(name, rest) for name, rest in split if layer.mark in name.split("/")]
        if layer.half:
            split = _half(split, layer.half)
        paths: dict[str, str] = {}
        for name, rest in split:
            variable = re.sub(r"(_\d+)?(:\d+)?$", "", rest.split("/")[-1])
            if variable in paths:
                raise UnreadableModel(
                    f"{layer.where}: {self.path.name} has two weights {variable!r} for it under"
                    f" {group!r}; give each layer a name of its own and save the model again"
                )
            paths[variable] = f"{group}/{name}"
        return paths


def open_keras(path: Path) -> KerasFile:
    """Open a Keras file of any kind; close ``.weights`` after use.

    Raises:
        UnreadableModel: the file is damaged, or not a Keras file.
        MissingTool: h5py is not installed.
    """
    if path.suffix.lower() == ".keras":
        return _open_archive(path)
    weights = Hdf5File(str(path), path)
    try:
        text = weights.text("", "model_config")
        config = None if text is None else _json(path, "model_config", text)
        legacy = "model_weights" if weights.has("model_weights") else ""
        version = weights.text("", "keras_version") or weights.text(legacy, "keras_version")
        container = next((c for c in CONTAINERS if weights.has(c)), None)
        if weights.texts(legacy, "layer_names") is not None:
            return KerasFile(path, weights, config, _version(version), legacy, numbered=False)
        if container is None:
            raise UnreadableModel(
                f"{path}: an HDF5 file without Keras layers (no attribute layer_names, no group"
                " 'layers'); save with model.save('model.keras')"
            )
        return KerasFile(path, weights, config, _version(version), container, numbered=True)
    except BaseException:
        weights.close()
        raise


def _open_archive(path: Path) -> KerasFile:
    members = _unzip(path)
    metadata = _json(path, "metadata.json", members["metadata.json"].decode("utf-8", "replace"))
    config = _json(path, "config.json", members["config.json"].decode("utf-8", "replace"))
    weights = Hdf5File(f"{path}: model.weights.h5", members["model.weights.h5"])
    container = next((c for c in CONTAINERS if weights.has(c)), CONTAINERS[0])
    version = metadata.get("keras_version")
    return KerasFile(
        path,
        weights,
        config,
        _version(version if isinstance(version, str) else None),
        container,
        numbered=True,
    )


def _unzip(path: Path) -> dict[str, bytes]:
    limits = {
        "metadata.json": LARGEST_JSON,
        "config.json": LARGEST_JSON,
        "model.weights.h5": LARGEST_WEIGHTS,
    }
    members: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name, limit in limits.items():
                if names.count(name) != 1:
                    raise UnreadableModel(
                        f"{path}: has {names.count(name)} members {name!r}, of"
                        f" {_listed(names) if names else 'none'}; want a file of"
                        " model.save('model.keras')"
                    )
                # Keras does not compress; whoever did later hardly got trained weights to a
                # twentieth.
                most = min(limit, 20 * path.stat().st_size)
                if archive.getinfo(name).file_size > most:
                    raise UnreadableModel(
                        f"{path}: member {name!r} claims {archive.getinfo(name).file_size:,}"
                        f" bytes; want at most {most:,}"
                    )
                members[name] = archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UnreadableModel(
            f"{path}: not a whole .keras file (a zip): {' '.join(str(error).split())}"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UnreadableModel(f"{path}: cannot be read: {reason}") from error
    return members


def _json(path: Path, what: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableModel(f"{path}: {what} is not JSON; save the model again") from error
    if not isinstance(value, dict):
        raise UnreadableModel(f"{path}: {what} is not a JSON object; save the model again")
    return value


def _version(text: str | None) -> tuple[int, int] | None:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", text or "")
    return None if found is None else (int(found[1]), int(found[2]))


def _after(name: str, owner: str) -> str:
    """Return what stands behind the owner's part of a weight's name."""
    parts = name.split("/")
    return "/".join(parts[parts.index(owner) + 1 :]) if owner in parts[:-1] else name


def _half(split: list[tuple[str, str]], half: str) -> list[tuple[str, str]]:
    """Return the weights of one direction: by their names, else by their order."""
    marked = {
        word: [
            entry for entry in split if any(p.startswith(f"{word}_") for p in entry[1].split("/"))
        ]
        for word in ("forward", "backward")
    }
    if all(marked.values()):
        return marked[half]
    middle = len(split) // 2
    return split[:middle] if half == "forward" else split[middle:]


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8]) or "nothing"
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
