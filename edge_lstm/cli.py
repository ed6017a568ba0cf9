"""The ``edge-lstm`` command.

The only module that reaches upward, inside functions: each command imports what it needs, so
that a missing tool breaks that command alone. With ``--json`` a command prints one JSON document
to stdout and nothing else; after an error that document is ``{"error": ..., "exit_code": ...}``.
"""

# No `from __future__ import annotations`: typer evaluates the annotations of the commands, and
# could not see the options that they share.
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from edge_lstm.errors import EdgeLstmError, MissingTool, UsageError
from edge_lstm.program import Program
from edge_lstm.spec import ModelSpec

if TYPE_CHECKING:
    from edge_lstm.samples import Samples
    from edge_lstm_benchmarks.harness import BenchModel

try:
    import typer
except ModuleNotFoundError:
    typer = None  # type: ignore[assignment]

NEEDS_TOOLS = "the command line needs the tools; pip install 'edge-lstm[tools]'"
OUR_PACKAGES = (
    "edge_lstm",
    "edge_lstm_converters",
    "edge_lstm_firmware_sim",
    "edge_lstm_benchmarks",
)
EXIT_CHECK_FAILED = 1
EXIT_BUG = 5
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> NoReturn:
    """Run the command; every error of ours is one line and an exit code."""
    # A name or a unit that the terminal cannot show is no reason to stop.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # A terminated command cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command with ``arguments`` and return the exit code."""
    try:
        if typer is None:
            raise MissingTool(NEEDS_TOOLS)
        code = int(_app(arguments)(arguments, prog_name="edge-lstm", standalone_mode=False) or 0)
        if code == EXIT_INTERRUPTED:  # what newer versions of typer make of it
            raise KeyboardInterrupt
        return code
    except BaseException as error:
        message, code = _explain(error)
        if message is not None:
            print(f"edge-lstm: {message}", file=sys.stderr)
            if "--json" in arguments:
                print(json.dumps({"error": message, "exit_code": code}, indent=2))
        return code


def _explain(error: BaseException) -> tuple[str | None, int]:
    """Return what to print, or None for nothing, and the exit code."""
    if isinstance(error, EdgeLstmError):
        # One line; where a layer configuration is missing, that configuration follows.
        return str(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        return None, 0
    if isinstance(error, SystemExit):
        return None, error.code if isinstance(error.code, int) else EXIT_BUG
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "interrupted", EXIT_INTERRUPTED
    # typer's complaints about arguments: click's class, or the copy that newer versions carry.
    if hasattr(error, "format_message"):
        return _one_line(error.format_message()), UsageError.exit_code
    if isinstance(error, MemoryError):
        return _one_line(f"needs more memory than there is: {error}"), UsageError.exit_code
    if isinstance(error, ModuleNotFoundError):
        package = str(error.name).partition(".")[0]
        if package not in OUR_PACKAGES:
            install = "pip install 'edge-lstm[tools]'"
            return f"package {package} is not installed; {install}", MissingTool.exit_code
    if os.environ.get("EDGE_LSTM_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        _one_line(f"a bug in edge-lstm: {what}; run again with EDGE_LSTM_TRACEBACK=1, report it"),
        EXIT_BUG,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


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
    from rich.progress import Progress

    # With stdout on the same terminal, rich keeps what is printed above the bar; a stdout that
    # goes to a file stays there.
    shared = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=shared) as bars:
        bar = bars.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            bars.update(bar, description=what, completed=done, total=total)

        yield show


def _read_model(model: Path, profile: str | None, layers: Path | None) -> ModelSpec | Program:
    """Read any model file: a Program from .elstm, else through the readers' table."""
    if model.suffix.lower() == ".elstm":
        from edge_lstm.load import load

        if layers is not None:
            raise UsageError(f"{model}: --layers is for files that hold weights only")
        return load(model, profile)
    from edge_lstm_converters import read

    return read(model, profile=profile, layers=layers)


def _app(arguments: list[str]) -> Any:
    """Return the typer application, which is about to be run with ``arguments``.

    One long function: typer may be missing, and each command's signature is its documentation.
    """
    app = typer.Typer(
        add_completion=False,
        help="Trained recurrent networks as integers, the same to the last bit everywhere.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    json_option = typer.Option("--json", help="Print one JSON document and nothing else.")
    layers_option = typer.Option("--layers", help="Layer configuration (TOML) of a state dict.")
    profile_option = typer.Option("--profile", help="Whose arithmetic; see the README.")

    @app.callback(invoke_without_command=True)
    def about(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if version:
            from edge_lstm import __version__

            print(__version__)
            raise typer.Exit()
        if context.invoked_subcommand is None:
            print(context.get_help())
            raise typer.Exit(UsageError.exit_code)

    @app.command()
    def convert(
        model: Annotated[Path, typer.Argument(help="A model of any framework.")],
        output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
        to: Annotated[
            str, typer.Option("--to", help="Some of onnx,tflite,elstm,c,tflm,native.")
        ] = "",
        calib: Annotated[
            Path | None, typer.Option("--calib", help=".npz with x (and lengths) to scale by.")
        ] = None,
        quant: Annotated[str, typer.Option("--quant", help="int8, int16x8 or float32.")] = "int8",
        profile: Annotated[str | None, profile_option] = None,
        time_steps: Annotated[
            int | None, typer.Option("--time-steps", help="Of the .tflite; 1 for streaming.")
        ] = None,
        layers: Annotated[Path | None, layers_option] = None,
        name: Annotated[str | None, typer.Option("--name", help="Of the model's files.")] = None,
        check: Annotated[
            bool | None,
            typer.Option(
                "--check/--no-check",
                help="Hold it against its own framework. [default: where that is installed]",
                show_default=False,
            ),
        ] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Convert a trained model to ONNX, full-integer TFLite, a program and C for firmware."""
        from edge_lstm.program import check_profile
        from edge_lstm_converters.convert import ConvertOptions, check_quant, check_text
        from edge_lstm_converters.convert import convert as run_convert
        from edge_lstm_converters.publish import file_bytes

        options = ConvertOptions(
            targets=tuple(t.strip() for t in to.split(",") if t.strip()),
            calibration=calib,
            quant=check_quant(quant),
            profile=profile if profile is None else check_profile(profile),
            time_steps=time_steps,
            layers=layers,
            name=name,
            check=check,
        )
        with _progress(as_json) as show:
            done = run_convert(model, output, options, show)
        if as_json:
            _print_json(done.manifest)
            return
        for kind, path in done.files.items():
            print(f"{kind:<9} {path}  {file_bytes(path):,} bytes")
        print(f"check     {check_text(done.manifest['check'])}")
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

            x, lengths = float_reference.check_samples(
                found, samples.x, samples.lengths, str(input_file)
            )
            arrays = {"y": float_reference.run(found, x, lengths)}
            runner = "float reference"
        else:
            arrays = {"y": found.predict(samples.x, samples.lengths)}
            runner = f"profile {found.profile}"
            if found.output_tensor.is_quantized and arrays["y"].dtype.kind == "i":
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
        metric: Annotated[
            str | None,
            typer.Option("--metric", help="accuracy, f1, perplexity, mae, mape, module:function."),
        ] = None,
        frame_ms: Annotated[
            float | None, typer.Option("--frame-ms", help="Of signal in a step: x real time.")
        ] = None,
        seconds: Annotated[
            float | None, typer.Option("--seconds", help="Timing takes at most; else 20.")
        ] = None,
        csv: Annotated[Path | None, typer.Option("--csv", help="File to write.")] = None,
        html: Annotated[Path | None, typer.Option("--html", help="Page to write.")] = None,
        plot: Annotated[
            Path | None, typer.Option("--plot", help="Folder for pictures, PNG and SVG.")
        ] = None,
        compare: Annotated[
            Path | None, typer.Option("--compare", help="What --json printed earlier.")
        ] = None,
        max_regress: Annotated[
            str, typer.Option("--max-regress", help="How much may be worse.")
        ] = "5%",
        layers: Annotated[Path | None, layers_option] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Compare backends in latency, memory, size, accuracy and bytes."""
        from edge_lstm.live import live_table
        from edge_lstm.samples import load_samples
        from edge_lstm_benchmarks.bench import LIVE_HEADER, BenchRequest, live_cells
        from edge_lstm_benchmarks.bench import bench as run_bench

        samples = None if data is None else load_samples(data)
        calibration = samples if calib is None else load_samples(calib)
        request = BenchRequest(
            backends=None if backends == "all" else [b.strip() for b in backends.split(",")],
            scenario=scenario,
            csv=csv,
            html=html,
            plot=plot,
            compare=compare,
            max_regress=max_regress,
            metric=metric,
            frame_ms=frame_ms,
            seconds=seconds,
            command=shlex.join(["edge-lstm", *arguments]),
        )
        chosen = [
            _bench_model(path, name, layers, calibration)
            for path, name in zip(models, _names(models), strict=True)
        ]
        with live_table(LIVE_HEADER, as_json) as (show, rows):
            outcome = run_bench(
                chosen, samples, request, show, lambda all_: rows([live_cells(s) for s in all_])
            )
        if as_json:
            _print_json(outcome.document())
        else:
            print(outcome.text())
        if outcome.failed:
            raise typer.Exit(EXIT_CHECK_FAILED)

    @app.command()
    def verify(
        models: Annotated[list[Path], typer.Argument(help="A model file, or two to compare.")],
        against: Annotated[
            str, typer.Option("--against", help="Interpreters: litert,tflm,...; c; or all.")
        ] = "all",
        data: Annotated[
            Path | None, typer.Option("--data", help=".npz with x; else generated extremes.")
        ] = None,
        calib: Annotated[
            Path | None, typer.Option("--calib", help="Scales for a float model; else --data.")
        ] = None,
        profile: Annotated[
            str | None, typer.Option("--profile", help="The only one that must hold; else all.")
        ] = None,
        layers: Annotated[Path | None, layers_option] = None,
        min_snr: Annotated[
            float | None, typer.Option("--min-snr", help="dB that two files must reach.")
        ] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Hold the runtime against real interpreters, or a model file against another."""
        from edge_lstm_benchmarks.verify import VerifyOptions, verify_files

        names = None if against == "all" else [name.strip() for name in against.split(",")]
        options = VerifyOptions(names, data, calib, profile, layers, min_snr)
        with _progress(as_json) as show:
            result = verify_files(models, options, show)
        if as_json:
            _print_json(result.document())
        else:
            print(result.text())
        if result.exit_code:
            raise typer.Exit(result.exit_code)

    @app.command()
    def simulate(
        model: Annotated[Path, typer.Argument(help="A model file, or the folder of a C package.")],
        device: Annotated[
            str, typer.Option("--device", help="Names, as nrf52840,cortex-m4; or a .toml file.")
        ],
        data: Annotated[
            Path | None, typer.Option("--data", help=".npz with x to run; else random steps.")
        ] = None,
        calib: Annotated[
            Path | None, typer.Option("--calib", help="Scales for a float model; else --data.")
        ] = None,
        profile: Annotated[str | None, profile_option] = None,
        layers: Annotated[Path | None, layers_option] = None,
        compiler: Annotated[str, typer.Option("--compiler", help="zig, gcc or auto.")] = "auto",
        optimize: Annotated[str, typer.Option("--optimize", help="O3, O2 or Os.")] = "O3",
        emulator: Annotated[
            str, typer.Option("--emulator", help="unicorn, qemu or auto.")
        ] = "auto",
        frame_ms: Annotated[
            float | None,
            typer.Option("--frame-ms", help="Time between steps, for the share of it."),
        ] = None,
        plot: Annotated[Path | None, typer.Option("--plot", help="Picture: .png or .svg.")] = None,
        as_json: Annotated[bool, json_option] = False,
    ) -> None:
        """Run a model as firmware under CPU emulation: bytes, instructions, flash, RAM."""
        from edge_lstm_firmware_sim.command import SimulateOptions, run_simulate

        options = SimulateOptions(
            devices=device,
            data=data,
            calibration=calib,
            profile=profile,
            compiler=compiler,
            optimization=f"-{optimize.lstrip('-')}",
            emulator=emulator,
            frame_ms=frame_ms,
            plot=plot,
        )
        with _progress(as_json) as show:
            result = run_simulate(model, options, lambda p, q: _read_model(p, q, layers), show)
        if as_json:
            _print_json(result.document())
        else:
            print(result.text())
        if result.exit_code:
            raise typer.Exit(result.exit_code)

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
            "demo-output"
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
            raise typer.Exit(EXIT_CHECK_FAILED)

    return app


def _scalar(value: float) -> Any:
    import numpy as np

    return np.array(value)


def _names(models: list[Path]) -> list[str]:
    """Return each model's file name, with its folder's where two are called the same."""
    names = [path.name for path in models]
    return [
        path.name if names.count(path.name) == 1 else f"{path.resolve().parent.name}/{path.name}"
        for path in models
    ]


def _bench_model(
    path: Path, name: str, layers: Path | None, calibration: "Samples | None"
) -> "BenchModel":
    """Read a model; a float one is quantized too, so that int8 backends have something to run."""
    from edge_lstm.backend import BenchModel, bench_model
    from edge_lstm.calibrate import calibrate

    weights_only = path.suffix.lower() in (".pt", ".pth", ".safetensors", ".h5", ".hdf5")
    found = _read_model(path, None, layers if weights_only else None)
    if isinstance(found, Program):
        return BenchModel(name, None, found)
    if calibration is None:
        return BenchModel(name, found, None)
    ranges = calibrate(found, calibration.x, calibration.lengths)
    return bench_model(name, found, ranges)


if __name__ == "__main__":
    main()
