"""The ``edge-lstm`` command.

The only module that reaches upward, inside functions: each command imports what it needs, so
that a missing tool breaks that command alone. With ``--json`` a command prints one JSON document
to stdout and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from edge_lstm.errors import EdgeLstmError, MissingTool, UsageError
from edge_lstm.program import Program
from edge_lstm.spec import ModelSpec

if TYPE_CHECKING:
    from edge_lstm_benchmarks.harness import BenchModel

try:
    import typer
except ModuleNotFoundError:
    typer = None  # type: ignore[assignment]

NEEDS_TOOLS = "edge-lstm: the command line needs the tools; pip install 'edge-lstm[tools]'"
EXIT_BUG = 5


def main() -> None:
    """Run the command; every error of ours is one line and an exit code."""
    if typer is None:
        print(NEEDS_TOOLS, file=sys.stderr)
        raise SystemExit(MissingTool.exit_code)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command with ``arguments`` and return the exit code."""
    import click

    try:
        result = _app()(arguments, prog_name="edge-lstm", standalone_mode=False)
    except EdgeLstmError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.Abort:
        return _fail("interrupted", 130)
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.ClickException as error:
        return _fail(" ".join(error.format_message().split()), UsageError.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except ModuleNotFoundError as error:
        return _fail(
            f"package {error.name} is not installed; pip install 'edge-lstm[tools]'",
            MissingTool.exit_code,
        )
    except Exception as error:  # the last resort: ours, and said so
        import os
        import traceback

        if os.environ.get("EDGE_LSTM_TRACEBACK"):
            traceback.print_exc()
        return _fail(
            f"a bug in edge-lstm: {type(error).__name__}: {error};"
            " run again with EDGE_LSTM_TRACEBACK=1 and report it",
            EXIT_BUG,
        )
    return int(result or 0)


def _fail(message: str, code: int) -> int:
    print(f"edge-lstm: {message}", file=sys.stderr)
    return code


def _print_json(document: object) -> None:
    from edge_lstm.inspection import as_json

    print(json.dumps(as_json(document), indent=2))


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield ``show(what, done, total)``: a bar on a terminal's stderr, else nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _read_model(model: Path, profile: str | None, layers: Path | None) -> ModelSpec | Program:
    """Read any model file: a Program from .elstm, else through the readers' table."""
    if model.suffix == ".elstm":
        from edge_lstm.load import load

        return load(model, profile)
    from edge_lstm_converters import read

    return read(model, profile=profile, layers=layers)


def _app() -> Any:
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        help="Trained recurrent networks as integers, the same to the last bit everywhere.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    json_option = typer.Option("--json", help="Print one JSON document and nothing else.")
    layers_option = typer.Option("--layers", help="Layer configuration (TOML) of a state dict.")
    profile_option = typer.Option("--profile", help="Whose arithmetic; see the README.")

    @app.callback(invoke_without_command=True)
    def about(
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if version:
            from edge_lstm import __version__

            print(__version__)
            raise typer.Exit()

    @app.command()
    def convert(
        model: Annotated[Path, typer.Argument(help=".onnx .pt .pth .safetensors .pt2 .tflite")],
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
        to: Annotated[str, typer.Option("--to", help="Some of onnx,tflite,elstm.")] = "",
        calib: Annotated[
            Path | None, typer.Option("--calib", help=".npz with x (and lengths) to scale by.")
        ] = None,
        quant: Annotated[str, typer.Option("--quant", help="int8 or float32.")] = "int8",
        profile: Annotated[str, profile_option] = "tflm",
        time_steps: Annotated[
            int | None, typer.Option("--time-steps", help="Of the .tflite; 1 for streaming.")
        ] = None,
        layers: Annotated[Path | None, layers_option] = None,
        name: Annotated[str | None, typer.Option("--name", help="Of the model's files.")] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Convert a trained model to ONNX, full-integer TFLite and a program."""
        from edge_lstm_converters.convert import ConvertOptions
        from edge_lstm_converters.convert import convert as run_convert

        from edge_lstm.program import check_profile

        if quant not in ("int8", "float32"):
            raise UsageError(f"--quant {quant}: unknown; give int8 or float32")
        options = ConvertOptions(
            targets=tuple(t.strip() for t in to.split(",") if t.strip()),
            calibration=calib,
            quant="int8" if quant == "int8" else "float32",
            profile=check_profile(profile),
            time_steps=time_steps,
            layers=layers,
            name=name,
        )
        with _progress(as_json) as show:
            done = run_convert(model, output, options, show)
        if as_json:
            _print_json(done.manifest)
            return
        for kind, path in done.files.items():
            print(f"{kind:<9} {path}  {path.stat().st_size:,} bytes")
        for note in done.notes:
            print(f"warning: {note}")

    @app.command()
    def inspect(
        model: Annotated[Path, typer.Argument(help="Any model file.")],
        stage: Annotated[
            str, typer.Option("--stage", help="spec (float) or program (integers).")
        ] = "",
        profile: Annotated[str | None, profile_option] = None,
        layers: Annotated[Path | None, layers_option] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Show what is in a model: layers, or every scale, factor and effective bias."""
        from edge_lstm import inspection

        found = _read_model(model, profile, layers)
        kind = "spec" if isinstance(found, ModelSpec) else "program"
        if stage not in ("", kind):
            raise UsageError(f"--stage {stage}: {model.name} holds a {kind}")
        if isinstance(found, ModelSpec):
            if as_json:
                _print_json(inspection.describe_spec(found))
            else:
                print(inspection.spec_text(found))
        elif as_json:
            _print_json(inspection.describe_program(found))
        else:
            print(inspection.program_text(found))

    @app.command("run")
    def run_model(
        model: Annotated[Path, typer.Argument(help="Any model file.")],
        input_file: Annotated[Path, typer.Option("--input", help=".npy or .npz with x.")],
        output_file: Annotated[Path, typer.Option("--output", help=".npz to write y to.")],
        profile: Annotated[str | None, profile_option] = None,
        layers: Annotated[Path | None, layers_option] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Run a model on a data file and write its outputs."""
        from edge_lstm.files import write_atomically
        from edge_lstm.samples import load_samples, npz_bytes

        found = _read_model(model, profile, layers)
        samples = load_samples(input_file)
        if isinstance(found, ModelSpec):
            from edge_lstm import float_reference

            arrays = {"y": float_reference.run(found, samples.x, samples.lengths)}
            runner = "float reference"
        else:
            arrays = {"y": found.predict(samples.x, samples.lengths)}
            runner = f"profile {found.profile}"
            if found.output_tensor.is_quantized:
                arrays["y_scale"] = _scalar(found.output_tensor.scale)
                arrays["y_zero_point"] = _scalar(found.output_tensor.zero_point)
        write_atomically(output_file, npz_bytes(arrays))
        y = arrays["y"]
        if as_json:
            _print_json(
                {"output": str(output_file), "shape": y.shape, "dtype": str(y.dtype), "by": runner}
            )
        else:
            print(f"{output_file}  y {y.dtype} {list(y.shape)}, {runner}")

    @app.command()
    def bench(
        models: Annotated[list[Path], typer.Argument(help="Model files.")],
        data: Annotated[
            Path | None, typer.Option("--data", help=".npz with x, and y (labels or targets).")
        ] = None,
        calib: Annotated[
            Path | None, typer.Option("--calib", help="Scales for float models; else --data.")
        ] = None,
        backends: Annotated[str, typer.Option("--backends", help="Names, or all.")] = "all",
        scenario: Annotated[
            str, typer.Option("--scenario", help="stream, sequence or batch:N.")
        ] = "stream",
        layers: Annotated[Path | None, layers_option] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Compare backends in latency, size, accuracy and bytes."""
        from edge_lstm_benchmarks.harness import run_bench

        from edge_lstm.samples import load_samples

        samples = None if data is None else load_samples(data)
        calibration = samples if calib is None else load_samples(calib)
        chosen = [_bench_model(path, layers, calibration) for path in models]
        names = None if backends == "all" else [b.strip() for b in backends.split(",")]
        with _progress(as_json) as show:
            report = run_bench(chosen, samples, names, scenario, show)
        if as_json:
            _print_json(report.document())
        else:
            print(report.text())

    @app.command()
    def doctor(as_json: Annotated[bool, json_option] = False) -> None:
        """Say what is installed, what is missing and how to get it."""
        from edge_lstm_benchmarks.doctor import examine, examine_text

        findings = examine()
        if as_json:
            _print_json(findings)
        else:
            print(examine_text(findings))

    @app.command()
    def demo(
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path(
            "demo_output"
        ),
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Convert, run, prove and compare a weather forecaster that comes with edge-lstm."""
        from edge_lstm_benchmarks.demo import run_demo

        with _progress(as_json) as show:
            result = run_demo(output, None if as_json else print, show)
        if as_json:
            _print_json(result.document())
        if not result.passed:
            raise typer.Exit(1)

    return app


def _scalar(value: float) -> Any:
    import numpy as np

    return np.array(value)


def _bench_model(path: Path, layers: Path | None, calibration: Any) -> BenchModel:
    """Read a model; a float one is quantized too, so that int8 backends have something to run."""
    from edge_lstm_benchmarks.harness import BenchModel

    from edge_lstm.calibrate import calibrate
    from edge_lstm.quantize import quantize

    found = _read_model(path, None, layers)
    if isinstance(found, Program):
        return BenchModel(path.name, None, found)
    if calibration is None:
        return BenchModel(path.name, found, None)
    ranges = calibrate(found, calibration.x, calibration.lengths)
    return BenchModel(path.name, found, quantize(found, ranges))


if __name__ == "__main__":
    main()
