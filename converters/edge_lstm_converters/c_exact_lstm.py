"""LSTM of the interchange profiles in C: the bytes of the profile's own kernel.

The code is that of ``LstmKernel``, with what the profile decides decided here, and all sizes,
factors and zero points as constants.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import Array
from edge_lstm.cells.lstm_integer import (
    CELL,
    FORGET,
    INPUT,
    OUTPUT,
    TFLITE_PROFILES,
    LstmKernel,
    LstmOp,
    effective_projection_bias,
    layer_norm_factor,
    peephole_factor,
    projection_bound,
    projection_factor,
)
from edge_lstm.errors import UnsupportedModel
from edge_lstm.fixed_point import wrap32
from edge_lstm_converters.c_exact_rows import (
    GateRows,
    check_sums,
    loop,
    requantized,
)
from edge_lstm_converters.c_gemmlowp import TABLE
from edge_lstm_converters.c_parts import ACTIVATION, COp, Member, Place, array, fill

WORDS = {INPUT: "entrance", FORGET: "forget", CELL: "candidate", OUTPUT: "exit"}
PEEPHOLES = {INPUT: 0, FORGET: 1, OUTPUT: 2}
PRODUCT = 32767 * 32768
"""Greatest magnitude of a gate times an int16."""
TABLE_END = 65280
"""Where the interpolated tanh is saturated, in thirds of Q3.12."""


def emit_lstm(op: LstmOp, place: Place) -> COp:
    """Return one step of the LSTM, as the program's profile computes it."""
    try:
        kernel = LstmKernel(op, place.program, 1)
    except UnsupportedModel as cause:
        raise place.refuse("has no arithmetic in this profile", str(cause)) from cause
    if kernel.parameters.cell_power < -30:
        found = f"has a cell state in steps of 2**{kernel.parameters.cell_power}"
        raise place.refuse(found, "in C they must be 2**-30 at least; convert the model again")
    return _Lstm(op, place, kernel).emit()


class _Lstm:
    """What the parts of an emitted step share."""

    def __init__(self, op: LstmOp, place: Place, kernel: LstmKernel) -> None:
        profile, dtype = place.program.profile, place.source.dtype
        self.op, self.name, self.place = op, place.name, place
        self.parameters, self.wide = kernel.parameters, kernel.wide
        self.tflite, self.tflm = profile in TFLITE_PROFILES, profile.startswith("tflm")
        for weights in (op.input_weights, op.recurrent_weights):
            check_sums(weights, "int8", place)
        parameters = self.parameters
        self.input = GateRows(
            f"{self.name}_input",
            op.input_weights,
            parameters.input_bias,
            parameters.input_factors,
            dtype,
        )
        self.recurrent = GateRows(
            f"{self.name}_recurrent",
            op.recurrent_weights,
            parameters.recurrent_bias,
            parameters.recurrent_factors,
            dtype,
            op.hidden_zero_point,
        )

    def emit(self) -> COp:
        op, name = self.op, self.name
        kernels = ["el_fixed_point.h", *self.input.kernels, *self.recurrent.kernels]
        kernels += [TABLE, "el_gemmlowp_s16.h"] if self.tflite else ["el_interpolated.h"]
        constants = [self.input.constants(), self.recurrent.constants()]
        members = [
            Member(self.recurrent.value_type, f"{name}_hidden", self.recurrent.columns),
            Member("int16_t", f"{name}_cell", op.cell_count),
        ]
        reset = [self._first("hidden", op.initial_hidden, constants)]
        reset.append(self._first("cell", op.initial_cell, constants))
        if self.input.paired:
            members.append(Member(ACTIVATION, f"{name}_x", self.input.columns))
            if self.input.columns > op.input_size:
                reset.append(f"state->{name}_x[{op.input_size}] = 0;")
        if op.peephole is not None:
            constants.append(array("int16_t", f"{name}_peephole", op.peephole))
        if op.layer_norm is not None:
            kernels.append("el_layer_norm.h")
            members.append(Member("int16_t", f"{name}_gates", op.layer_norm.size))
            constants.append(array("int16_t", f"{name}_norm", op.layer_norm))
            constants.append(array("int32_t", f"{name}_norm_bias", op.bias))
        macs = op.input_weights.size + op.recurrent_weights.size
        if op.projection_weights is not None:
            macs += op.projection_weights.size
            check_sums(op.projection_weights, "int8", self.place)
            kernels.append("el_rows.h")
            members.append(Member("int8_t", f"{name}_product", op.cell_count))
            constants.append(array("int8_t", f"{name}_projection", op.projection_weights))
            bias = wrap32(effective_projection_bias(op))
            constants.append(array("int32_t", f"{name}_projection_bias", bias))
        return COp(
            step=self._step(),
            kernels=tuple(dict.fromkeys(kernels)),
            constants="".join(constants),
            members=tuple(members),
            reset="\n".join(reset),
            macs=macs,
        )

    def _first(self, what: str, values: Array, constants: list[str]) -> str:
        """Return the statements that set a member to its first values."""
        member, size, ctype = f"{self.name}_{what}", len(values), "int16_t"
        if what == "hidden":
            size, ctype = self.recurrent.columns, self.recurrent.value_type
            values = values.astype(np.int64) - self.recurrent.offset
        if len(set(values.tolist())) == 1:
            return fill(f"state->{member}", size, str(values[0]))
        padded = np.zeros(size, np.int16)
        padded[: len(values)] = values
        constants.append(array(ctype, f"{member}_first", padded))
        return fill(f"state->{member}", size, f"{member}_first[k]")

    def _step(self) -> str:
        op, name = self.op, self.name
        lines = []
        if self.input.paired:
            lines.append(fill(f"state->{name}_x", op.input_size, "x[k]"))
        lines.append(self._normalized() if op.layer_norm is not None else self._plain())
        if op.projection_weights is not None:
            lines.append(self._projection())
        value = "y[k]"
        if self.recurrent.offset:
            value = f"(el_activation_t)(y[k] - {self.recurrent.offset})"
        lines.append(fill(f"state->{name}_hidden", op.output_size, value))
        return "\n".join(lines)

    def _sums(self) -> str:
        values = f"state->{self.name}_x" if self.input.paired else "x"
        return f"{self.input.sums(values)}\n{self.recurrent.sums(f'state->{self.name}_hidden')}"

    def _plain(self) -> str:
        """Return the loop over units where a unit needs nothing of the others."""
        before = [self._read_cell(), self._sums()]
        for gate in self._gates():
            before += [self._pre_activation(gate), self._peephole(gate)]
            word = WORDS[gate]
            before.append(f"{word} = {self._squash(gate, word)};")
        after = [
            self._coupled(),
            self._cell_update(),
            self._pre_activation(OUTPUT),
            self._peephole(OUTPUT),
            f"exit = {self._squash(OUTPUT, 'exit')};",
            self._hidden(),
        ]
        return self._units(before + after)

    def _normalized(self) -> str:
        """Return the loops over units with layer normalization between them."""
        count, gates = self.op.cell_count, f"state->{self.name}_gates"

        def read(gate: int) -> str:
            value = f"{gates}[{gate * count} + u]"
            return f"const int32_t {WORDS[gate]} = {self._squash(gate, value)};"

        sums = [self._read_cell() if self.op.peephole is not None else "", self._sums()]
        for gate in (*self._gates(), OUTPUT):
            sums.append(self._pre_activation(gate))
            sums.append("" if gate == OUTPUT else self._peephole(gate))
            sums.append(f"{gates}[{gate * count} + u] = (int16_t){WORDS[gate]};")
        update = [self._read_cell(), *map(read, self._gates())]
        update += [self._coupled(), self._cell_update()]
        peephole = self._peephole(OUTPUT)
        if peephole:
            place = f"{gates}[{OUTPUT * count} + u]"
            update += [f"int32_t exit = {place};", peephole, f"{place} = (int16_t)exit;"]
        close = [read(OUTPUT)]
        if self.parameters.cell_tanh is None:
            close += [read(FORGET), self._coupled()] if self.op.coupled else [read(INPUT)]
        else:
            close.append(self._read_cell())
        return "\n".join(
            [
                self._units(sums),
                *map(self._norm, self._gates()),
                self._units(update),
                self._norm(OUTPUT),
                self._units([*close, self._hidden()]),
            ]
        )

    def _gates(self) -> tuple[int, ...]:
        """The gates that are needed before the cell state moves."""
        return (FORGET, CELL) if self.op.coupled else (FORGET, CELL, INPUT)

    def _units(self, lines: list[str]) -> str:
        return loop("u", self.op.cell_count, "\n".join(line for line in lines if line))

    def _read_cell(self) -> str:
        return f"int32_t cell = state->{self.name}_cell[u];"

    def _pre_activation(self, gate: int) -> str:
        """Return the statement that declares a gate's pre-activation, Q3.12."""
        from_input = f"el_saturate_s16({self.input.term(gate)})"
        recurrent = self.recurrent.term(gate)
        if self.tflm:
            recurrent = f"el_saturate_s16({recurrent})"
        elif not self.recurrent.term_is_small(gate):
            recurrent = f"el_saturate({recurrent}, -65536, 65536)"
        return f"int32_t {WORDS[gate]} = el_saturate_s16(\n    {from_input}\n    + {recurrent});"

    def _peephole(self, gate: int) -> str:
        """Return the statement that adds the cell's share to a pre-activation, if there is one."""
        row, op = PEEPHOLES.get(gate), self.op
        if op.peephole is None or row is None:
            return ""
        factor = peephole_factor(op, gate, self.parameters.cell_power)
        value = f"{self.name}_peephole[{row * op.cell_count} + u] * cell"
        term = f"el_saturate({requantized(value, factor)}, -65536, 65536)"
        line = f"{WORDS[gate]} = el_saturate_s16({WORDS[gate]} + {term});"
        if op.output_size < op.cell_count:
            # The kernel takes the output's size for the number of cells.
            return f"if (u < {op.output_size}) {{\n    {line}\n}}"
        return line

    def _squash(self, gate: int, value: str) -> str:
        if gate == CELL:
            if self.tflite:
                return f"el_gemmlowp_tanh({value}, 3)"
            return f"el_interpolated_tanh(3 * {value})"
        if self.tflite:
            return f"el_gemmlowp_sigmoid({value})"
        return f"el_interpolated_sigmoid(3 * {value})"

    def _norm(self, gate: int) -> str:
        op, name, count = self.op, self.name, self.op.cell_count
        assert op.layer_norm_scales is not None
        start = gate * count
        least = max(1, int(np.float32(10000 * float(op.layer_norm_scales[gate]))))
        multiplier, shift = layer_norm_factor(op, gate)
        return (
            f"el_layer_norm(state->{name}_gates + {start}, {count}, {2**20 // count},\n"
            f"    {name}_norm + {start}, {name}_norm_bias + {start}, {least},\n"
            f"    {multiplier}, {shift});"
        )

    def _coupled(self) -> str:
        return "const int32_t entrance = 32767 - forget;" if self.op.coupled else ""

    def _cell_update(self) -> str:
        """Return the statements that move the cell state."""
        parameters, power = self.parameters, self.parameters.cell_power
        kept, added = "forget * cell", "entrance * candidate"
        if self.tflite:
            kept = f"el_divide_small_by_pot({kept}, 15)"
            # A product is 2**30 at most; 31 and more places leave nothing of it.
            divide = "el_divide_small_by_pot" if power <= 0 else "el_rounding_divide_by_pot"
            added = f"{divide}({added}, {min(30 + power, 31)})"
            added = f"(int16_t){added}" if power < -15 else added
        else:
            kept = requantized(kept, parameters.forget_cell_factor, PRODUCT)
            added = requantized(added, parameters.input_cell_factor, PRODUCT)
            # With a shift of 15 places and more it fits as it is.
            if self.tflm and parameters.input_cell_factor.shift > -14:
                added = f"el_saturate_s16({added})"
        bound, total = parameters.cell_clip, f"{kept}\n    + {added}"
        limited = f"el_saturate_s16({total})"
        if bound > 0:
            limited = f"el_saturate({total}, -{bound}, {bound})"
        return f"cell = {limited};\nstate->{self.name}_cell[u] = (int16_t)cell;"

    def _hidden(self) -> str:
        """Return the statement that makes a unit's output from its gate ``exit``."""
        op, parameters = self.op, self.parameters
        product = requantized(f"exit * {self._squashed_cell()}", parameters.hidden_factor, PRODUCT)
        if op.projection_weights is not None:
            # Minus here, and plus in the effective bias: the signs of the kernel.
            value = f"{product} - {op.product_zero_point}"
            target = f"state->{self.name}_product"
        else:
            zero_point = op.product_zero_point if self.tflite else op.hidden_zero_point
            value, target = f"{product} + {zero_point}", "y"
        if self.wide:
            return f"{target}[u] = (int16_t)el_saturate_s16({value});"
        return f"{target}[u] = (int8_t)el_saturate_s8({value});"

    def _squashed_cell(self) -> str:
        power = self.parameters.cell_power
        if self.parameters.cell_tanh is None:
            return "entrance"  # the kernel's buffer that tanh was meant to overwrite
        if self.tflite:
            return f"el_gemmlowp_tanh(cell, {15 + power})"
        if power < -12:
            right = min(-12 - power, 20)  # nothing is left of 17 bits
            return f"el_interpolated_tanh((3 * cell + {1 << (right - 1)}) >> {right})"
        left = min(12 + power, 20)
        bound = (TABLE_END // 3 >> left) + 1
        value = "cell" if left < 14 else f"el_saturate(cell, -{bound}, {bound})"
        return f"el_interpolated_tanh({3 << left} * {value})"

    def _projection(self) -> str:
        op, name = self.op, self.name
        assert op.projection_weights is not None
        weights, values = f"{name}_projection + k * {op.cell_count}", f"state->{name}_product"
        acc = f"el_row({weights}, {values}, {op.cell_count})"
        acc = f"el_wrap_add({acc}, {name}_projection_bias[k])"
        value = f"el_offset({requantized(acc, projection_factor(op))}, {op.hidden_zero_point})"
        value = f"el_saturate_s8({value})"
        if op.projection_clip > 0:
            bound = projection_bound(op)
            value = f"el_saturate({value}, -{bound}, {bound})"
        return loop("k", op.output_size, f"y[k] = (int8_t){value};")
