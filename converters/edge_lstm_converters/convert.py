"""The whole road: a model file in; ONNX, TFLite, a Program and a manifest out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import edge_lstm
from edge_lstm import program_file
from edge_lstm.calibrate import calibrate
from edge_lstm.cells.lstm_integer import TFLITE_PROFILES
from edge_lstm.errors import MissingTool, UnsupportedModel, UsageError
from edge_lstm.files import read_bytes, write_atomically
from edge_lstm.program import EDGE, Program, Range
from edge_lstm.quantize import quantize
from edge_lstm.samples import Samples, load_samples
from edge_lstm.spec import ModelSpec, identifier
from edge_lstm_converters import read
from edge_lstm_converters.publish import all_or_nothing, file_bytes, files_of

Target = Literal["onnx", "tflite", "elstm", "c", "tflm", "native"]
TARGETS: tuple[Target, ...] = ("onnx", "tflite", "elstm", "c", "tflm", "native")
COMPILED: frozenset[str] = frozenset({"c", "native"})
FOLDERS = COMPILED | {"tflm"}
"""Written only when asked for."""
Quant = Literal["int8", "int16x8", "float32"]
QUANTS: tuple[Quant, ...] = ("int8", "int16x8", "float32")
MANIFEST_SCHEMA = "edge-lstm.manifest/1"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ConvertOptions:
    """What to make of a model.

    Args:
        targets: formats to write; empty: all files that the model and ``quant`` allow, with a
            note of what is left out and why.
        calibration: data file; needed to quantize a float model.
        quant: precision of the ``.tflite`` and whether there is an ``.elstm``.
        profile: whose arithmetic the ``.elstm`` and the C have; None: that of an ``.elstm`` given,
            ``edge`` where C or native code alone is asked for, else ``tflm``.
        time_steps: steps of one call of the ``.tflite``, 1 for streaming, and the most that C
            takes of a model that needs whole sequences. None: the model's own, else the
            calibration data's, else for C those of a ``.tflite``'s input.
        layers: layer configuration, for state dicts.
        name: of the model and its files; None: the input's stem.
        check: hold the model against its own framework, see ``check``; None: where that can be.
    """

    targets: tuple[str, ...] = ()
    calibration: Path | None = None
    quant: Quant = "int8"
    profile: str | None = None
    time_steps: int | None = None
    layers: Path | None = None
    name: str | None = None
    check: bool | None = None


@dataclass(frozen=True, eq=False)
class Converted:
    """What ``convert`` made."""

    name: str
    files: dict[str, Path]
    manifest: dict[str, Any]
    spec: ModelSpec | None = None
    program: Program | None = None
    notes: list[str] = field(default_factory=list)


def check_quant(quant: str) -> Quant:
    """Return ``quant``, or raise UsageError with the precisions that exist."""
    for known in QUANTS:
        if quant == known:
            return known
    raise UsageError(f"--quant {quant}: unknown; give one of {', '.join(QUANTS)}")


def convert(
    model: Path, folder: Path, options: ConvertOptions, progress: Progress | None = None
) -> Converted:
    """Read ``model`` and write all that ``options`` asks for into ``folder``, or nothing.

    Raises:
        ModelError: the model cannot be read or converted.
        UsageError: the options or the calibration data do not fit.
        MismatchError: the model's own framework computes something else.
        OutputError: ``folder`` cannot be written.
    """
    source = _read(model, options)
    name = identifier(model.stem) if options.name is None else options.name
    if name != identifier(name):
        raise UsageError(f"--name {name}: must be a C identifier, such as {identifier(name)}")
    source = replace(source, name=name)
    targets = _targets(source, options)
    samples = None if options.calibration is None else load_samples(options.calibration)
    spec = source if isinstance(source, ModelSpec) else None
    ranges: dict[str, Range] = {}
    program: Program | None
    if spec is None:
        assert isinstance(source, Program)
        program = source
    elif options.quant != "float32" and targets - {"onnx"}:
        if samples is None:
            raise UsageError(
                f"{model}: {options.quant} needs data to take scales from; give --calib X.npz"
                f" with x of {spec.input}, or --quant float32"
            )
        report = None if progress is None else lambda n, total: progress("calibrate", n, total)
        ranges = calibrate(spec, samples.x, samples.lengths, report)
        dtype: Literal["int8", "int16"] = "int16" if options.quant == "int16x8" else "int8"
        profile = options.profile or (EDGE if targets <= COMPILED else "tflm")
        program = quantize(spec, ranges, profile, dtype)
    else:
        program = None
    time_steps = _time_steps(source, options, samples, program)
    most_steps = options.time_steps or source.time_steps or _seen_steps(samples)
    most_steps = most_steps or _steps_in_the_file(source)
    if progress is not None:
        progress("check", 0, 1)
    checked = _checked(model, spec, samples, options)
    made: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    with all_or_nothing(folder) as (draft, publish):
        for target in (target for target in TARGETS if target in targets):
            if progress is not None:
                progress(f"write {target}", 0, 1)
            try:
                made[target] = _write(target, draft, name, spec, program, time_steps, most_steps)
            except (UnsupportedModel, UsageError) as error:
                left_out[target] = str(error)
                if target in options.targets or len(left_out) == len(targets):
                    raise
                continue
            if (folder / made[target].name).resolve() == model.resolve():
                raise UsageError(
                    f"{model}: would be overwritten; give another folder with -o, or --name"
                )
        manifest = _manifest(model, name, spec, program, ranges, samples, made, options, time_steps)
        manifest["check"] = checked
        if left_out:
            manifest["left_out"] = left_out
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        made["manifest"] = draft / f"{name}.manifest.json"
        write_atomically(made["manifest"], text.encode())
        files = publish(made)
    notes = [f"no {target}: {reason}" for target, reason in left_out.items()]
    notes += [] if program is None else program.warnings
    return Converted(name, files, manifest, spec, program, notes)


def _read(model: Path, options: ConvertOptions) -> ModelSpec | Program:
    if model.suffix.lower() != ".elstm":
        return read(model, profile=options.profile, layers=options.layers)
    if options.layers is not None:
        raise UsageError(f"{model}: --layers is for files that hold weights only")
    return edge_lstm.load(model, options.profile)


def _checked(
    model: Path, spec: ModelSpec | None, samples: Samples | None, options: ConvertOptions
) -> dict[str, Any]:
    """Return how far the model's framework is from what was read, or why that is not known."""
    from edge_lstm_converters.check import NotCheckedError, check

    if options.check is False:
        return {"skipped": "--no-check was given"}
    try:
        if spec is None:
            raise NotCheckedError("the model is quantized; edge-lstm verify runs interpreters")
        return check(model, spec, samples, options.layers)
    except NotCheckedError as reason:
        if options.check:
            raise UsageError(f"{model}: --check is not possible: {reason}") from reason
        return {"skipped": str(reason)}
    except MissingTool as reason:
        if options.check:
            raise MissingTool(f"{model}: --check is not possible: {reason}") from reason
        return {"skipped": str(reason)}


def check_text(found: dict[str, Any]) -> str:
    """Return the manifest's ``check`` as a line."""
    if "skipped" in found:
        return f"skipped: {found['skipped']}"
    return (
        f"{found['runtime']} {found['version']} differs by at most {found['max_abs_error']:g}, of"
        f" {found['tolerance']:g} allowed"
    )


def _targets(source: ModelSpec | Program, options: ConvertOptions) -> set[str]:
    """Return what to write, or say which of the wishes the model cannot fulfil."""
    for target in options.targets:
        if target not in TARGETS:
            raise UsageError(f"--to {target}: unknown; give some of {','.join(TARGETS)}")
    if isinstance(source, Program):
        if options.quant == "float32":
            raise UsageError("--quant float32: the model is quantized already; leave --quant out")
        possible, why = set[str](TARGETS) - {"onnx"}, "the model is quantized already"
        if source.profile == EDGE:
            possible = {"elstm", *COMPILED}
    elif options.quant == "float32":
        possible, why = {"onnx", "tflite"}, "an .elstm and C hold integers, not float32"
    else:
        possible, why = set[str](TARGETS), ""
        if options.profile == EDGE:
            possible, why = {"onnx", "elstm", *COMPILED}, "profile edge has no form in .tflite"
        elif options.quant == "int16x8" and options.profile in TFLITE_PROFILES:
            raise UsageError(
                f"--quant int16x8: no kernel of profile {options.profile} takes int16; give"
                " --profile tflm, cmsis-nn or edge"
            )
    wanted = set(options.targets) or possible - FOLDERS
    for target in sorted(wanted - possible):
        raise UsageError(f"--to {target}: {why}; possible here: {','.join(sorted(possible))}")
    return wanted


def _time_steps(
    source: ModelSpec | Program,
    options: ConvertOptions,
    samples: Samples | None,
    program: Program | None,
) -> int:
    own = source.time_steps
    if program is not None and program.has_state_ops and program.streams:
        # A graph of one step, called as often as the sequence has steps.
        own = 1
    if options.time_steps is not None:
        if options.time_steps < 1:
            raise UsageError(f"--time-steps {options.time_steps}: must be at least 1")
        if own is not None and own != options.time_steps:
            raise UsageError(
                f"--time-steps {options.time_steps}: the model takes {own} steps and no other"
            )
    if options.time_steps is not None or own is not None:
        return options.time_steps or own or 1
    return _seen_steps(samples) or 1


def _seen_steps(samples: Samples | None) -> int | None:
    # Data of another shape are refused where they are calibrated with.
    return None if samples is None or samples.x.ndim < 2 else int(samples.x.shape[1])


def _steps_in_the_file(source: ModelSpec | Program) -> int | None:
    """Return the steps of a ``.tflite``'s input, which the model need not be bound to."""
    steps = source.source.get("time_steps", "")
    return int(steps) if steps.isdecimal() and len(steps) < 10 else None


def _write(
    target: str,
    draft: Path,
    name: str,
    spec: ModelSpec | None,
    program: Program | None,
    time_steps: int,
    most_steps: int | None,
) -> Path:
    """Write one target into the draft folder and return its path.

    Args:
        target: which.
        draft: where.
        name: of the model.
        spec: the model in float, if there is one.
        program: the model in integers, if there is one.
        time_steps: of one call of the ``.tflite``.
        most_steps: the longest sequence that C keeps whole, if that is known.
    """
    if target == "onnx":
        from edge_lstm_converters.write_onnx import write_onnx

        assert spec is not None
        path = draft / f"{name}.onnx"
        write_onnx(spec, path)
    elif target == "tflite":
        from edge_lstm_converters import write_tflite

        if program is None:
            assert spec is not None
            path = draft / f"{name}_float32.tflite"
            write_tflite.write_float_tflite(spec, path, time_steps)
        else:
            narrow = any(tensor.dtype == "int8" for tensor in program.tensors)
            precision = "int8" if narrow else "int16x8"
            path = draft / f"{name}_{precision}.tflite"
            write_tflite.write_tflite(program, path, time_steps)
    elif target == "c":
        from edge_lstm_converters.write_c import write_c

        assert program is not None
        path = write_c(program, draft, most_steps)
    elif target == "tflm":
        from edge_lstm_converters.write_tflm import write_tflm

        assert program is not None
        path = write_tflm(program, draft, time_steps)
    elif target == "native":
        from edge_lstm_converters.write_native import write_native

        assert program is not None
        path = write_native(program, draft, most_steps)
    else:
        assert program is not None
        path = draft / f"{name}.elstm"
        program_file.save(program, path)
    return path


def _described(path: Path) -> dict[str, Any]:
    """Return a file's name, size and hash; of a folder, those of the files in it too."""
    found: dict[str, Any] = {
        "file": path.name,
        "bytes": file_bytes(path),
    }
    if path.is_dir():
        contents = {file.relative_to(path).as_posix(): _described(file) for file in files_of(path)}
        return {**found, "contents": contents}
    return {**found, "sha256": _sha256(path.read_bytes())}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _manifest(
    model: Path,
    name: str,
    spec: ModelSpec | None,
    program: Program | None,
    ranges: dict[str, Range],
    samples: Samples | None,
    made: dict[str, Path],
    options: ConvertOptions,
    time_steps: int,
) -> dict[str, Any]:
    """Return the record of a conversion; but for native code, no day or machine shows in it."""
    manifest: dict[str, Any] = {
        "schema": MANIFEST_SCHEMA,
        "name": name,
        "input": {"file": model.name, "sha256": _sha256(read_bytes(model))},
        "versions": {
            "edge-lstm": edge_lstm.__version__,
            **_versions(("numpy", "onnx", "onnxruntime", "flatbuffers")),
        },
        "options": {"quant": options.quant, "time_steps": time_steps},
        "files": {kind: _described(path) for kind, path in made.items()},
    }
    if spec is not None:
        manifest["layers"] = [
            {"name": layer.name, "type": layer.type_name, "parameters": layer.parameter_count()}
            for layer in spec.layers
        ]
        manifest["source"] = spec.source
    if samples is not None and ranges:
        steps = samples.x.shape[1] * len(samples.x)
        manifest["calibration"] = {
            "file": Path(samples.where).name,
            "sequences": len(samples.x),
            "steps": int(steps if samples.lengths is None else samples.lengths.sum()),
            "ranges": {key: [seen.low, seen.high] for key, seen in ranges.items()},
        }
    if program is not None:
        manifest["program"] = {
            "profile": program.profile,
            "fingerprint": program.fingerprint(),
            "weight_bytes": program.weight_bytes(),
            "warnings": list(program.warnings),
            "scales": _scales(program),
        }
    return manifest


def _scales(program: Program) -> dict[str, Any]:
    """Return every scale and zero point, of values and of weights."""
    found: dict[str, Any] = {
        tensor.name: {"scale": tensor.scale, "zero_point": tensor.zero_point}
        for tensor in program.tensors
        if tensor.is_quantized
    }
    for op in program.ops:
        for what, value in op.constants().items():
            if what.endswith(("_scale", "_scales")):
                found[f"{op.name}.{what}"] = getattr(value, "tolist", lambda v=value: v)()
    return found
