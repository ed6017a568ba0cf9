"""A Program as C for a host: whole blocks of steps and many streams, on the vectors it has.

Ops with a host kernel run it; the others run the firmware's function for every step of every
stream. A session is one block of memory: sizes, states, and the values between ops.
"""

from __future__ import annotations

import json
from itertools import pairwise
from textwrap import indent

import edge_lstm
from edge_lstm.cells import LastStepOp
from edge_lstm.cells.edge_rows import sigmoid_segments
from edge_lstm.program import Op, Program, Tensor
from edge_lstm.spec import identifier
from edge_lstm_converters.c_layout import MOVES, per_step
from edge_lstm_converters.c_ops import emit
from edge_lstm_converters.c_parts import C_TYPES, COp, Member, Place, ctype, kernel
from edge_lstm_converters.c_source import CModel, body, integer_part, source_functions
from edge_lstm_converters.host_lstm import PackedLstm, aligned, definition, pack, tables

BLOCK_STEPS = 16
"""Steps that are run through all ops before the next ones: what lies between stays in cache."""
ITEM_BYTES = {"int8": 1, "int16": 2, "int32": 4}


class HostModel:
    """A Program whose LSTMs run on the host's vectors.

    Args:
        program: a chain of ops that runs step by step; see ``runs_in_blocks``.
    """

    def __init__(self, program: Program) -> None:
        self.program, _ = integer_part(program)
        self.name = program.name
        self.ops: list[tuple[Op, str]] = []
        self.packed: dict[str, PackedLstm] = {}
        self.plain: dict[str, COp] = {}
        for number, op in enumerate(self.program.ops):
            label = f"op{number}_{identifier(op.name)}"
            self.ops.append((op, label))
            packed = pack(self.program, op)
            if packed is not None:
                self.packed[label] = packed
            elif not isinstance(op, LastStepOp):
                self.plain[label] = emit(Place(self.program, op, label))

    def layers(self) -> list[dict[str, object]]:
        """Return where the packed layers keep their states."""
        return [
            {"op": op.name, "units": packed.units, "hidden": packed.hidden}
            for op, label in self.ops
            for packed in [self.packed.get(label)]
            if packed is not None
        ]

    @property
    def input(self) -> Tensor:
        """The tensor that is fed."""
        return self.program.input_tensor

    @property
    def output(self) -> Tensor:
        """The tensor that comes out."""
        return self.program.output_tensor


def runs_in_blocks(program: Program) -> bool:
    """Whether a program is a chain with an LSTM that has a host kernel."""
    ops = integer_part(program)[0].ops
    chained = all(op.inputs == (before.output,) for before, op in pairwise(ops))
    moves = [op for op in ops if isinstance(op, MOVES) and not isinstance(op, LastStepOp)]
    packable = any(pack(program, op) is not None for op in ops)
    return program.streams and chained and not moves and packable


def host_source(program: Program, max_steps: int | None = None) -> str:
    """Return the C file of a Program for a host; it is complete by itself.

    Args:
        program: any that has a form in C.
        max_steps: longest sequence of a program that cannot run step by step.

    Raises:
        UnsupportedModel: an op has no form in C.
    """
    if program.streams:
        max_steps = None
    made = f"/* {program.name}: made by edge-lstm {edge_lstm.__version__}; do not edit. */"
    if not runs_in_blocks(program):
        return "\n".join(
            [
                made,
                kernel("el_host_types.h"),
                kernel("el_activation.h"),
                plain_functions(CModel(program, max_steps)),
                describe(program, []),
            ]
        )
    model = HostModel(program)
    kernels = dict.fromkeys(name for op in model.plain.values() for name in op.kernels)
    members = [member for op in model.plain.values() for member in op.members]
    return "\n".join(
        [
            made,
            kernel("el_host_types.h"),
            aligned("int32_t", "el_sigmoid_words", sigmoid_segments()[0]),
            kernel("el_host.h"),
            "#ifdef EL_X86",
            kernel("el_host_avx512.h"),
            kernel("el_host_avx2.h"),
            "#endif",
            kernel("el_host_portable.h"),
            "#ifdef EL_NEON",
            kernel("el_host_neon.h"),
            "#endif",
            kernel("el_host_call.h"),
            kernel("el_activation.h"),
            *map(kernel, kernels),
            state_type(model.name, members),
            *(plain_function(model, op, label) for op, label in model.ops if label in model.plain),
            tables(model.program, [op for op, label in model.ops if label in model.packed]),
            *(
                definition(model.program, op, model.packed[label], f"{label}_data")
                for op, label in model.ops
                if label in model.packed
            ),
            session_type(model),
            block_function(model),
            public_functions(model),
            describe(program, model.layers()),
        ]
    )


def describe(program: Program, layers: list[dict[str, object]]) -> str:
    """Return the function by which a library says whose it is; see ``edge_lstm.native``."""
    document = {
        "format": "edge-lstm.native/1",
        "name": program.name,
        "fingerprint": program.fingerprint(),
        "layers": layers,
    }
    text = json.dumps(document).replace("\\", "\\\\").replace('"', '\\"')
    return f'EL_EXPORT const char *el_describe(void)\n{{\n    return "{text}";\n}}\n'


def state_type(name: str, members: list[Member]) -> str:
    """Return the struct of what one stream keeps for the firmware's functions."""
    lines = [f"{m.ctype} {m.name}[{m.size}];" for m in members] or ["int8_t unused;"]
    return f"typedef struct {body(lines).rstrip()} {name}_state_t;\n"


def plain_function(model: HostModel, op: Op, label: str) -> str:
    """Return the firmware's function for one step of an op, with its constants."""
    (source,) = op.inputs
    tensors, c_op = model.program.tensors, model.plain[label]
    head = (
        f"static void {label}_run({model.name}_state_t *state, const {ctype(tensors[source])} *x,"
        f" {ctype(tensors[op.output])} *y)"
    )
    return f"{c_op.constants}\n{head}\n{body(['(void)state;', c_op.step])}"


def session_type(model: HostModel) -> str:
    """Return the struct that a session begins with."""
    lines = [
        "int32_t streams, level;",
        "uint8_t *scratch;",
        "uint8_t *values;",
        "int64_t capacity;",
        f"{model.name}_state_t *generic;",
        *(f"uint8_t *{label};" for label in model.packed),
    ]
    return f"typedef struct {body(lines).rstrip()} {model.name}_session_t;\n"


def _row_bytes(tensor: Tensor) -> int:
    return per_step(tensor) * ITEM_BYTES[tensor.dtype]


def block_function(model: HostModel) -> str:
    """Return the function that runs all ops on a block of steps of every stream."""
    program, name = model.program, model.name
    lines = ["const int32_t streams = s->streams;", "uint8_t *free = s->values;", "(void)last;"]
    where = {program.input: ("x", "x_stride"), program.output: ("y", "y_stride")}
    for op, _ in model.ops:
        if op.output not in where:
            tensor, index = program.tensors[op.output], op.output
            steps = "1" if tensor.signal.kind == "vector" else "steps"
            lines += [
                f"const int64_t stride_{index} = (int64_t){steps} * {_row_bytes(tensor)};",
                f"uint8_t *v{index} = free;",
                f"free += (streams * stride_{index} + 63) & ~(int64_t)63;",
            ]
            where[index] = (f"v{index}", f"stride_{index}")
    for op, label in model.ops:
        lines += _op_call(model, op, label, where[op.inputs[0]], where[op.output])
    lines.append("(void)free;")
    head = (
        f"static void {name}_block({name}_session_t *s, int32_t steps, const uint8_t *x,\n"
        "    int64_t x_stride, uint8_t *y, int64_t y_stride, int32_t last)\n"
    )
    return head + body(lines)


def _op_call(
    model: HostModel, op: Op, label: str, source: tuple[str, str], target: tuple[str, str]
) -> list[str]:
    """Return the statements that run one op from ``source`` to ``target``: pointer, stride."""
    (x, x_stride), (y, y_stride) = source, target
    fed, made = model.program.tensors[op.inputs[0]], model.program.tensors[op.output]
    if label in model.packed:
        return [
            f"el_host_lstm(&{label}_data, s->level, s->{label}, streams, steps,",
            f"    (const int8_t *){x}, {x_stride}, (int8_t *){y}, {y_stride}, s->scratch);",
        ]
    streams = "for (int32_t n = 0; n < streams; n++)"
    if isinstance(op, LastStepOp):
        size = _row_bytes(made)
        from_ = f"{x} + n * {x_stride} + (int64_t)(steps - 1) * {size}"
        return [f"{streams} {{ memcpy({y} + n * {y_stride}, {from_}, {size}); }}"]
    vector = made.signal.kind == "vector"
    steps = "" if vector else "for (int32_t t = 0; t < steps; t++) "
    x_at, y_at = ("", "") if vector else (f" + t * {_row_bytes(fed)}", f" + t * {_row_bytes(made)}")
    x = f"(const {C_TYPES[fed.dtype]} *)(const void *)({x} + n * {x_stride}{x_at})"
    y = f"({C_TYPES[made.dtype]} *)(void *)({y} + n * {y_stride}{y_at})"
    call = f"{label}_run(s->generic + n, {x}, {y});"
    loop = f"{streams} {{ {steps}{{ {call} }} }}"
    return [f"if (last) {{ {loop} }}" if vector else loop]


def public_functions(model: HostModel) -> str:
    """Return what the shared library exports of a model that runs in blocks."""
    name, labels = model.name, list(model.packed)
    between = {op.output for op, _ in model.ops} - {model.program.output}
    value_bytes = sum(_row_bytes(model.program.tensors[i]) + 64 for i in between)
    sizes = [
        line
        for label in labels
        for line in (
            f"const int64_t {label}_bytes = streams * el_host_state_bytes(&{label}_data);",
            f"need = el_host_scratch_bytes(&{label}_data, streams);",
            "most = need > most ? need : most;",
        )
    ]
    places = [f"s->{label} = at;\n    at += {label}_bytes;" for label in labels]
    resets = [
        f"memcpy(s->{label} + n * el_host_state_bytes(&{label}_data), {label}_data_first,"
        f" sizeof {label}_data_first);"
        for label in labels
    ]
    own = [op.reset for op in model.plain.values() if op.reset]
    if own:
        resets += [f"{name}_state_t *state = s->generic + n;", *own]
    x_row, y_row = _row_bytes(model.input), _row_bytes(model.output)
    every = model.output.signal.kind == "sequence"
    cases = [f"case {k}: return s->{label};" for k, label in enumerate(labels)]
    return f"""\
EL_EXPORT int32_t el_level(void)
{{
    return el_host_best();
}}

EL_EXPORT void el_reset(void *session)
{{
    {name}_session_t *s = ({name}_session_t *)session;
    for (int32_t n = 0; n < s->streams; n++) {{
{indent(chr(10).join(resets), "        ")}
    }}
}}

EL_EXPORT void el_delete(void *session)
{{
    free((({name}_session_t *)session)->values);
    free(session);
}}

/* Return a session for some streams, or NULL for want of memory. */
EL_EXPORT void *el_new(int32_t streams, int32_t level)
{{
    int64_t most = 0, need = 0;
{indent(chr(10).join(sizes), "    ")}
    const int64_t head = ((int64_t)sizeof({name}_session_t) + 63) & ~(int64_t)63;
    const int64_t generic = (streams * (int64_t)sizeof({name}_state_t) + 63) & ~(int64_t)63;
    const int64_t total = head + generic + most + 64 + {" + ".join(f"{x}_bytes" for x in labels)};
    uint8_t *at = (uint8_t *)malloc((size_t)total);
    {name}_session_t *s = ({name}_session_t *)(void *)at;
    if (s == NULL) {{
        return NULL;
    }}
    s->streams = streams;
    s->level = level < 0 || level > el_host_best() ? el_host_best() : level;
    s->values = NULL;
    s->capacity = 0;
    at += head;
    s->generic = ({name}_state_t *)(void *)at;
    at += generic;
    s->scratch = at;
    at += (most + 63) & ~(int64_t)63;
{indent(chr(10).join(places), "    ")}
    (void)at;
    el_reset(s);
    return s;
}}

/* Run steps of every stream: x [streams][steps][{per_step(model.input)}]. Return 0, or 1 for want
 * of memory; then nothing has moved. */
EL_EXPORT int32_t el_run(void *session, const void *input, int32_t steps, void *output)
{{
    {name}_session_t *s = ({name}_session_t *)session;
    const uint8_t *x = (const uint8_t *)input;
    uint8_t *y = (uint8_t *)output;
    const int32_t block = {BLOCK_STEPS};
    const int64_t rows = s->streams * (int64_t)(block < steps ? block : steps);
    const int64_t wanted = rows * {value_bytes} + {64 * (len(between) + 1)};
    if (wanted > s->capacity) {{
        uint8_t *values = (uint8_t *)realloc(s->values, (size_t)wanted);
        if (values == NULL) {{
            return 1;
        }}
        s->values = values;
        s->capacity = wanted;
    }}
    for (int32_t first = 0; first < steps; first += block) {{
        const int32_t count = steps - first < block ? steps - first : block;
        {name}_block(s, count, x + (int64_t)first * {x_row}, (int64_t)steps * {x_row},
            y + {f"(int64_t)first * {y_row}" if every else "0"},
            {f"(int64_t)steps * {y_row}" if every else y_row}, first + count == steps);
    }}
    return 0;
}}

/* One step of every stream. */
EL_EXPORT int32_t el_step(void *session, const void *input, void *output)
{{
    return el_run(session, input, 1, output);
}}

/* The states of a packed layer, stream after stream; -1: of all other layers. */
EL_EXPORT void *el_memory(void *session, int32_t layer)
{{
    {name}_session_t *s = ({name}_session_t *)session;
    switch (layer) {{
{indent(chr(10).join(cases), "    ")}
    default: return s->generic;
    }}
}}

EL_EXPORT int32_t el_memory_bytes(void)
{{
    return (int32_t)sizeof({name}_state_t);
}}
"""


def plain_functions(model: CModel) -> str:
    """Return the firmware's functions, and what the shared library exports around them."""
    name = model.name
    x_row, y_row = _row_bytes(model.input), _row_bytes(model.output)
    vector = model.input.signal.kind == "vector"
    x_stride = str(x_row) if vector else f"(int64_t)steps * {x_row}"
    y_stride = f"(int64_t)steps * {y_row}" if model.every_step and not vector else str(y_row)
    limit = "" if model.max_steps is None else f"#define {name}_MAX_STEPS {model.max_steps}\n"
    return f"""\
{limit}typedef {ctype(model.input)} {name}_input_t;
typedef {ctype(model.output)} {name}_output_t;

{state_type(name, model.members)}
typedef struct {{
    int32_t streams;
    {name}_state_t states[];
}} {name}_session_t;

{chr(10).join(source_functions(model))}
EL_EXPORT int32_t el_level(void)
{{
    return 0;
}}

EL_EXPORT void el_reset(void *session)
{{
    {name}_session_t *s = ({name}_session_t *)session;
    for (int32_t n = 0; n < s->streams; n++) {{
        {name}_reset(s->states + n);
    }}
}}

EL_EXPORT void el_delete(void *session)
{{
    free(session);
}}

EL_EXPORT void *el_new(int32_t streams, int32_t level)
{{
    const size_t size = sizeof({name}_session_t) + (size_t)streams * sizeof({name}_state_t);
    {name}_session_t *s = ({name}_session_t *)malloc(size);
    (void)level;
    if (s != NULL) {{
        s->streams = streams;
        el_reset(s);
    }}
    return s;
}}

/* Run steps of every stream. Return 0, or 2 where the model does not take as many. */
EL_EXPORT int32_t el_run(void *session, const void *input, int32_t steps, void *output)
{{
    {name}_session_t *s = ({name}_session_t *)session;
    for (int32_t n = 0; n < s->streams; n++) {{
        const void *x = (const uint8_t *)input + n * {x_stride};
        void *y = (uint8_t *)output + n * {y_stride};
        if ({name}_run(s->states + n, (const {name}_input_t *)x, steps, ({name}_output_t *)y)) {{
            return 2;
        }}
    }}
    return 0;
}}

EL_EXPORT int32_t el_step(void *session, const void *input, void *output)
{{
    return el_run(session, input, 1, output);
}}

EL_EXPORT void *el_memory(void *session, int32_t layer)
{{
    (void)layer;
    return (({name}_session_t *)session)->states;
}}

EL_EXPORT int32_t el_memory_bytes(void)
{{
    return (int32_t)sizeof({name}_state_t);
}}
"""
