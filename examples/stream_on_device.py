"""Forecast from a stream of sensor readings, hour by hour, with NumPy alone.

    edge-lstm convert model.pt --layers layers.toml --calib calibration.npz -o out --name weather
    python examples/stream_on_device.py out/weather.elstm test.npz

The first command runs on a desk, in a copy of benchmarks/edge_lstm_benchmarks/models/weather; the
second is what a device runs. It needs the packages numpy and edge-lstm, and nothing else. In the
middle of the day the power fails: the state, 96 bytes for this model, is written to a file and read
back, and the forecast has the same bytes as without the failure.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import edge_lstm


def main(model: str, data: str) -> None:
    """Print a forecast after each hour of one day, and what a step costs."""
    program = edge_lstm.load(model)
    session = program.session()
    with np.load(data) as file:
        day, mean, std = file["x"][700].astype(np.float32), file["y_mean"], file["y_std"]
    for hour, reading in enumerate(day):
        if hour == 12:
            session = after_power_failure(program, session)
        y = session.step(reading[None])  # [1, features] in, [1, 1] out: degrees, standardised
        print(f"hour {hour:2}: in six hours {float(y[0, 0] * std + mean):5.1f} °C")
    assert np.array_equal(y, program.predict(day[None]))

    readings = program.input_tensor.quantize(day)  # a driver may give int8 at once
    took = []
    for reading in np.tile(readings, (100, 1))[:, None]:
        start = time.perf_counter_ns()
        session.step(reading)
        took.append(time.perf_counter_ns() - start)
    print(f"{np.median(took) / 1000:.1f} microseconds a step, the median of {len(took)}")


def after_power_failure(
    program: edge_lstm.Program, session: edge_lstm.Session
) -> edge_lstm.Session:
    """Return a new session with the state of an old one, by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.npz"
        np.savez(path, **session.state)  # type: ignore[arg-type]
        print(f"         power failure; {sum(v.nbytes for v in session.state.values())} bytes kept")
        restarted = program.session()
        with np.load(path) as state:
            restarted.state = dict(state)
    return restarted


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
