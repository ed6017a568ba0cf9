"""What ``verify`` found: records, and how they are shown as text and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from edge_lstm.errors import MissingTool
from edge_lstm.inspection import columns
from edge_lstm_benchmarks.verify_difference import Difference, difference_lines
from edge_lstm_benchmarks.verify_inputs import Form, Inputs

SCHEMA = "edge-lstm.verify/1"


@dataclass(frozen=True)
class RunnerRecord:
    """One runner: ``reason`` says why it did not run, ``partly`` what it did not run."""

    name: str
    kind: str
    profile: str | None
    version: str | None = None
    checksum: str | None = None
    reason: str | None = None
    partly: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """Two runners that must give the same bytes; ``reason`` says why they were not compared.

    ``kind``: ``interpreter`` (a profile against what it mirrors), ``c`` (against its generated C),
    or ``steps`` (the NumPy runtime step by step against whole calls).
    """

    kind: str
    got_from: str
    want_from: str
    differing_bytes: int | None
    bytes: int
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class VerifyReport:
    """What was run, who equals whom, and where those part that must not."""

    model: str
    inputs: Inputs
    forms: tuple[Form, ...]
    runners: tuple[RunnerRecord, ...]
    matrix: tuple[tuple[tuple[int, int] | None, ...], ...]
    checks: tuple[Check, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    missing: tuple[str, ...] = ()
    """Interpreters that were asked for by name and are not installed."""

    @property
    def passed(self) -> bool:
        """Whether no byte differs that must not."""
        return not any(check.differing_bytes for check in self.checks)

    @property
    def interpreters_held(self) -> int:
        """How many interpreters were held against the profile that mirrors them."""
        return self._held("interpreter")

    def _held(self, kind: str) -> int:
        return sum(c.kind == kind and c.differing_bytes is not None for c in self.checks)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        if not self.passed:
            return 1
        return MissingTool.exit_code if self.missing else 0

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        return {
            "schema": SCHEMA,
            "compares": "runtimes",
            "passed": self.passed,
            "model": self.model,
            "inputs": describe_inputs(self.inputs),
            "forms": [
                {
                    "name": form.name,
                    "batch_size": form.batch_size,
                    "time_steps": form.time_steps,
                    "own_file": form.data is not None,
                }
                for form in self.forms
            ],
            "runners": [vars(record) for record in self.runners],
            "matrix": [
                [None if cell is None else {"differing": cell[0], "bytes": cell[1]} for cell in row]
                for row in self.matrix
            ],
            "interpreters_held": self.interpreters_held,
            "checks": [vars(check) for check in self.checks],
            "differences": [difference.document() for difference in self.differences],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the report as text."""
        lines = [
            f"{self.model}: {len(self.inputs.x)} sequences of up to {self.inputs.lengths.max()}"
            f" steps ({self.inputs.where})",
            *(f"  called as {form}" for form in self.forms),
            "",
            *self._matrix_lines(),
            "",
            *(f"not run: {r.name}: {r.reason}" for r in self.runners if r.reason),
            *(f"partly run: {r.name}: {what}" for r in self.runners for what in r.partly),
            *(f"warning: {text}" for text in self.warnings),
            *(f"note: {text}" for text in self.notes),
        ]
        lines += self._check_lines()
        for difference in self.differences:
            lines += ["", *difference_lines(difference)]
        lines += ["", self._verdict()]
        return "\n".join(lines)

    def _check_lines(self) -> Iterator[str]:
        for check in self.checks:
            if check.differing_bytes is None:
                yield f"not held: {check.got_from} = {check.want_from}: one of them did not run"
            elif check.kind != "steps" or check.differing_bytes:
                word = "differs" if check.differing_bytes else "equal"
                yield (
                    f"{word}: {check.got_from} = {check.want_from}:"
                    f" {check.differing_bytes:,} of {check.bytes:,} bytes differ"
                )
        steps = [c for c in self.checks if c.kind == "steps" and not c.differing_bytes]
        if steps:
            plural = "s" if len(steps) > 1 else ""
            yield f"equal: step by step = whole calls, under {len(steps)} profile{plural}"

    def _verdict(self) -> str:
        if not self.passed:
            return "FAILED: a profile does not give the bytes of what it mirrors."
        if self.missing:
            return f"NOT PROVEN: {', '.join(self.missing)} was asked for and is not installed."
        count, compiled = self.interpreters_held, self._held("c")
        of_c = f"the generated C of {compiled} profile{'s' if compiled > 1 else ''}"
        if count == 0 and compiled:
            return f"Passed: no byte differs from {of_c}; no interpreter was compared."
        if count == 0:
            return "Nothing proven about interpreters: none of them was compared."
        also = f" and from {of_c}" if compiled else ""
        return f"Passed: no byte differs from {count} interpreter{'s' if count > 1 else ''}{also}."

    def _matrix_lines(self) -> Iterator[str]:
        ran = [k for k, record in enumerate(self.runners) if record.reason is None]
        if not ran:
            return
        most = max(cell[1] for k in ran for cell in self.matrix[k] if cell is not None)
        rows = [("", f"bytes that differ, of {most:,}", *(str(n) for n in range(1, len(ran) + 1)))]
        for number, k in enumerate(ran, 1):
            record = self.runners[k]
            name = record.name if record.version is None else f"{record.name} {record.version}"
            cells = (_cell(self.matrix[k][other], k == other, most) for other in ran)
            rows.append((str(number), name, *cells))
        yield from columns(rows)


def _cell(cell: tuple[int, int] | None, diagonal: bool, most: int) -> str:
    if diagonal:
        return "."
    if cell is None:
        return "-"
    return f"{cell[0]:,}" if cell[1] == most else f"{cell[0]:,}/{cell[1]:,}"


def describe_inputs(inputs: Inputs) -> dict[str, Any]:
    """Return what was fed, as JSON has it."""
    return {
        "from": inputs.where,
        "sequences": list(inputs.names),
        "steps": [int(n) for n in inputs.lengths],
        "dtype": str(inputs.x.dtype),
        "shape": list(inputs.x.shape),
    }


@dataclass(frozen=True)
class ProfileCount:
    """Bytes that differ under one profile; ``reason`` says why it was not run."""

    profile: str
    differing_bytes: int | None
    bytes: int
    reason: str | None = None


@dataclass(frozen=True)
class LargestError:
    """Where two files are furthest apart."""

    sequence: str
    step: int
    index: int
    got: float
    want: float


@dataclass(frozen=True, eq=False)
class FileComparison:
    """Two files, how they were compared, and what was found.

    Args:
        names: the files; the first one is the reference.
        inputs: what both were fed.
        profiles: counts of bytes, where bytes were compared.
        snr_db: of the second file's outputs, where real numbers were compared.
        min_snr_db: the least that passes.
        largest_error: likewise.
        differences: of bytes, the first one of each profile.
        notes: why real numbers, and what was left out.
    """

    names: tuple[str, str]
    inputs: Inputs
    profiles: tuple[ProfileCount, ...] = ()
    snr_db: float | None = None
    min_snr_db: float | None = None
    largest_error: LargestError | None = None
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no byte differs, or the SNR is large enough."""
        if self.snr_db is not None and self.min_snr_db is not None:
            return self.snr_db >= self.min_snr_db
        return not any(count.differing_bytes for count in self.profiles)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return 0 if self.passed else 1

    def document(self) -> dict[str, Any]:
        """Return the comparison as one JSON document."""
        return {
            "schema": SCHEMA,
            "compares": "files",
            "how": "bytes" if self.snr_db is None else "snr",
            "passed": self.passed,
            "models": list(self.names),
            "inputs": describe_inputs(self.inputs),
            "profiles": [vars(count) for count in self.profiles],
            "snr_db": self.snr_db,
            "min_snr_db": self.min_snr_db,
            "largest_error": None if self.largest_error is None else vars(self.largest_error),
            "differences": [difference.document() for difference in self.differences],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the comparison as text."""
        first, second = self.names
        lines = [
            f"{second} against {first}: {len(self.inputs.x)} sequences of up to"
            f" {self.inputs.lengths.max()} steps ({self.inputs.where})",
            "",
        ]
        for count in self.profiles:
            if count.differing_bytes is None:
                lines.append(f"  profile {count.profile}: not run: {count.reason}")
            else:
                lines.append(
                    f"  profile {count.profile}: {count.differing_bytes:,} of {count.bytes:,}"
                    " bytes differ"
                )
        if self.snr_db is not None:
            lines.append(f"  SNR {self.snr_db:.1f} dB; want at least {self.min_snr_db:g} dB")
        error = self.largest_error
        if error is not None:
            lines.append(
                f"  largest error: {error.sequence}, step {error.step}, index {error.index}:"
                f" got {error.got:.6g}, want {error.want:.6g}"
            )
        for difference in self.differences:
            lines += ["", *difference_lines(difference)]
        lines += [f"note: {note}" for note in self.notes]
        how = "byte for byte" if self.snr_db is None else "within the SNR"
        lines += ["", f"Passed: equal {how}." if self.passed else "FAILED: the files differ."]
        return "\n".join(lines)
