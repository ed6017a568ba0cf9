"""ONNX Runtime, float: on the CPU, on every other execution provider, and with int8 weights.

Whole sequences, or step by step with the state fed back.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.backend import BenchModel, CallShape, Precision, Session, check_multiple
from edge_lstm.errors import EdgeLstmError
from edge_lstm_benchmarks.backends.installed import Installed
from edge_lstm_benchmarks.backends.onnx_graph import (
    Call,
    CarriedSession,
    OnnxGraph,
    WholeSession,
    graph_bytes,
    join,
    parse_graph,
    session_of,
)

CPU = "CPUExecutionProvider"
RECURRENT = ("LSTM", "GRU", "RNN")
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Provider(NamedTuple):
    """An execution provider.

    Args:
        name: as ONNX Runtime has it.
        how: to get a build that has it.
        options: that make it comparable: one thread, float32.
        plugin: the package that adds it to a build without it, or None.
        waits: whether it computes elsewhere than on the CPU.
    """

    name: str
    how: str
    options: Mapping[str, str] = MappingProxyType({})
    plugin: str | None = None
    waits: bool = False


_INSTEAD = "in an environment without onnxruntime"
PROVIDERS = {
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        f"pip install onnxruntime-openvino, {_INSTEAD}",
        {
            "device_type": "CPU",
            "num_of_threads": "1",
            "load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}),
        },
        plugin="onnxruntime_ep_openvino",
    ),
    "cuda": Provider(
        "CUDAExecutionProvider",
        f"with an NVIDIA GPU, pip install 'onnxruntime-gpu[cuda,cudnn]', {_INSTEAD}",
        waits=True,
    ),
    "tensorrt": Provider(
        "TensorrtExecutionProvider",
        f"with an NVIDIA GPU and TensorRT, pip install 'onnxruntime-gpu[cuda,cudnn]', {_INSTEAD}",
        waits=True,
    ),
    "coreml": Provider(
        "CoreMLExecutionProvider", "pip install onnxruntime on macOS has it", waits=True
    ),
    "directml": Provider(
        "DmlExecutionProvider",
        f"on Windows, pip install onnxruntime-directml, {_INSTEAD}",
        waits=True,
    ),
    "qnn": Provider(
        "QNNExecutionProvider",
        "with a Snapdragon's NPU, pip install onnxruntime-qnn",
        {"backend_type": "htp"},
        plugin="onnxruntime_qnn",
        waits=True,
    ),
    "xnnpack": Provider(
        "XnnpackExecutionProvider",
        "no wheel on PyPI has it; build onnxruntime with --use_xnnpack",
        {"intra_op_num_threads": "1"},
    ),
}
"""By the name after the colon. Those of no use for a recurrent model are left out."""


class OnnxRuntime(Installed):
    """``onnxruntime``: one thread; step by step through IO binding, its fastest way from Python."""

    package = "onnxruntime"
    precision: Precision = "float32"

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        """Return the ``.onnx`` for whole sequences, or for ``time_steps=1`` with state inputs."""
        return graph_bytes(model, shape)

    def load(self, data: bytes, shape: CallShape) -> Session:
        graph = parse_graph(data)
        session = _open(graph)
        if shape.time_steps == 1:
            return self.step_session(session, graph, shape)
        return WholeSession(_call_of(session), shape)

    def step_session(self, session: Any, graph: OnnxGraph, shape: CallShape) -> Session:
        """Return what runs step by step."""
        return StepSession(session, graph, shape)


class OnnxRuntimeRun(OnnxRuntime):
    """The same, step by step through ``session.run``, the way that most programs call it."""

    def step_session(self, session: Any, graph: OnnxGraph, shape: CallShape) -> Session:
        return CarriedSession(_call_of(session), list(graph.first.values()), shape)


class OnnxRuntimeDynamic(OnnxRuntime):
    """``onnxruntime-dynamic-int8``: ``quantize_dynamic``'s DynamicQuantizeLSTM; floats in and out.

    Weights are int8, and so are what they multiply, by a scale that each call finds; gates, cell
    and all that goes in or out are float32.
    """

    precision: Precision = "dynamic-int8"

    def available(self) -> str | None:
        if importlib.util.find_spec("onnx") is None:
            return "onnx is not installed, which onnxruntime's quantizer needs; pip install onnx"
        return super().available()

    def build(self, model: BenchModel, shape: CallShape) -> bytes:
        return _quantized(graph_bytes(model, shape))


class OnnxRuntimeProvider(OnnxRuntime):
    """``onnxruntime:NAME``, on an execution provider; what it cannot run, the CPU runs.

    Which of both ran the recurrent nodes is read from a profile of a first call, and told.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._provider = PROVIDERS[name.partition(":")[2]]
        self.waits = self._provider.waits

    def available(self) -> str | None:
        missing = super().available()
        if missing is not None:
            return missing
        import onnxruntime

        if _has_plugin(self._provider):
            return None
        if self._provider.name in onnxruntime.get_available_providers():
            return None
        build = f"onnxruntime {onnxruntime.__version__}"
        return f"{self._provider.name} is not in the installed {build}; {self._provider.how}"

    def load(self, data: bytes, shape: CallShape) -> Session:
        graph = parse_graph(data)
        session = _open(graph, self._provider)
        if self._provider.name not in session.get_providers():
            raise EdgeLstmError(
                f"{self._provider.name} does not start here, onnxruntime says; {self._provider.how}"
            )
        runner = session_of(graph, _call_of(session), shape)
        runner.ran_on, runner.warning = placement(
            nodes_of(graph, self._provider, shape), self._provider.name
        )
        return runner


def _open(
    graph: OnnxGraph, provider: Provider | None = None, profile_prefix: str | None = None
) -> Any:
    """Return an InferenceSession with one thread, on a provider and else the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    if provider is None:
        return onnxruntime.InferenceSession(graph.data, options, providers=[CPU])
    if _has_plugin(provider):
        options.add_provider_for_devices(_plugin_devices(provider)[:1], dict(provider.options))
        return onnxruntime.InferenceSession(graph.data, options)
    places = [(provider.name, dict(provider.options)), (CPU, {})]
    return onnxruntime.InferenceSession(graph.data, options, providers=places)


def _has_plugin(provider: Provider) -> bool:
    return provider.plugin is not None and importlib.util.find_spec(provider.plugin) is not None


@functools.cache
def _register(name: str, plugin: str) -> None:
    import onnxruntime

    library = importlib.import_module(plugin).get_library_path()
    onnxruntime.register_execution_provider_library(name, library)


def _plugin_devices(provider: Provider) -> list[Any]:
    """Return the devices that a provider's plugin offers."""
    import onnxruntime

    assert provider.plugin is not None
    _register(provider.name, provider.plugin)
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == provider.name]
    if not devices:
        raise EdgeLstmError(f"{provider.name}: {provider.plugin} finds no device here")
    return devices


def _call_of(session: Any) -> Call:
    run, names = session.run, [port.name for port in session.get_inputs()]

    def call(inputs: list[Array]) -> list[Array]:
        outputs: list[Array] = run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return call


def nodes_of(graph: OnnxGraph, provider: Provider | None, shape: CallShape) -> dict[str, list[str]]:
    """Return the operators that each provider ran, from the profile of a call."""
    with tempfile.TemporaryDirectory() as folder:
        session = _open(graph, provider, str(Path(folder) / "profile"))
        source, *_ = session.get_inputs()
        sizes = [axis for axis in source.shape[2:] if isinstance(axis, int)]
        x = np.zeros((shape.batch_size, shape.time_steps, *sizes), _TYPES[source.type])
        first = [np.repeat(v, shape.batch_size, axis=1) for v in graph.first.values()]
        _call_of(session)([x, *first])
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf8"))
    found: dict[str, list[str]] = {}
    for event in events:
        if event.get("cat") == "Node" and "op_name" in event["args"]:
            found.setdefault(event["args"]["provider"], []).append(event["args"]["op_name"])
    return found


def placement(nodes: dict[str, list[str]], provider: str) -> tuple[str, str | None]:
    """Return where nodes ran, in a line, and a warning where the recurrent ones fell back.

    A provider that compiles nodes together shows them as one of its own; those that it left to
    the CPU keep their operator's name.

    Args:
        nodes: the operators that each provider ran.
        provider: the one that was asked for.
    """
    counts = {name: Counter(ops) for name, ops in nodes.items()}
    line = "; ".join(
        f"{name}: {', '.join(f'{n} {op}' for op, n in ops.items())}" for name, ops in counts.items()
    )
    left = [op for op in RECURRENT if counts.get(CPU, Counter())[op]]
    if provider not in nodes:
        return line, f"every node fell back to {CPU}: these are its figures"
    if left:
        return line, f"{', '.join(left)} fell back to {CPU}"
    return line, None


class StepSession:
    """Step by step: inputs are x and states, outputs are y and the same states, in that order.

    Two bindings read and write the state buffers in turn, so that no state is copied.
    """

    def __init__(self, session: Any, graph: OnnxGraph, shape: CallShape) -> None:
        self._shape = shape
        self._session = session
        source, *state_inputs = session.get_inputs()
        output, *state_outputs = session.get_outputs()
        features = [axis for axis in source.shape[2:] if isinstance(axis, int)]
        self._x = np.zeros((shape.batch_size, 1, *features), _TYPES[source.type])
        self._first = [np.repeat(v, shape.batch_size, axis=1) for v in graph.first.values()]
        self._states = tuple([np.zeros_like(v) for v in self._first] for _ in range(2))
        feeds = {source.name: self._x}
        feeds.update({s.name: v for s, v in zip(state_inputs, self._first, strict=True)})
        self._y = np.zeros_like(session.run([output.name], feeds)[0])
        self._bindings = []
        for reads, writes in (self._states, self._states[::-1]):
            binding = session.io_binding()
            binding.bind_cpu_input(source.name, self._x)
            _bind_output(binding, output.name, self._y)
            for named, into, values, results in zip(
                state_inputs, state_outputs, reads, writes, strict=True
            ):
                binding.bind_cpu_input(named.name, values)
                _bind_output(binding, into.name, results)
            self._bindings.append(binding)
        self.reset()

    def reset(self) -> None:
        """Set the state to its first value."""
        self._turn = 0
        for state, first in zip(self._states[0], self._first, strict=True):
            state[...] = first

    def step(self, x: Array) -> Array:
        """Run one step."""
        self._x[:, 0] = x
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        y: Array = self._y.reshape(self._shape.batch_size, -1).copy()
        return y

    def run(self, x: Array) -> Array:
        """Run a sequence step by step."""
        outputs = [self.step(x[:, t]) for t in range(check_multiple(x, self._shape))]
        return np.stack(outputs, axis=1) if self._shape.returns_sequence else outputs[-1]


def _bind_output(binding: Any, name: str, values: Array) -> None:
    binding.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)


def _quantized(data: bytes) -> bytes:
    """Return what ``graph_bytes`` made with its weights in int8, by ONNX Runtime's quantizer."""
    from onnxruntime.quantization import quantize_dynamic

    graph = parse_graph(data)
    with tempfile.TemporaryDirectory() as folder:
        plain, quantized = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(graph.data)
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it advises to optimize first, which ours needs not
        try:
            quantize_dynamic(plain, quantized)
        finally:
            logging.disable(before)
        return join(graph._replace(data=quantized.read_bytes()))
