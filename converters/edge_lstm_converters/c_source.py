"""A Program as C source: the state's layout, one function an op, and the model's functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

from edge_lstm.cells import DequantizeOp, LastStepOp, QuantizeOp
from edge_lstm.errors import UnsupportedModel
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.spec import identifier
from edge_lstm_converters.c_ops import emit
from edge_lstm_converters.c_parts import COp, Member, Place, ctype, kernel

TAB = "    "


@dataclass(frozen=True)
class Part:
    """An op of the model in C, and where it stands."""

    place: Place
    op: COp

    @property
    def whole(self) -> bool:
        """Whether its function takes the whole sequence."""
        return not self.place.op.streams or isinstance(self.place.op, LastStepOp)

    @property
    def function(self) -> str:
        """The name of its function."""
        return f"{self.place.name}_{'whole' if self.whole else 'step'}"

    @property
    def finishes(self) -> bool:
        """Whether it runs once, after the last step."""
        return self.place.output.signal.kind == "vector"


class CModel:
    """A Program laid out for C.

    Args:
        program: integers in, integers out.
        max_steps: longest sequence of a program that needs whole sequences; None: the program's
            own ``time_steps``.

    Raises:
        UnsupportedModel: an op has no form in C.
    """

    def __init__(self, program: Program, max_steps: int | None = None) -> None:
        self.program, self.name = program, program.name
        self.parts: list[Part] = []
        # Where a tensor lies: "x", "y" or a member of the state; an op that only renames shares.
        self.aliases: dict[int, int] = {}
        names: set[str] = set()
        for op in program.ops:
            renamed = _only_renames(program, op)
            if renamed is not None:
                old, new = renamed
                self.aliases[old] = self.root(new)
                continue
            name = identifier(op.name)
            while name in names:
                name += "_"
            names.add(name)
            place = Place(program, op, name)
            self.parts.append(Part(place, emit(place)))
        self.input = program.tensors[self.root(program.input)]
        self.output = program.tensors[self.root(program.output)]
        if self.input.dtype == "float32" or self.output.dtype == "float32":
            raise UnsupportedModel(
                f"model {self.name!r}: takes or gives float32; C has integers only; remove the"
                " QUANTIZE or DEQUANTIZE at its end"
            )
        self.streams = program.streams
        self.max_steps = None if self.streams else (max_steps or program.time_steps)
        if not self.streams and self.max_steps is None:
            raise UnsupportedModel(
                f"model {self.name!r}: needs the whole sequence; give --time-steps, the longest"
            )
        self._buffers()

    def root(self, tensor: int) -> int:
        """Return the tensor whose memory ``tensor`` is."""
        return self.aliases.get(tensor, tensor)

    def _buffers(self) -> None:
        """Give every tensor between ops a member of the state; one is used again when free."""
        program = self.program
        self.where = {self.root(program.input): "x", self.root(program.output): "y"}
        last_read = {
            self.root(index): position
            for position, part in enumerate(self.parts)
            for index in part.place.op.inputs
        }
        sizes: dict[str, tuple[str, int]] = {}
        free: list[str] = []
        for position, part in enumerate(self.parts):
            output = self.root(part.place.op.output)
            if output not in self.where:
                tensor = self.program.tensors[output]
                kind, size = ctype(tensor), self.elements(tensor)
                fitting = [name for name in free if sizes[name][0] == kind]
                if fitting:
                    name = fitting[0]
                    free.remove(name)
                else:
                    name = f"values_{len(sizes)}"
                sizes[name] = (kind, max(size, sizes.get(name, (kind, 0))[1]))
                self.where[output] = name
            for index in {self.root(i) for i in part.place.op.inputs}:
                name = self.where[index]
                # Steps of a model that needs none of them again share their buffers; those of a
                # whole sequence live until the last reader has run.
                if name in sizes and last_read[index] == position and name not in free:
                    free.append(name)
        self.buffers = [Member(kind, name, size) for name, (kind, size) in sizes.items()]

    def elements(self, tensor: Tensor) -> int:
        """Return how many values of a tensor are kept at a time."""
        if tensor.signal.kind == "vector" or self.max_steps is None:
            return per_step(tensor)
        return per_step(tensor) * self.max_steps

    @property
    def members(self) -> list[Member]:
        """Everything in the state, widest elements first."""
        own = [
            Member(member.ctype, f"{member.name}", member.size)
            for part in self.parts
            for member in part.op.members
        ]
        order = {"int32_t": 0, "int16_t": 1}
        return sorted(own + self.buffers, key=lambda member: order.get(member.ctype, 2))

    @property
    def output_is_sequence(self) -> bool:
        """Whether every step has an output, rather than the last."""
        return self.program.output_tensor.signal.kind == "sequence"

    @property
    def macs(self) -> int:
        """Multiplications with weights in one step."""
        return sum(part.op.macs for part in self.parts)

    def reference(self, tensor: int) -> str:
        """Return the expression for a tensor's memory inside the model's functions."""
        name = self.where[self.root(tensor)]
        return name if name in ("x", "y") else f"state->{name}"


def _only_renames(program: Program, op: Op) -> tuple[int, int] | None:
    """Return a tensor, and the one whose memory it shares, of an op that does nothing in C.

    The last step is where the steps before it wrote; floats are quantized by the caller.
    """
    if isinstance(op, DequantizeOp) or (isinstance(op, LastStepOp) and program.streams):
        return op.output, op.inputs[0]
    if isinstance(op, QuantizeOp) and program.tensors[op.inputs[0]].dtype == "float32":
        return op.inputs[0], op.output
    return None


def per_step(tensor: Tensor) -> int:
    """Return the values of one step, or of a vector."""
    return 1 if tensor.signal.kind == "tokens" else tensor.signal.size


def kernels(model: CModel) -> str:
    """Return the kernels that the model calls, each once."""
    wanted = dict.fromkeys(name for part in model.parts for name in part.op.kernels)
    return "\n".join(kernel(name) for name in wanted)


def op_function(model: CModel, part: Part) -> str:
    """Return the static function of an op."""
    inputs = part.place.inputs
    names = ["x"] if len(inputs) == 1 else [f"x{k}" for k in range(len(inputs))]
    parameters = [f"{model.name}_state_t *state"]
    parameters += [f"const {ctype(t)} *{n}" for t, n in zip(inputs, names, strict=True)]
    parameters.append(f"{ctype(part.place.output)} *y")
    if part.whole:
        parameters.append("int32_t steps")
    unused = "" if "state->" in part.op.step else f"{TAB}(void)state;\n"
    return (
        f"static void {part.function}({', '.join(parameters)})\n"
        f"{{\n{unused}{indent(part.op.step, TAB)}\n}}\n"
    )


def call(model: CModel, part: Part, step: str = "") -> str:
    """Return the call of an op's function; ``step`` is the index of one step of a sequence."""

    def argument(index: int) -> str:
        reference, tensor = model.reference(index), model.program.tensors[index]
        if step and tensor.signal.kind != "vector":
            return f"{reference} + {step} * {per_step(tensor)}"
        return reference

    op: Op = part.place.op
    arguments = ["state", *(argument(i) for i in op.inputs), argument(op.output)]
    if part.whole:
        arguments.append("steps")
    return f"{part.function}({', '.join(arguments)});"


def body(lines: Sequence[str]) -> str:
    """Return statements as the body of a function."""
    return "{\n" + indent("\n".join(lines), TAB) + "\n}\n"


def reset_function(model: CModel) -> str:
    """Return ``NAME_reset``."""
    lines = [part.op.reset for part in model.parts if part.op.reset]
    return f"void {model.name}_reset({model.name}_state_t *state)\n" + body(
        lines or ["(void)state;"]
    )


def step_functions(model: CModel) -> str:
    """Return ``NAME_step`` and ``NAME_run`` of a model that runs step by step."""
    name = model.name
    moving = [part for part in model.parts if not part.finishes]
    finishing = [part for part in model.parts if part.finishes]
    types = f"{name}_state_t *state, const {name}_input_t *x, {name}_output_t *y"
    both = f"void {name}_step({types})\n" + body(
        [call(model, part) for part in moving + finishing] or ["(void)state;"]
    )
    size_in, size_out = per_step(model.input), per_step(model.output)
    if model.output_is_sequence:
        step = [f"{name}_step(state, x, y);", f"x += {size_in};", f"y += {size_out};"]
        last: list[str] = []
    else:
        step = [*(call(model, part) for part in moving), f"x += {size_in};"]
        last = [call(model, part) for part in finishing]
    loop = "for (int32_t t = 0; t < steps; t++) " + body(step).rstrip("\n")
    run = f"void {name}_run({name}_state_t *state, const {name}_input_t *x, int32_t steps,"
    run += f"\n{TAB}{name}_output_t *y)\n" + body([loop, *last])
    return both + "\n" + run


def whole_function(model: CModel) -> str:
    """Return ``NAME_run`` of a model that needs the whole sequence."""
    name, lines = model.name, []
    for part in model.parts:
        if part.whole or part.finishes:
            lines.append(call(model, part))
        else:
            loop = "for (int32_t t = 0; t < steps; t++) "
            lines.append(loop + body([call(model, part, step="t")]).rstrip("\n"))
    return (
        f"void {name}_run({name}_state_t *state, const {name}_input_t *x, int32_t steps,\n"
        f"{TAB}{name}_output_t *y)\n" + body(lines)
    )
