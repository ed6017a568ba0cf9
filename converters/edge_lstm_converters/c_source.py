"""A Program as C source: one function an op, and the model's functions that call them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from textwrap import indent

from edge_lstm.cells import DequantizeOp, FlattenOp, QuantizeOp, WriteStateOp
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.spec import identifier
from edge_lstm_converters.c_gemmlowp import TABLE, gemmlowp_table
from edge_lstm_converters.c_layout import MOVES, Container, Layout, Run, per_step
from edge_lstm_converters.c_ops import emit
from edge_lstm_converters.c_parts import (
    ACTIVATION,
    C_TYPES,
    COp,
    Member,
    Place,
    ctype,
    fill,
    kernel,
)

TAB = "    "
STATE_LIMIT_BYTES = 1 << 28  # no microcontroller has more
ITEM_BYTES = {ACTIVATION: 4, "int32_t": 4, "uint32_t": 4, "int16_t": 2, "uint16_t": 2}


class CModel:
    """A Program made ready to be written as C.

    Args:
        program: any; QUANTIZE and DEQUANTIZE at its ends are left to the caller.
        max_steps: longest sequence of a program that needs whole sequences; None: the program's
            own ``time_steps``.

    Attributes:
        enters: the QUANTIZE at the beginning, if there is one.
        ops: in C, by their position in the program; moves are not among them.
        fixed_steps: the one sequence length that can be run, or None for any.

    Raises:
        UnsupportedModel: an op has no form in C.
        UsageError: the profile does not run the program.
    """

    def __init__(self, program: Program, max_steps: int | None = None) -> None:
        program.session()  # a profile's own refusals
        self.program, self.enters = integer_part(program)
        self.name = program.name
        # A number first: no name begins with another, and none is a function's of the model.
        names = [f"op{k}_{identifier(op.name)}" for k, op in enumerate(self.program.ops)]
        self.ops: dict[int, COp] = {}
        for position, (op, name) in enumerate(zip(self.program.ops, names, strict=True)):
            if not isinstance(op, (*MOVES, WriteStateOp)):
                self.ops[position] = emit(Place(self.program, op, name))
        self.layout = Layout(self.program, names)
        self.streams = self.program.streams
        self.fixed_steps = None if self.streams else _flattened_steps(self.program)
        self.max_steps = None
        if not self.streams:
            self.max_steps = self.fixed_steps or max_steps or program.time_steps
            if self.max_steps is None:
                raise UnsupportedModel(
                    f"model {self.name!r}: needs the whole sequence; give --time-steps, the longest"
                )
        self.members = self._members()
        if self.state_bytes > STATE_LIMIT_BYTES:
            raise UnsupportedModel(
                f"model {self.name!r}: {self.max_steps} steps need {self.state_bytes:,} bytes of"
                f" state; want at most {STATE_LIMIT_BYTES:,}; give fewer --time-steps"
            )

    @property
    def input(self) -> Tensor:
        """The tensor that is fed."""
        return self.program.input_tensor

    @property
    def output(self) -> Tensor:
        """The tensor that comes out."""
        return self.program.output_tensor

    @property
    def every_step(self) -> bool:
        """Whether every step has an output, rather than the last."""
        return self.output.signal.kind == "sequence" or self.input.signal.kind == "vector"

    @property
    def macs(self) -> int:
        """Multiplications with weights in one step."""
        return sum(op.macs for op in self.ops.values())

    @property
    def state_bytes(self) -> int:
        """Bytes of the state's arrays."""
        return sum(m.size * ITEM_BYTES.get(m.ctype, 1) for m in self.members)

    def _members(self) -> list[Member]:
        """Return everything in the state, widest values first, so that nothing is padded."""
        found = {member.name: member for op in self.ops.values() for member in op.members}
        for container in self.layout.containers:
            size = max(self.values_in(container), getattr(found.get(container.name), "size", 0))
            found[container.name] = Member(C_TYPES[container.dtype], container.name, size)
        return sorted(found.values(), key=lambda member: -ITEM_BYTES.get(member.ctype, 1))

    def values_in(self, container: Container, steps: int | None = None) -> int:
        """Return how many values a container has room for, or has of so many steps."""
        whole = container.whole and not container.flat
        return container.values * ((steps or self.max_steps or 1) if whole else 1)

    def function(self, run: Run) -> str:
        """Return the name of a run's function."""
        if run.op is None:
            return f"copy{self._copies.index(run)}"
        return f"{self.layout.names[run.position]}_run"

    @property
    def runs(self) -> list[Run]:
        """Everything that runs, in order."""
        return [run for group in self.layout.loops for run in group] + self.layout.once

    @property
    def _copies(self) -> list[Run]:
        return [run for run in self.runs if run.op is None]

    def c_op(self, run: Run) -> COp:
        """Return a run in C."""
        if run.op is not None:
            return self.ops[run.position]
        return COp(fill("y", per_step(run.tensor), "x[k]"))


def integer_part(program: Program) -> tuple[Program, QuantizeOp | None]:
    """Return the program between a QUANTIZE at its beginning and a DEQUANTIZE at its end.

    Raises:
        UnsupportedModel: there are floats elsewhere.
    """
    ops = list(program.ops)
    enters = None
    if program.input_tensor.dtype == "float32":
        readers = [op for op in ops if program.input in op.inputs]
        if len(readers) == 1 and isinstance(readers[0], QuantizeOp):
            enters = readers[0]
            ops.remove(enters)
    leaves = ops[-1] if ops and isinstance(ops[-1], DequantizeOp) else None
    if leaves is not None and leaves.output == program.output:
        ops.remove(leaves)
    else:
        leaves = None
    inner = replace(
        program,
        ops=tuple(ops),
        input=program.input if enters is None else enters.output,
        output=program.output if leaves is None else leaves.inputs[0],
    )
    for index in (inner.input, inner.output, *(i for op in ops for i in (*op.inputs, op.output))):
        if inner.tensors[index].dtype == "float32":
            raise UnsupportedModel(
                f"model {program.name!r}: tensor {inner.tensors[index].name!r} is float32 inside"
                " the model; C has integers only; run it with the NumPy runtime"
            )
    return inner, enters


def _flattened_steps(program: Program) -> int | None:
    for op in program.ops:
        if isinstance(op, FlattenOp):
            (source,) = op.inputs
            return program.tensors[op.output].signal.size // program.tensors[source].signal.size
    return None


def kernels(model: CModel) -> str:
    """Return the kernels that the model calls, each once."""
    wanted = (name for op in model.ops.values() for name in op.kernels)
    names = dict.fromkeys(("el_loop.h", *wanted))
    return "\n".join(gemmlowp_table() if name == TABLE else kernel(name) for name in names)


def op_function(model: CModel, run: Run) -> str:
    """Return the static function of what runs, with its constants before it."""
    op = model.c_op(run)
    types = [C_TYPES[spot.container.dtype] for spot in run.sources]
    names = ["x"] if len(types) == 1 else [f"x{k}" for k in range(len(types))]
    parameters = [f"{model.name}_state_t *state"] if _uses_state(op) else []
    parameters += [f"const {kind} *{name}" for kind, name in zip(types, names, strict=True)]
    parameters.append(f"{ctype(run.tensor)} *y")
    head = f"static void {model.function(run)}({', '.join(parameters)})"
    return f"{op.constants}\n{head}\n{body([op.step])}"


def _uses_state(op: COp) -> bool:
    return "state->" in op.step


def call(model: CModel, run: Run, step: str) -> str:
    """Return the call of a run's function for the step of that index; see ``Spot.address``."""
    arguments = ["state"] if _uses_state(model.c_op(run)) else []
    arguments += [spot.address(step) for spot in (*run.sources, run.target)]
    return f"{model.function(run)}({', '.join(arguments)});"


def body(lines: Iterable[str]) -> str:
    """Return statements as the body of a function."""
    return "{\n" + indent("\n".join(lines), TAB) + "\n}\n"


def reset_function(model: CModel) -> str:
    """Return ``NAME_reset``."""
    lines = [op.reset for op in model.ops.values() if op.reset]
    return f"void {model.name}_reset({model.name}_state_t *state)\n" + body(
        lines or ["(void)state;"]
    )


def step_function(model: CModel) -> str:
    """Return ``NAME_step``."""
    name = model.name
    head = f"void {name}_step({name}_state_t *state, const {name}_input_t *x, {name}_output_t *y)\n"
    return head + body(["(void)state;", *(call(model, run, "") for run in model.runs)])


def run_function(model: CModel) -> str:
    """Return ``NAME_run``."""
    name, lines = model.name, ["(void)state;"]
    most = "" if model.max_steps is None else f" || steps > {name}_MAX_STEPS"
    wrong = "steps < 1" + most
    if model.fixed_steps is not None:
        wrong = f"steps != {name}_MAX_STEPS"
    lines.append(f"if ({wrong}) {{\n{TAB}return 1;\n}}")
    loop = "for (int32_t t = 0; t < steps; t++) "
    if model.streams and model.every_step:
        sizes = per_step(model.input), per_step(model.output)
        one = f"{name}_step(state, x + t * {sizes[0]}, y + t * {sizes[1]});"
        lines.append(loop + body([one]).rstrip("\n"))
    else:
        for group in model.layout.loops:
            lines.append(loop + body(call(model, run, "t") for run in group).rstrip("\n"))
        lines += [call(model, run, "(steps - 1)") for run in model.layout.once]
    lines.append("return 0;")
    head = f"int {name}_run({name}_state_t *state, const {name}_input_t *x, int32_t steps,"
    return f"{head}\n{TAB}{name}_output_t *y)\n" + body(lines)


def source_functions(model: CModel) -> list[str]:
    """Return all functions of ``NAME.c``, in order of dependence."""
    parts = [kernels(model)]
    parts += [model.ops[k].constants for k in model.ops if not _is_run(model, model.program.ops[k])]
    parts += [op_function(model, run) for run in model.runs]
    parts.append(reset_function(model))
    if model.streams:
        parts.append(step_function(model))
    parts.append(run_function(model))
    return [part for part in parts if part]


def _is_run(model: CModel, op: Op) -> bool:
    return any(run.op is op for run in model.runs)
