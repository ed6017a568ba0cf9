"""SUPPORTED.md: what each reader and writer accepts, made from the rules and tables themselves.

``python -m edge_lstm_converters.supported > SUPPORTED.md``
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from edge_lstm import cells
from edge_lstm.arrays import F32
from edge_lstm.calibrate import calibrate
from edge_lstm.cells import WriteStateOp
from edge_lstm.cells.functions import NAMES
from edge_lstm.errors import UnsupportedModel
from edge_lstm.plain_form import without_projections
from edge_lstm.program import EDGE, PROFILES, Op, Program
from edge_lstm.quantize import quantize
from edge_lstm.spec import Layer, ModelSpec, Signal
from edge_lstm_converters import (
    READERS,
    WRITERS,
    rules,
    rules_keras,
    rules_tflite,
    rules_tflite_float,
)
from edge_lstm_converters.c_layout import MOVES
from edge_lstm_converters.c_ops import EMITTERS
from edge_lstm_converters.c_source import CModel
from edge_lstm_converters.graph_to_onnx import GraphWriter
from edge_lstm_converters.layer_config import LAYER_KEYS
from edge_lstm_converters.load_onnx import NODE_RULES, OLDEST_OPSET
from edge_lstm_converters.read_onnx import LAYER_OPS, MOVE_OPS
from edge_lstm_converters.rules_onnx import FUNCTIONS, RECURRENT_RULES
from edge_lstm_converters.simplify_onnx import FOLDS
from edge_lstm_converters.tflite_float_ops import FLOAT_OPERATORS
from edge_lstm_converters.torch_graph import OPERATORS
from edge_lstm_converters.torch_lstm import RULES as TORCH_RULES
from edge_lstm_converters.torch_moves import MOVE_OPERATORS

FEATURES, HIDDEN, STEPS = 3, 2, 4


def text() -> str:
    """Return SUPPORTED.md."""
    parts = [
        "# What is supported",
        "Made from the rules that the readers and writers ask: `make supported` writes it anew, and"
        " a test fails when it is not what they say. What is not here is refused by its name, with"
        " the reason and the way out, before anything is written.",
        *_formats(),
        *_cells(),
        *_c(),
        *_onnx(),
        *_torch(),
        *_keras(),
        *_tflite(),
    ]
    return "\n\n".join(parts) + "\n"


def _formats() -> list[str]:
    rows = [f"| `{suffix}` | {_first_line(_function(*row))} |" for suffix, row in READERS.items()]
    writers = [f"| `{name}` | {_first_line(_function(*row))} |" for name, row in WRITERS.items()]
    return [
        "## Files",
        _table("| read | how |", rows),
        _table("| write, `--to` | what |", writers),
    ]


def _function(module: str, name: str, *rest: object) -> Callable[..., object]:
    import importlib

    del rest
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return function


def _first_line(function: Callable[..., object]) -> str:
    doc = inspect.getdoc(function) or ""
    return " ".join(doc.split("\n\n")[0].split())


def _table(head: str, rows: Iterable[str]) -> str:
    line = "|".join("---" for _ in head.strip("|").split("|"))
    return "\n".join([head, f"|{line}|", *rows])


def _list(found: Iterable[Callable[..., object]]) -> str:
    return "\n".join(f"- {rules.sentence(rule)}." for rule in found)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# Layers: each is tried.


def _gate() -> cells.Gate:
    rng = np.random.default_rng(0)
    shapes = (HIDDEN, FEATURES), (HIDDEN, HIDDEN), (HIDDEN,)
    return cells.Gate(*(rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))


def _ones(*shape: int) -> F32:
    return np.full(shape, 0.5, np.float32)


def _samples() -> dict[str, tuple[Layer, ...]]:
    """Return a small model for each row of the table."""
    gate = _gate()
    lstm = cells.Lstm("lstm", (gate, gate, gate, gate))
    gru = cells.Gru("gru", (gate, gate, gate), _ones(HIDDEN))
    narrow = cells.Gate(gate.input_weights, gate.recurrent_weights[:, :1], gate.bias)
    projected = cells.Lstm("p", (narrow,) * 4, projection=_ones(1, HIDDEN))
    own = (cells.Function("hard_sigmoid"), lstm.functions[1], lstm.functions[2])
    dense = cells.Dense("dense", _ones(HIDDEN, FEATURES), _ones(HIDDEN))
    found: dict[str, Layer | tuple[Layer, ...]] = {
        "LSTM": lstm,
        "LSTM with first states": replace(lstm, initial_hidden=_ones(HIDDEN)),
        "LSTM with a projection": projected,
        "LSTM with coupled gates (input_forget)": replace(lstm, coupled=True),
        "LSTM with peepholes": replace(lstm, peepholes=_ones(3, HIDDEN)),
        "LSTM with a clip of its pre-activations": replace(lstm, clip=1.0),
        "LSTM with a clip of its cell state": replace(lstm, cell_clip=1.0),
        "LSTM with activations of its own": replace(lstm, functions=own),
        "GRU, reset after the product": gru,
        "GRU, reset before the product": replace(
            gru, candidate_recurrent_bias=None, reset_after=False
        ),
        "plain RNN, tanh": cells.Rnn("rnn", gate),
        "plain RNN, relu": cells.Rnn("rnn", gate, function=cells.Function("relu")),
        "a layer that runs backward": cells.Backward("back", lstm),
        "two directions, concatenated": cells.Bidirectional("both", lstm, lstm),
        "two directions, their final states": cells.Bidirectional("both", lstm, lstm, final=True),
        "two directions, sum or product": cells.Bidirectional("both", lstm, lstm, "sum"),
        "two directions, mean": cells.Bidirectional("both", lstm, lstm, "ave"),
        "GRU in two directions": cells.Bidirectional("both", gru, gru),
        "time reversed": cells.Reverse("reverse"),
        "last step": (lstm, cells.LastStep("last")),
        "first step": cells.PickStep("first", 0),
        "another step": cells.PickStep("step", 2),
        "a run of steps": cells.Steps("steps", 1),
        "dense": dense,
        "embedding": cells.Embedding("table", _ones(7, FEATURES)),
        "flatten": cells.Flatten("flat", STEPS),
        "sigmoid, tanh, softmax, relu, relu6": cells.Activation("sigmoid", "sigmoid"),
        f"other functions: {', '.join(NAMES[3:])}": cells.Elementwise("elu", cells.Function("elu")),
        "batch normalization beside a dense layer or LSTM": (
            dense,
            cells.Scale("scale", _ones(HIDDEN), _ones(HIDDEN)),
        ),
        "batch normalization elsewhere": cells.Scale("scale", _ones(FEATURES), _ones(FEATURES)),
        "layer normalization": cells.LayerNorm("norm", _ones(FEATURES), _ones(FEATURES)),
        "convolution along time": cells.Conv1d("conv", _ones(2, FEATURES, 2), _ones(2)),
        "pooling along time": cells.Pool1d("pool", "max", 2, 2),
        "pooling over all of time": cells.GlobalPool("pool", "average"),
        "branches of one input, joined; residuals": cells.Parallel("par", ((dense,), (lstm,))),
    }
    return {word: v if isinstance(v, tuple) else (v,) for word, v in found.items()}


def _cells() -> list[str]:
    rows = []
    for word, layers in _samples().items():
        tokens = isinstance(layers[0], cells.Embedding)
        kind = Signal("tokens", 7) if tokens else Signal("sequence", FEATURES)
        steps = STEPS if isinstance(layers[0], cells.Flatten) else None
        spec = ModelSpec("sample", kind, layers, steps)
        marks = [_onnx_mark(spec), _integer_mark(spec, PROFILES[0]), _integer_mark(spec, EDGE)]
        marks.append(_c_mark(spec))
        rows.append(f"| {word} | {' | '.join(marks)} |")
    return [
        "## Layers",
        "Every layer runs in the float reference. The columns are found by trying each; where a"
        " cell says no, `--quant float32 --to onnx` is the way.",
        _table(
            "| layer | ONNX | int8, profiles of the TFLite family | int8, profile edge | C |", rows
        ),
    ]


def _onnx_mark(spec: ModelSpec) -> str:
    try:
        GraphWriter(without_projections(spec), stateful=False).model()
    except UnsupportedModel:
        return "no"
    return "yes"


def _program(spec: ModelSpec, profile: str) -> Program:
    """Quantize a sample model; raises UnsupportedModel where that cannot be."""
    shape = (8, STEPS)
    rng = np.random.default_rng(0)
    tokens = spec.input.kind == "tokens"
    x = rng.integers(0, 7, shape) if tokens else rng.normal(0, 1, (*shape, FEATURES))
    return quantize(spec, calibrate(spec, x), profile)


def _c_mark(spec: ModelSpec) -> str:
    """Return for which profiles there is C; ``STEPS`` is the longest sequence."""
    able = []
    for profile in (*PROFILES, EDGE):
        try:
            CModel(_program(spec, profile), STEPS)
        except UnsupportedModel:
            continue
        able.append(profile)
    if len(able) in (0, len(PROFILES) + 1):
        return "every profile" if able else "no"
    missing = [profile for profile in (*PROFILES, EDGE) if profile not in able]
    return _names(able) if len(able) < len(missing) else f"all but {_names(missing)}"


def _integer_mark(spec: ModelSpec, profile: str) -> str:
    try:
        program = _program(spec, profile)
    except UnsupportedModel:
        return "no"
    if program.has_state_ops:
        return "yes, in .tflite a step a call" if program.streams else "yes, but not in .tflite"
    rewritten = any("folded" in w or "written as" in w for w in program.warnings)
    return "yes, in other words" if rewritten else "yes"


# C


def _c() -> list[str]:
    words: dict[str, list[str]] = {}
    for op, emitter in EMITTERS.items():
        words.setdefault(_first_line(emitter), []).append(op.type_name)
    rows = [f"| {_names(ops)} | {line} |" for line, ops in words.items()]
    free: tuple[type[Op], ...] = (*MOVES, WriteStateOp)
    moves = _names(op.type_name for op in free)
    return [
        "## C",
        "`--to c` writes what `inspect --stage program` shows, op by op.",
        _table("| op | in C |", rows),
        f"These become addresses, or loops that copy: {moves}. `quantize` and `dequantize` at a"
        " model's ends are left to its caller, in `NAME_float.h`; floats inside a model are"
        " refused.",
    ]


# Readers


def _onnx() -> list[str]:
    layer_rows, move_rows = _grouped(LAYER_OPS), _grouped(MOVE_OPS)
    return [
        "## ONNX",
        f"Opsets {OLDEST_OPSET} and later; one input beside first states and sequence_lens.",
        _list(NODE_RULES),
        "LSTM, GRU and RNN:",
        _list(RECURRENT_RULES),
        f"Their activations: {_names(FUNCTIONS)}.",
        _table("| operators | what is read |", layer_rows),
        _table("| operators that move values | what is read |", move_rows),
        f"Folded where all inputs are constants: {_names(sorted(FOLDS))}.",
    ]


def _grouped(functions: Mapping[str, Callable[..., object]]) -> list[str]:
    """Return a row for each function, with the operators that it reads."""
    groups: dict[str, list[str]] = {}
    for op in sorted(functions):
        groups.setdefault(_first_line(functions[op]), []).append(op)
    return [f"| {_names(ops)} | {line} |" for line, ops in groups.items()]


def _torch() -> list[str]:
    rows = []
    for kind, keys in LAYER_KEYS.items():
        words = [f"`{k}`" + ("" if key.required else " (optional)") for k, key in keys.items()]
        rows.append(f"| `{kind}` | {', '.join(words) or 'none'} |")
    return [
        "## PyTorch",
        _list(TORCH_RULES),
        "A state dict is read with a layer configuration:",
        _table("| type | keys |", rows),
        "A program of torch.export, or a module in memory, is read operator by operator. What is"
        " computed from one input may fork and come together again; a loop over cells is a layer.",
        _table("| operators | what is read |", _grouped({**OPERATORS, **MOVE_OPERATORS})),
    ]


def _keras() -> list[str]:
    found: Mapping[str, tuple[Callable[..., object], ...]] = rules_keras.RULES
    rows = [
        f"| `{kind}` | {'; '.join(rules.sentence(rule) for rule in asked) or 'as it is'} |"
        for kind, asked in found.items()
    ]
    return ["## Keras", _table("| layer | limits |", rows)]


def _tflite() -> list[str]:
    return [
        "## TFLite",
        "LSTM of a full-integer model:",
        _list(rules_tflite.LSTM_RULES),
        "LSTM of a float model, in one direction or two:",
        _list(rules_tflite_float.FLOAT_LSTM_RULES),
        _table("| operators of a float model | what is read |", _grouped(FLOAT_OPERATORS)),
    ]


if __name__ == "__main__":
    sys.stdout.write(text())
