"""What a benchmark found, as records: one backend on one model, and what is known of the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Latency:
    """Microseconds of one call; ``n`` calls were timed."""

    min: float
    p50: float
    p90: float
    p99: float
    n: int


@dataclass(frozen=True)
class Timing:
    """How far the latency can be trusted.

    Args:
        rounds: visits of the backend.
        median_interval_us: 95 % confidence interval of the median over rounds; None below 6 rounds.
        spread: p10 to p90 of the rounds' medians, over their median.
        processor_share: processor time over time on the wall, while the calls ran.
        stable: whether measuring ended because the median was known well enough.
        noise: what disturbed the measurement, or None.
        edges_us: of the latency histogram's bins, in equal ratios.
        counts: calls in each bin.
    """

    rounds: int
    median_interval_us: tuple[float, float] | None
    spread: float
    processor_share: float | None
    stable: bool
    noise: str | None = None
    edges_us: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class ColdStart:
    """Milliseconds from nothing to the first result, in a fresh process; medians of ``runs``.

    Args:
        total_ms: from the start of the process to its first result.
        load_ms: of those, importing the engine and loading the model.
        first_ms: of those, the first call.
        runs: processes that were started.
    """

    total_ms: float
    load_ms: float
    first_ms: float
    runs: int


@dataclass(frozen=True)
class Counted:
    """What one time step costs where there is no clock: under emulation, or by an estimate.

    Args:
        how: ``emulated``, or ``estimated`` by whom.
        unit: what is counted, such as ``instructions`` or ``cycles``.
        per_step: of one time step, the mean over what was run.
        flash_bytes: code and constants, or None.
        ram_bytes: state, buffers and stack, or None.
    """

    how: str
    unit: str
    per_step: float
    flash_bytes: int | None = None
    ram_bytes: int | None = None


@dataclass(frozen=True)
class Accuracy:
    """The task metric, and its difference from the float model on the same data.

    Args:
        metric: its name.
        value: over all rows of data.
        delta_vs_float: ``value`` minus that of the float reference.
        delta_interval: 95 % confidence interval of that, from a paired bootstrap over sequences.
        higher_is_better: which way the metric points.
    """

    metric: str
    value: float
    delta_vs_float: float | None = None
    delta_interval: tuple[float, float] | None = None
    higher_is_better: bool = True


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the float model; and with the profile that must be equal, in bytes.

    Args:
        snr_db: signal to noise, 999 where nothing differs.
        cosine: of all outputs.
        labels_same: share; None where outputs are no labels.
        differing_bytes: None where no profile is named, or for the runtime that defines it.
        steps_from_profile: how many outputs are so many integers above the profile's.
        steps_from_float: the same, above the float model's outputs rounded to this scale.
    """

    snr_db: float | None = None
    cosine: float | None = None
    labels_same: float | None = None
    differing_bytes: int | None = None
    steps_from_profile: dict[str, int] | None = None
    steps_from_float: dict[str, int] | None = None


@dataclass(frozen=True)
class Result:
    """One backend on one model; ``skipped_reason`` says why there are no numbers.

    Args:
        model: its name.
        backend: its row in BACKENDS.
        profile: whose bytes it must give, or None.
        precision: ``int8`` or ``float32``.
        version: of the engine.
        ran_on: which of its parts ran what, where it can tell.
        scenario: ``stream``, ``sequence`` or ``batch:N``.
        steps_per_call: time steps of one timed call.
        latency_us: of one call.
        timing: how far ``latency_us`` can be trusted.
        steps_per_s: steps of all rows together, over the time inside the timer.
        real_time: times faster than the signal comes in, where its rate is known.
        counted: instead of a latency, where there is no clock.
        sequences: those that were run, where not all were.
        cold_start: of a fresh process.
        peak_memory_bytes: largest resident size of that fresh process after its first result.
        base_memory_bytes: the same before the engine was imported: Python and NumPy.
        size_bytes: the model in the engine's own format.
        package_bytes: of the installed packages that the engine needs.
        packages: their names.
        accuracy: None without labels or targets.
        fidelity: None where there is nothing to compare with.
        output_bytes: how many there are.
        output_checksum: of all valid outputs.
        warning: what makes the numbers doubtful.
        skipped_reason: one line.
    """

    model: str
    backend: str
    profile: str | None
    precision: str
    scenario: str
    version: str | None = None
    ran_on: str | None = None
    steps_per_call: int | None = None
    latency_us: Latency | None = None
    timing: Timing | None = None
    steps_per_s: float | None = None
    real_time: float | None = None
    counted: Counted | None = None
    sequences: int | None = None
    cold_start: ColdStart | None = None
    peak_memory_bytes: int | None = None
    base_memory_bytes: int | None = None
    size_bytes: int | None = None
    package_bytes: int | None = None
    packages: tuple[str, ...] = ()
    accuracy: Accuracy | None = None
    fidelity: Fidelity | None = None
    output_bytes: int | None = None
    output_checksum: str | None = None
    warning: str | None = None
    skipped_reason: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        record = asdict(self)
        record["memory"] = {
            "peak_rss_bytes": record.pop("peak_memory_bytes"),
            "base_rss_bytes": record.pop("base_memory_bytes"),
        }
        record["size"] = {
            "model_bytes": record.pop("size_bytes"),
            "package_bytes": record.pop("package_bytes"),
            "packages": record.pop("packages"),
        }
        found: dict[str, Any] = plain_json(record)
        return found


@dataclass(frozen=True)
class SignalFidelity:
    """One signal inside the model, in integers against float.

    Args:
        name: of the tensor or, within a recurrent layer, of the gate or state.
        kind: ``input``, ``output`` (of a layer), ``gate`` (its value after sigmoid or tanh) or
            ``state``.
        snr_db: signal to noise, 999 where nothing differs.
        cosine: of all values.
        saturated: integers at the end of their range; of a gate, of what goes into its function.
        values: how many there are.
        error_over_time: at each of ``Analysis.steps``, the root mean square of the difference
            over that of the signal; empty where the signal has no time.
    """

    name: str
    kind: str
    snr_db: float
    cosine: float
    saturated: int
    values: int
    error_over_time: tuple[float, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """What quantization costs inside the model.

    Args:
        profile: whose arithmetic ran.
        sequences: how many were run.
        steps: the time steps of ``error_over_time``, from 0.
        signals: in order of computation.
    """

    profile: str
    sequences: int
    steps: tuple[int, ...]
    signals: tuple[SignalFidelity, ...]


@dataclass(frozen=True)
class BitExactness:
    """Differing output bytes of each pair of backends; None where their types differ."""

    backends: tuple[str, ...]
    differing_bytes: tuple[tuple[int | None, ...], ...]

    def groups(self) -> list[tuple[str, ...]]:
        """Return the backends that give the same bytes, together; those alone left out."""
        left, found = list(range(len(self.backends))), []
        while left:
            same = [other for other in left if self.differing_bytes[left[0]][other] == 0]
            left = [other for other in left if other not in same]
            if len(same) > 1:
                found.append(tuple(self.backends[number] for number in same))
        return found


@dataclass(frozen=True)
class ModelRecord:
    """What was measured: a model, and the data it was fed."""

    name: str
    parameters: int | None
    weight_bytes: int | None
    sequences: int
    time_steps: int
    data: str
    input_checksum: str | None = None
    analysis: Analysis | None = None
    bit_exactness: BitExactness | None = None


def plain_json(value: Any) -> Any:
    """Return ``value`` as a JSON parser gives it back: lists, and null for what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    return value
