"""PyTorch files to ModelSpec, without PyTorch: state dicts, and programs of torch.export (.pt2)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_lstm.arrays import Array
from edge_lstm.errors import UnreadableModel, UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec
from edge_lstm_converters import layer_config
from edge_lstm_converters.safetensors_file import read_safetensors
from edge_lstm_converters.suggest_layers import suggest
from edge_lstm_converters.torch_checkpoint import read_checkpoint

MOST_LEVELS = 6  # a checkpoint has two or three


def read_torch(path: Path, layers: Path | None = None, name: str | None = None) -> ModelSpec:
    """Read a state dict (.pt, .pth, .safetensors) or an exported program (.pt2).

    Args:
        path: the file.
        layers: layer configuration; a state dict needs one, see ``layer_config``.
        name: of the model; None: the configuration's, else the file's.

    Raises:
        UnreadableModel: the file is damaged.
        UnsupportedModel: it holds what has no counterpart here; or ``layers`` is None and the
            message ends with the configuration that would complete the file.
        UsageError: ``layers`` is wrong, or given for a .pt2.
    """
    path = Path(path)
    if path.suffix.lower() == ".pt2":
        from edge_lstm_converters.read_torch_export import read_exported

        if layers is not None:
            raise UsageError(f"{path}: --layers is for state dicts; a .pt2 says its layers itself")
        return read_exported(path, name)
    config = None if layers is None else layer_config.read_config(Path(layers))
    weights = read_weights(path, None if config is None else config.state_dict)
    if config is None:
        raise UnsupportedModel(
            f"{path}: a state dict does not say the order of its layers, their activations or"
            " which steps are used; save what follows as a .toml file, check it, and pass it with"
            f" --layers\n\n{suggest(str(path), weights)}"
        )
    return layer_config.build(config, weights, path, name)


def read_weights(path: Path, key: str | None = None) -> Mapping[str, Array]:
    """Return the state dict in a file; ``key`` as in ``find_state_dict``.

    Raises:
        UnreadableModel: the file is damaged, or has no tensors.
    """
    weights: Mapping[str, Array]
    if path.suffix.lower() == ".safetensors":
        weights = read_safetensors(path)
    else:
        weights = find_state_dict(path, read_checkpoint(path), key)
    if not weights:
        raise UnreadableModel(f"{path}: has no tensors; want the state dict of a trained model")
    return weights


def read_module(
    module: Any, example_input: Any, name: str = "model", *, check: bool = True
) -> ModelSpec:
    """Read a ``torch.nn.Module`` through torch.export.

    Args:
        module: the model; put into eval mode while it is exported.
        example_input: a tensor, or a tuple of all positional arguments.
        name: of the model.
        check: run the module beside what was read.

    Raises:
        UnsupportedModel: torch.export cannot trace the module, or it computes what has no
            counterpart here.
        MismatchError: what was read computes something else.
        MissingTool: PyTorch is not installed.
    """
    from edge_lstm_converters.read_torch_export import read_module as read

    return read(module, example_input, name, check=check)


def find_state_dict(path: Path, checkpoint: object, key: str | None = None) -> dict[str, Array]:
    """Return the one state dict in what ``torch.save`` was given.

    Args:
        path: the file, for messages.
        checkpoint: nested dicts with arrays.
        key: dotted path of the state dict, as ``model_state``; None: it is the only one.

    Raises:
        UnsupportedModel: there is none, or more than one.
        UsageError: nothing is under ``key``.
    """
    # Each dict once, though a file can name one under many keys.
    found = dict(_state_dicts(checkpoint, (), set()))
    if key is not None:
        if key not in found:
            raise UsageError(
                f"{path}: state_dict = {key!r}; the checkpoint has {_quoted(list(found))}"
            )
        return found[key]
    # An optimizer's state and the like hold tensors too, but none by the name of a weight.
    models = [k for k, tensors in found.items() if any(_is_recurrent(n) for n in tensors)]
    candidates = models or list(found)
    if not candidates:
        top = list(checkpoint) if isinstance(checkpoint, dict) else []
        inside = f"holds {_quoted(top)}" if top else f"holds a {type(checkpoint).__name__}"
        raise UnsupportedModel(
            f"{path}: {inside} and no state dict; save torch.save(model.state_dict(), path)"
        )
    if len(candidates) > 1:
        raise UnsupportedModel(
            f"{path}: holds {len(candidates)} state dicts: {_quoted(candidates)}; name one in the"
            f" layer configuration: state_dict = {candidates[0]!r}"
        )
    return found[candidates[0]]


def _state_dicts(
    value: object, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yield every dict that holds tensors by name, with its dotted path."""
    if not isinstance(value, dict) or len(keys) > MOST_LEVELS or id(value) in seen:
        return
    seen.add(id(value))
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and hasattr(v, "dtype")}
    if tensors:
        yield ".".join(keys), tensors
    for key, inside in value.items():
        if isinstance(key, str):
            yield from _state_dicts(inside, (*keys, key), seen)


def _is_recurrent(name: str) -> bool:
    return re.search(r"(^|\.)weight_ih(_l\d+)?$", name) is not None


def _quoted(names: list[Any]) -> str:
    return ", ".join(repr(name) for name in names[:8]) or "none"
