"""A Keras architecture (JSON) as a chain of layers; branches that meet again become a Join."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm_converters.keras_archive import IN_A_CELL, Half, KerasLayer

MODELS = ("Sequential", "Functional", "Model")
CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
# How a merging layer joins, as a Bidirectional's merge_mode says it.
JOINS = {"Concatenate": "concat", "Add": "sum", "Multiply": "mul", "Average": "ave"}
LAST_STEP = "LastStep"
"""Stands for a class: of a sequence, its last step."""
MOST_LAYERS = 10_000
MOST_DEPTH = 20


@dataclass(frozen=True, eq=False)
class Join:
    """Branches from one value, joined again.

    Args:
        layer: the merging layer.
        merge: concat, sum, mul or ave.
        branches: chains that start at the same value; one may be empty.
    """

    layer: KerasLayer
    merge: str
    branches: tuple[tuple[KerasLayer | Join, ...], ...]


Step = KerasLayer | Join


@dataclass(frozen=True, eq=False)
class Architecture:
    """A model's input shape, without the batch, and its layers in order.

    Args:
        shape: of the input; None: the file does not say it.
        steps: its layers.
    """

    shape: tuple[int | None, ...] | None
    steps: tuple[Step, ...]


def read_architecture(path: Path, model: Mapping[str, Any]) -> Architecture:
    """Return the layers of a model's configuration.

    Args:
        path: its file, for messages.
        model: ``class_name`` and ``config``, as Keras writes them.

    Raises:
        UnreadableModel: the configuration is damaged.
        UnsupportedModel: the model has several inputs or outputs, or is a class of its own.
    """
    try:
        return _Reader(path).model(model, "", "", 0)
    except ModelError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnreadableModel(
            f"{path}: the model's configuration is damaged ({type(error).__name__}: {error});"
            " save the model again"
        ) from error
    except RecursionError as error:
        raise UnsupportedModel(
            f"{path}: its layers are nested too deep; want at most {MOST_LAYERS} layers"
        ) from error


def snake_case(class_name: str) -> str:
    """Return the name that Keras makes of a class: its groups in a weights file."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def layers_of(steps: tuple[Step, ...]) -> Iterator[KerasLayer]:
    """Yield every layer of a chain, those in branches too."""
    for step in steps:
        if isinstance(step, Join):
            for branch in step.branches:
                yield from layers_of(branch)
        else:
            yield step


@dataclass(frozen=True)
class _Tensor:
    layer: str
    output: int


class _Reader:
    """Reads models inside models; ``prefix`` is the group of the one that is being read."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def model(self, model: Mapping[str, Any], prefix: str, owner: str, depth: int) -> Architecture:
        class_name, config = _word(model, "class_name"), model["config"]
        self._check_class(str(self.path), model, class_name)
        if class_name not in MODELS:
            raise UnsupportedModel(
                f"{self.path}: the model is a class of its own, {class_name!r}; want a Sequential"
                " or functional model: build the same layers so and load the weights into it"
            )
        if depth > MOST_DEPTH:
            raise UnsupportedModel(f"{self.path}: models stand inside models {depth} deep")
        # Keras before 2.2.3 wrote a Sequential's layers alone.
        entries = config if isinstance(config, list) else config["layers"]
        self.count += len(entries)
        if self.count > MOST_LAYERS:
            raise UnsupportedModel(f"{self.path}: {self.count} layers; want at most {MOST_LAYERS}")
        groups: dict[str, str] = {}
        used: dict[str, int] = {}
        for entry in entries:
            word = snake_case(_word(entry, "class_name"))
            number = used.get(word, 0)
            used[word] = number + 1
            key = _name(entry)
            if key in groups:
                raise UnreadableModel(f"{self.path}: layer {key!r}: the name appears twice")
            groups[key] = f"{prefix}{word}_{number}" if number else f"{prefix}{word}"
        if class_name == "Sequential":
            return self._sequential(entries, groups, owner, depth)
        return self._functional(config, groups, owner, depth)

    def _check_class(self, where: str, entry: Mapping[str, Any], class_name: str) -> None:
        registered, module = entry.get("registered_name"), entry.get("module")
        own = isinstance(registered, str) and ">" in registered
        foreign = isinstance(module, str) and not re.match(
            r"(keras|tf_keras|tensorflow|tensorflow\.python\.keras)(\.|$)", module
        )
        if own or foreign:
            found = registered if own else f"{module}.{class_name}"
            raise UnsupportedModel(
                f"{where}: {found!r} is a layer of your own, and its code is never run; want"
                " layers of Keras: take it out, or build the same of them"
            )

    def _steps(
        self, entry: Mapping[str, Any], group: str, owner: str, depth: int
    ) -> tuple[Step, ...]:
        """Return a layer, or the layers of a model that stands in its place."""
        class_name, name = _word(entry, "class_name"), _name(entry)
        where = f"{self.path}: layer {name!r} ({class_name})"
        self._check_class(where, entry, class_name)
        if class_name in MODELS:
            inner = self.model(entry, f"{group}/layers/", owner or name, depth + 1)
            return inner.steps
        return (self.layer(entry, group, owner, depth),)

    def layer(self, entry: Mapping[str, Any], group: str, owner: str, depth: int) -> KerasLayer:
        class_name, name, config = _word(entry, "class_name"), _name(entry), entry["config"]
        where = f"{self.path}: layer {name!r} ({class_name})"
        self._check_class(where, entry, class_name)
        if depth > MOST_DEPTH:
            raise UnsupportedModel(f"{where}: layers stand inside layers {depth} deep")
        layer = KerasLayer(
            class_name, name, dict(config), where, group, owner or name, name if owner else ""
        )
        if class_name == "RNN":
            cell = config["cell"]
            self._check_class(where, cell, _word(cell, "class_name"))
            if cell["class_name"] not in CELLS:
                raise layer.refuse(
                    f"its cell is a {cell['class_name']}", f"want one of {', '.join(CELLS)}"
                )
            both = {**cell["config"], **{k: v for k, v in config.items() if k != "cell"}}
            return replace(layer, class_name=CELLS[cell["class_name"]], config=both)
        if class_name == "TimeDistributed":
            inner = self.layer(config["layer"], f"{group}/layer", layer.owner, depth + 1)
            inner = replace(inner, where=where, mark=layer.mark)
            return replace(layer, branches=(inner,))
        if class_name == "Bidirectional":
            return self._bidirectional(layer, depth)
        if class_name in ("GetItem", "SlicingOpLambda"):
            return replace(layer, class_name="GetItem", config={"index": _index(entry)})
        return layer

    def _bidirectional(self, layer: KerasLayer, depth: int) -> KerasLayer:
        forward = layer.config["layer"]
        backward = layer.config.get("backward_layer")
        if backward is None:
            turned = not forward["config"].get("go_backwards", False)
            backward = {**forward, "config": {**forward["config"], "go_backwards": turned}}
        branches = []
        halves: tuple[tuple[Half, Any], ...] = (("forward", forward), ("backward", backward))
        for half, entry in halves:
            branch = self.layer(entry, f"{layer.group}/{half}_layer", layer.owner, depth + 1)
            branches.append(replace(branch, where=layer.where, mark=layer.mark, half=half))
        return replace(layer, branches=tuple(branches))

    def _sequential(
        self, entries: list[Any], groups: dict[str, str], owner: str, depth: int
    ) -> Architecture:
        shape = None if not entries else _input_shape(entries[0])
        steps: list[Step] = []
        for entry in entries:
            if _word(entry, "class_name") == "InputLayer":
                continue
            if not steps and entry.get("class_name") in MODELS:
                inner = self.model(
                    entry, f"{groups[_name(entry)]}/layers/", owner or _name(entry), depth + 1
                )
                shape = shape or inner.shape
                steps += inner.steps
                continue
            steps += self._steps(entry, groups[_name(entry)], owner, depth)
        return Architecture(shape, tuple(steps))

    def _functional(
        self, config: Mapping[str, Any], groups: dict[str, str], owner: str, depth: int
    ) -> Architecture:
        graph = _Graph(self.path, config)
        memo: dict[_Tensor, list[tuple[_Tensor, Step]]] = {}

        def steps_of(name: str, output: int) -> tuple[Step, ...]:
            steps = self._steps(graph.entries[name], groups[name], owner, depth)
            if output and len(steps) == 1 and isinstance(steps[0], KerasLayer):
                return (replace(steps[0], output=output),)
            if output:
                raise UnsupportedModel(
                    f"{self.path}: layer {name!r}: its output {output} is used; want a model with"
                    " one output"
                )
            return steps

        def chain(tensor: _Tensor) -> list[tuple[_Tensor, Step]]:
            """Return the layers from the model's input to ``tensor``, each with its tensor."""
            if tensor == graph.input:
                return []
            if tensor not in memo:
                sources = graph.sources(tensor.layer)
                state = hidden_state(tensor) if tensor.output else None
                if state is not None:
                    memo[tensor] = state
                elif len(sources) == 1:
                    steps = steps_of(tensor.layer, tensor.output)
                    memo[tensor] = [*chain(sources[0]), *((tensor, step) for step in steps)]
                else:
                    memo[tensor] = joined(tensor, sources)
            return memo[tensor]

        def hidden_state(tensor: _Tensor) -> list[tuple[_Tensor, Step]] | None:
            """Return the layers that give what return_state=True adds; None: it is no h."""
            (layer, *more) = steps_of(tensor.layer, 0)
            if more or not isinstance(layer, KerasLayer):
                return None
            if layer.class_name in IN_A_CELL and tensor.output == 1:
                steps = _Tensor(tensor.layer, 0)
                if not layer.get("return_sequences", False):
                    return chain(steps)
                if steps in graph.read:
                    last = KerasLayer(LAST_STEP, f"{layer.name}_state", {}, layer.where)
                    return [*chain(steps), (tensor, last)]
                half = replace(layer, config={**layer.config, "return_sequences": False})
            elif layer.class_name == "Bidirectional":
                outputs = 2 if layer.config.get("merge_mode", "concat") is None else 1
                states = 2 if layer.branches[0].class_name == "LSTM" else 1
                side, cell = divmod(tensor.output - outputs, states)
                if cell or side not in (0, 1):
                    return None
                half = layer.branches[side]
                config = {**half.config, "return_sequences": False}
                half = replace(half, name=f"{layer.name}_{half.half}_state", config=config)
            else:
                return None
            return [*chain(graph.sources(tensor.layer)[0]), (tensor, half)]

        def joined(tensor: _Tensor, sources: list[_Tensor]) -> list[tuple[_Tensor, Step]]:
            (step,) = steps_of(tensor.layer, tensor.output)
            assert isinstance(step, KerasLayer)
            merge = _merge(step, len(sources))
            halves = _halves_of_one(sources, graph)
            if halves is not None and merge is not None:
                (layer,) = steps_of(halves, 0)
                assert isinstance(layer, KerasLayer)
                whole = replace(layer, config={**layer.config, "merge_mode": merge})
                return [*chain(graph.sources(halves)[0]), (tensor, whole)]
            chains = [chain(source) for source in sources]
            common = 0
            while all(len(c) > common for c in chains) and (
                len({c[common][0] for c in chains}) == 1
            ):
                common += 1
            branches = tuple(tuple(s for _, s in c[common:]) for c in chains)
            names = [layer.name for branch in branches for layer in layers_of(branch)]
            twice = next((n for n in names if names.count(n) > 1), None)
            if twice is not None:
                raise step.refuse(
                    f"its branches share layer {twice!r}", "want branches that split once"
                )
            return [*chains[0][:common], (tensor, Join(step, merge, branches))]

        steps = tuple(step for _, step in chain(graph.output))
        shape = _input_shape(graph.entries[graph.input.layer])
        return Architecture(shape, steps)


class _Graph:
    """The layers of a functional model by name, and which tensors each reads."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.entries = {_name(entry): entry for entry in config["layers"]}
        self.input = self._only(config["input_layers"], "input")
        self.output = self._only(config["output_layers"], "output")
        nodes = [n for e in self.entries.values() for n in e.get("inbound_nodes") or []]
        self.read = {self.output, *(tensor for node in nodes for tensor in _node(node)[0])}

    def _only(self, value: Any, what: str) -> _Tensor:
        found = _endpoints(value)
        if len(found) != 1:
            names = ", ".join(repr(t.layer) for t in found[:8])
            raise UnsupportedModel(
                f"{self.path}: the model has {len(found)} {what}s ({names}); want one: save"
                f" keras.Model(one input, one output) of the same layers"
            )
        if found[0].layer not in self.entries:
            raise UnreadableModel(f"{self.path}: {what} {found[0].layer!r} is no layer")
        return found[0]

    def sources(self, name: str) -> list[_Tensor]:
        """Return the tensors that a layer reads."""
        entry = self.entries[name]
        where = f"{self.path}: layer {name!r} ({_word(entry, 'class_name')})"
        nodes = entry.get("inbound_nodes") or []
        if len(nodes) != 1:
            raise UnsupportedModel(
                f"{where}: is called {len(nodes)} times; want once: give each call a layer of its"
                " own"
            )
        tensors, mask, training = _node(nodes[0])
        tensors += [tensor for tensor in mask if not self._is_padding_mask(tensor)]
        if training:
            raise UnsupportedModel(
                f"{where}: is called with training=True; want a model for inference: call it"
                " without"
            )
        for tensor in tensors:
            if tensor.layer not in self.entries or tensor.layer == name:
                raise UnreadableModel(f"{where}: reads {tensor.layer!r}, which is no layer")
        if not tensors:
            raise UnsupportedModel(f"{where}: reads no tensor; want a chain from the one input")
        if len(tensors) > 1 and entry["class_name"] not in JOINS:
            raise UnsupportedModel(
                f"{where}: reads {len(tensors)} tensors"
                f" ({', '.join(repr(t.layer) for t in tensors[:8])}); want one, without"
                f" initial_state or mask; only {', '.join(JOINS)} may read several"
            )
        return tensors

    def _is_padding_mask(self, tensor: _Tensor) -> bool:
        """Return whether a mask is the one that an Embedding or Masking of the model makes.

        Keras 3 writes it out, ``x != 0`` or ``any(x != value)``; we follow masks ourselves.
        """
        entry = self.entries.get(tensor.layer, {})
        if entry.get("class_name") == "Any":
            (tensor,), _, _ = _node(entry["inbound_nodes"][0])
            entry = self.entries.get(tensor.layer, {})
        if entry.get("class_name") != "NotEqual":
            return False
        (source,), _, _ = _node(entry["inbound_nodes"][0])
        value = entry["inbound_nodes"][0]["args"][1]
        for other in self.entries.values():
            config = other["config"]
            masks = other["class_name"] == "Embedding" and config.get("mask_zero") and value == 0
            masks = masks or (
                other["class_name"] == "Masking" and config.get("mask_value") == value
            )
            if masks and _node(other["inbound_nodes"][0])[0] == [source]:
                return True
        return False


def _node(node: Any) -> tuple[list[_Tensor], list[_Tensor], bool]:
    """Return the tensors of a call, its mask's, and whether it says training=True."""
    if isinstance(node, dict):  # Keras 3
        keywords = node.get("kwargs", {})
        rest = {key: value for key, value in keywords.items() if key != "mask"}
        found = [*_keras_tensors(node.get("args")), *_keras_tensors(rest)]
        return found, list(_keras_tensors(keywords.get("mask"))), keywords.get("training") is True
    if isinstance(node, list) and len(node) >= 3 and isinstance(node[0], str):
        node = [node]  # a single tensor, unpacked
    tensors, training = [], False
    for entry in node:
        tensors.append(_Tensor(entry[0], int(entry[2])))
        keywords = entry[3] if len(entry) > 3 else {}
        training = training or keywords.get("training") is True
        tensors += [
            _Tensor(value[0], int(value[2]))
            for key, values in keywords.items()
            if key in ("initial_state", "mask", "constants")
            for value in (values if isinstance(values, list) else [])
            if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)
        ]
    return tensors, [], training


def _keras_tensors(value: Any) -> Iterator[_Tensor]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            name, _, output = value["config"]["keras_history"]
            yield _Tensor(str(name), int(output))
            return
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _keras_tensors(item)


def _endpoints(value: Any) -> list[_Tensor]:
    """Return a model's inputs or outputs: [name, 0, 0], a list of such, or a dict of them."""
    if isinstance(value, dict):
        value = list(value.values())
    if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
        value = [value]
    return [_Tensor(str(v[0]), int(v[2])) for v in value]


def _index(entry: Mapping[str, Any]) -> list[int | tuple[int | None, ...] | str]:
    """Return what stands in brackets in ``x[:, -1]``: numbers, and slices as three of them."""
    node = entry["inbound_nodes"][0]
    if isinstance(node, dict):  # Keras 3
        index = node["args"][1]
    else:
        index = (node if isinstance(node[0], str) else node[0])[3]["slice_spec"]
    found: list[int | tuple[int | None, ...] | str] = []
    for item in index if isinstance(index, list) else [index]:
        if isinstance(item, dict):
            item = item.get("config", item)
            item = tuple(item.get(key) for key in ("start", "stop", "step"))
        plain = item if isinstance(item, tuple) else (item,)
        fits = all(n is None or (type(n) is int and abs(n) < 2**31) for n in plain)
        found.append(item if fits and item is not None else str(item))
    return found


def _merge(layer: KerasLayer, count: int) -> str:
    axis = layer.get("axis", -1)
    if layer.class_name == "Concatenate" and axis not in (-1, 2):
        raise layer.refuse(f"axis = {axis}", "want the last axis, the features")
    if count < 2:
        raise layer.refuse(f"joins {count} tensors", "want at least two")
    return JOINS[layer.class_name]


def _halves_of_one(sources: list[_Tensor], graph: _Graph) -> str | None:
    """Return the Bidirectional with merge_mode=None whose two outputs these are."""
    name = sources[0].layer
    entry = graph.entries[name]
    if entry["class_name"] != "Bidirectional" or entry["config"].get("merge_mode") is not None:
        return None
    return name if sources == [_Tensor(name, 0), _Tensor(name, 1)] else None


def _input_shape(entry: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    config = entry["config"]
    if not isinstance(config, Mapping):
        return None
    build = entry.get("build_config")
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if shape is None and isinstance(build, Mapping):
        shape = build.get("input_shape")
    if not isinstance(shape, list) or not shape:
        return None
    if any(not (n is None or (type(n) is int and 0 < n < 2**31)) for n in shape[1:]):
        raise UnreadableModel(f"layer {_name(entry)!r}: input shape {shape}; want sizes or null")
    return tuple(shape[1:])


def _word(entry: Any, key: str) -> str:
    value = entry[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {value!r}")
    return value


def _name(entry: Any) -> str:
    """Return a layer's name; in functional models of Keras 2 it stands beside the config."""
    config = entry["config"]
    name = config.get("name") if isinstance(config, dict) else None
    name = entry.get("name", name) if name is None else name
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}")
    return name
