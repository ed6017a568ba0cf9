"""An Embedding in front of a recurrent layer, with features of one range for the `edge` profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import F64
from edge_lstm.cells.embedding import Embedding
from edge_lstm.cells.gru import Gru
from edge_lstm.cells.lstm import Gate, Lstm
from edge_lstm.cells.rnn import Rnn
from edge_lstm.program import Range
from edge_lstm.spec import Layer


def even_embedding(
    layers: tuple[Layer, ...], ranges: Mapping[str, Range]
) -> tuple[tuple[Layer, ...], dict[str, Range]]:
    """Return the layers with an Embedding's features stretched to one magnitude.

    A table has one scale, so that small features have few of its 8 bits. What a feature is
    stretched by, the weights that read it are divided by: the same function, with less error.
    """
    known = dict(ranges)
    if len(layers) < 2 or not isinstance(layers[0], Embedding):
        return layers, known
    table, reader = layers[0].table, layers[1]
    largest = np.abs(table).max(axis=0).astype(np.float64)
    # A feature that is always 0 stays.
    factor: F64 = np.where(largest > 0, largest / max(float(largest.max()), 1e-30), 1.0)

    def fed_evenly(gate: Gate) -> Gate:
        return replace(gate, input_weights=(gate.input_weights * factor).astype(np.float32))

    if isinstance(reader, Rnn):
        reader = replace(reader, gate=fed_evenly(reader.gate))
    elif isinstance(reader, Gru):
        z, r, n = (fed_evenly(gate) for gate in reader.gates)
        reader = replace(reader, gates=(z, r, n))
    elif isinstance(reader, Lstm):
        i, f, g, o = (fed_evenly(gate) for gate in reader.gates)
        reader = replace(reader, gates=(i, f, g, o))
    else:
        return layers, known
    even = replace(layers[0], table=(table / factor).astype(np.float32))
    name = f"{even.name}.output"
    if name in known and (moments := known[name].moments) is not None:
        stretch = np.append(1 / factor, 1.0)
        known[name] = replace(known[name], moments=moments * np.outer(stretch, stretch))
    return (even, reader, *layers[2:]), known
