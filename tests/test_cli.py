"""The command as its users meet it: output, JSON, exit codes, and what bad input leaves behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import edge_lstm
from edge_lstm import cli
from edge_lstm_converters import check as checking

pytest.importorskip("typer", reason="typer not found: pip install 'edge-lstm[tools]'")

MODELS = Path(cli.__file__).parents[1] / "benchmarks" / "edge_lstm_benchmarks" / "models"
WEATHER = MODELS / "weather"
CALIBRATION = WEATHER / "calibration.npz"
STATE_DICT = [WEATHER / "model.pt", "--layers", WEATHER / "layers.toml"]
COMMAND = Path(sys.executable).with_name("edge-lstm")

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give a function that runs the command here; it returns exit code, stdout and stderr.

    Without the models' own frameworks, which take seconds to start; test_check.py has them.
    """
    monkeypatch.setattr(checking, "FRAMEWORKS", {})

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    """Check that a command ended with ``code`` and one line that has all ``words``."""
    found, out, err = result
    assert found == code, err
    assert out == ""
    assert err.startswith("edge-lstm: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the weather model's .tflite and .elstm."""
    folder = tmp_path_factory.mktemp("converted")
    arguments = ["convert", *STATE_DICT, "-o", folder, "--calib", CALIBRATION]
    arguments += ["--to", "tflite,elstm", "--name", "weather"]
    assert cli.run([str(a) for a in arguments]) == 0
    return folder


# What each command says


def test_installed_command_prints_its_version() -> None:
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{edge_lstm.__version__}\n", "")


def test_installed_command_says_an_error_in_one_line() -> None:
    done = subprocess.run(
        [COMMAND, "inspect", "absent.onnx"], capture_output=True, text=True, check=False
    )
    refused((done.returncode, done.stdout, done.stderr), 3, "absent.onnx", "no such file")


def test_command_without_arguments_shows_the_commands_and_is_a_wrong_usage(command: Cli) -> None:
    code, out, err = command()
    assert (code, err) == (2, "")
    for name in ("convert", "inspect", "run", "verify", "bench", "simulate", "doctor", "demo"):
        assert f"  {name}" in out


@pytest.mark.parametrize(
    "name", ["convert", "inspect", "run", "verify", "bench", "simulate", "doctor", "demo"]
)
def test_every_command_has_help_and_json(command: Cli, name: str) -> None:
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out


def test_convert_writes_every_format_and_a_manifest(command: Cli, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    folder = tmp_path / "new" / "folder"
    code, out, err = command(
        "convert", *STATE_DICT, "-o", folder, "--calib", CALIBRATION, "--name", "weather"
    )
    assert (code, err) == (0, "")
    written = {"weather.onnx", "weather_int8.tflite", "weather.elstm", "weather.manifest.json"}
    assert {path.name for path in folder.iterdir()} == written
    words = ["onnx", "tflite", "elstm", "manifest", "check"]
    assert [line.split()[0] for line in out.splitlines()] == words
    manifest = json.loads((folder / "weather.manifest.json").read_text())
    assert manifest["calibration"]["sequences"] == 800
    assert manifest["program"]["scales"]["input"]["zero_point"] != 0


def test_convert_names_its_files_after_the_input(command: Cli, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    model = tmp_path / "my-net 2.onnx"
    model.write_bytes((WEATHER / "model.onnx").read_bytes())
    folder = tmp_path / "out"
    assert command("convert", model, "-o", folder, "--to", "onnx")[0] == 0
    assert {p.name for p in folder.iterdir()} == {"my_net_2.onnx", "my_net_2.manifest.json"}


def test_convert_in_float_needs_no_calibration_data(command: Cli, tmp_path: Path) -> None:
    arguments = ["--quant", "float32", "--to", "tflite", "--time-steps", "1", "--name", "w"]
    assert command("convert", *STATE_DICT, "-o", tmp_path, *arguments)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"w_float32.tflite", "w.manifest.json"}


def test_convert_gives_equal_bytes_for_equal_input(command: Cli, tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        assert command("convert", *STATE_DICT, "-o", folder, "--calib", CALIBRATION)[0] == 0
    first, second = ({p.name: p.read_bytes() for p in f.iterdir()} for f in folders)
    assert first == second


def test_convert_of_a_quantized_file_keeps_its_integers(
    command: Cli, converted: Path, tmp_path: Path
) -> None:
    model = converted / "weather_int8.tflite"
    assert command("convert", model, "-o", tmp_path, "--name", "again", "--to", "elstm")[0] == 0
    x = np.load(WEATHER / "test.npz")["x"][:50].astype(np.float32)
    programs = (edge_lstm.load(p) for p in (converted / "weather.elstm", tmp_path / "again.elstm"))
    first, second = (program.predict(x) for program in programs)
    assert np.array_equal(first, second)


def test_inspect_shows_every_scale_of_a_program(command: Cli, converted: Path) -> None:
    code, out, err = command("inspect", converted / "weather.elstm")
    assert (code, err) == (0, "")
    program = edge_lstm.load(converted / "weather.elstm")
    for tensor in program.tensors:
        assert f"{tensor.scale:.9g}" in out


def test_inspect_shows_the_layers_of_a_float_model(command: Cli) -> None:
    code, out, _ = command("inspect", *STATE_DICT)
    assert code == 0
    assert "5,153 parameters" in out


def test_inspect_refuses_the_stage_that_a_file_is_not_at(command: Cli, converted: Path) -> None:
    result = command("inspect", converted / "weather.elstm", "--stage", "spec")
    refused(result, 2, "--stage spec", "holds a program")


@pytest.mark.parametrize("suffix", [".elstm", "_int8.tflite"])
def test_run_writes_what_the_program_predicts(
    command: Cli, converted: Path, tmp_path: Path, suffix: str
) -> None:
    program = edge_lstm.load(converted / "weather.elstm")
    x = program.input_tensor.quantize(np.load(WEATHER / "test.npz")["x"][:20].astype(np.float32))
    np.savez(tmp_path / "x.npz", x=x)
    arguments = ["--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz"]
    assert command("run", converted / f"weather{suffix}", *arguments)[0] == 0
    with np.load(tmp_path / "y.npz") as written:
        assert np.array_equal(written["y"], program.predict(x))
        assert written["y_scale"] == program.output_tensor.scale


def test_run_of_a_float_model_is_the_float_reference(command: Cli, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch not found: pip install torch")
    x = np.load(WEATHER / "test.npz")["x"][:5].astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz"]
    assert command("run", *STATE_DICT, *arguments)[0] == 0
    lstm, dense = torch.nn.LSTM(7, 32, batch_first=True), torch.nn.Linear(32, 1)
    state = torch.load(WEATHER / "model.pt", weights_only=True)
    lstm.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("lstm.")})
    dense.load_state_dict({k[3:]: v for k, v in state.items() if k.startswith("fc.")})
    with torch.no_grad():
        want = dense(lstm(torch.from_numpy(x))[0][:, -1]).numpy()
    with np.load(tmp_path / "y.npz") as written:
        # torch adds 32 products in float32, the reference in float64: 24 steps of 1e-7.
        np.testing.assert_allclose(written["y"], want, atol=1e-5)


def test_bench_names_the_backends_that_were_asked_for(command: Cli, converted: Path) -> None:
    code, out, err = command(
        "bench", converted / "weather.elstm", "--backends", "numpy-int8:tflm,numpy-float"
    )
    assert (code, err) == (0, "")
    assert "numpy-int8:tflm" in out
    assert "numpy-float  not run:" in out


def test_bench_tells_models_of_one_name_apart(command: Cli) -> None:
    models = [MODELS / "weather" / "model.pt", MODELS / "digits" / "model.pt"]
    arguments = ["--layers", WEATHER / "layers.toml", "--backends", "numpy-float", "--json"]
    code, out, _ = command("bench", *models, *arguments)
    assert code == 0
    results = json.loads(out)["results"]
    assert [r["model"] for r in results] == ["weather/model.pt", "digits/model.pt"]
    assert [r["skipped_reason"] for r in results] == [None, None]


def test_bench_writes_page_and_table_and_compares_with_what_it_said_before(
    command: Cli, converted: Path, tmp_path: Path
) -> None:
    arguments = [converted / "weather.elstm", "--backends", "numpy-int8:tflm", "--seconds", "0.1"]
    code, base, _ = command("bench", *arguments, "--json")
    assert code == 0
    document = json.loads(base)
    assert shlex.split(document["command"]) == [
        "edge-lstm",
        "bench",
        *map(str, arguments),
        "--json",
    ]
    (tmp_path / "base.json").write_text(base)
    files = ["--html", tmp_path / "o.html", "--csv", tmp_path / "o.csv", "--frame-ms", "10"]
    compare = ["--compare", tmp_path / "base.json", "--max-regress", "10000%"]
    code, out, err = command("bench", *arguments, *files, *compare)
    assert (code, err) == (0, "")
    assert "1 rows stand in both" in out
    assert "x real time" in out
    assert (tmp_path / "o.html").exists()
    assert (tmp_path / "o.csv").exists()
    document["results"][0]["size"]["model_bytes"] = 10
    (tmp_path / "base.json").write_text(json.dumps(document))
    code, out, _ = command("bench", *arguments, *compare)
    assert code == 1
    assert "worse: weather.elstm, numpy-int8:tflm, stream: model bytes 10 then" in out


def test_doctor_gives_an_install_line_for_what_is_missing(
    command: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_lstm_benchmarks import doctor

    absent = doctor.Package("edge-lstm-absent-package", "nothing", "pip install nothing")
    monkeypatch.setattr(doctor, "PACKAGES", (absent,))
    monkeypatch.setattr(doctor, "PROGRAMS", (doctor.Tool("el-absent", "nothing", "apt it"),))
    code, out, err = command("doctor")
    assert (code, err) == (0, "")
    assert "pip install nothing" in out
    assert "apt it" in out
    assert "numpy-int8:tflm" in out


# JSON


def json_commands(converted: Path, tmp_path: Path) -> dict[str, list[object]]:
    x = tmp_path / "x.npy"
    np.save(x, np.zeros((2, 24, 7), np.float32))
    program = converted / "weather.elstm"
    return {
        "convert": ["convert", program, "-o", tmp_path / "out", "--to", "elstm"],
        "inspect spec": ["inspect", *STATE_DICT],
        "inspect program": ["inspect", program],
        "run": ["run", program, "--input", x, "--output", tmp_path / "y.npz"],
        "bench": ["bench", program, "--backends", "numpy-int8:litert"],
        "doctor": ["doctor"],
        "usage error": ["inspect", "--bogus"],
        "model error": ["inspect", tmp_path / "absent.onnx"],
    }


@pytest.mark.parametrize(
    "which",
    [
        *("convert", "inspect spec", "inspect program", "run", "bench", "doctor"),
        *("usage error", "model error"),
    ],
)
def test_json_is_one_document_and_nothing_else(
    command: Cli, converted: Path, tmp_path: Path, which: str
) -> None:
    code, out, err = command(*json_commands(converted, tmp_path)[which], "--json")
    document = json.loads(out)
    if "error" in which:
        assert document == {"error": err[len("edge-lstm: ") : -1], "exit_code": code}
        assert code in (2, 3)
    else:
        assert (code, err) == (0, "")
        assert isinstance(document, dict)


def test_json_has_no_number_that_json_does_not_know(command: Cli, converted: Path) -> None:
    def never(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    _, out, _ = command("inspect", converted / "weather.elstm", "--json")
    json.loads(out, parse_constant=never)


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], ["frobnicate"]),
        (["convert"], ["model"]),
        (["inspect", "m.onnx", "--bogus"], ["--bogus"]),
        (["convert", *STATE_DICT, "-o", "out", "--quant", "int4"], ["--quant int4", "int8"]),
        (["convert", *STATE_DICT, "-o", "out", "--profile", "no"], ["'no'", "tflm", "litert"]),
        (["convert", *STATE_DICT, "-o", "out", "--to", "exe"], ["--to exe", "onnx,tflite,elstm"]),
        (["convert", *STATE_DICT, "-o", "out"], ["--calib"]),
        (["convert", *STATE_DICT, "-o", "out", "--quant", "float32", "--to", "elstm"], [".elstm"]),
        (["convert", *STATE_DICT, "-o", "out", "--name", "../x", "--quant", "float32"], ["../x"]),
        (
            ["convert", *STATE_DICT, "-o", "out", "--quant", "float32", "--time-steps", "0"],
            ["--time-steps 0"],
        ),
        (["convert", WEATHER / "model.onnx", *STATE_DICT[1:], "-o", "out"], ["--layers"]),
        (["run", *STATE_DICT, "--input", "absent.npz", "--output", "y.npz"], ["absent.npz"]),
        (["bench", *STATE_DICT, "--backends", "abacus"], ["'abacus'"]),
        (["bench", *STATE_DICT, "--scenario", "batch:0"], ["batch:0"]),
        (["bench", *STATE_DICT, "--metric", "f1"], ["metric f1", "no y"]),
        (["bench", *STATE_DICT, "--compare", "absent.json"], ["absent.json"]),
        (["bench", *STATE_DICT, "--html", "absent/o.html"], ["o.html", "no such folder"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_2(
    command: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(command(*arguments), 2, *words)
    assert list(tmp_path.iterdir()) == []


def test_state_dict_without_layers_is_exit_3_and_shows_the_configuration(command: Cli) -> None:
    code, out, err = command("inspect", STATE_DICT[0])
    assert (code, out) == (3, "")
    assert "--layers" in err.splitlines()[0]
    assert '[[layers]]\ntype = "lstm"\nweights = "lstm"\n' in err


def test_convert_does_not_overwrite_its_input(command: Cli, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    model = tmp_path / "w.onnx"
    model.write_bytes((WEATHER / "model.onnx").read_bytes())
    result = command("convert", model, "-o", tmp_path, "--to", "onnx")
    refused(result, 2, "w.onnx", "overwritten", "--name")
    assert model.read_bytes() == (WEATHER / "model.onnx").read_bytes()
    assert list(tmp_path.iterdir()) == [model]


def test_failed_check_is_exit_1(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_lstm_benchmarks import bench, demo

    failed = SimpleNamespace(passed=False, document=lambda: {"passed": False})
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: failed)
    assert command("demo", "--json")[0] == 1
    outcome = SimpleNamespace(text=lambda: "table", failed=True)
    monkeypatch.setattr(bench, "bench", lambda *arguments: outcome)
    assert command("bench", *STATE_DICT)[0] == 1


def test_our_own_bug_is_exit_5_and_says_so(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_lstm_benchmarks import doctor

    def broken() -> dict[str, Any]:
        raise RuntimeError("planted\nin two lines")

    monkeypatch.setattr(doctor, "examine", broken)
    refused(command("doctor"), 5, "a bug", "RuntimeError: planted in two lines", "TRACEBACK=1")
    monkeypatch.setenv("EDGE_LSTM_TRACEBACK", "1")
    assert "in broken" in command("doctor")[2]


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )


BLOCK = """
import sys
sys.modules[{package!r}] = None
from edge_lstm import cli
sys.argv[1:] = {arguments!r}
cli.main()
"""


def test_without_the_tools_the_command_says_what_to_install() -> None:
    done = python(BLOCK.format(package="typer", arguments=["doctor"]))
    refused((done.returncode, done.stdout, done.stderr), 4, "pip install 'edge-lstm[tools]'")


@pytest.mark.parametrize(
    ("package", "target"), [("onnx", "onnx"), ("onnxruntime", "onnx"), ("flatbuffers", "tflite")]
)
def test_missing_package_breaks_only_the_command_that_needs_it(
    converted: Path, tmp_path: Path, package: str, target: str
) -> None:
    folder = tmp_path / "out"
    needing = ["convert", *STATE_DICT, "-o", folder, "--to", target, "--calib", CALIBRATION]
    done = python(BLOCK.format(package=package, arguments=[str(a) for a in needing]))
    refused((done.returncode, done.stdout, done.stderr), 4, package, "pip install")
    assert not folder.exists()
    elstm = ["inspect", str(converted / "weather.elstm")]
    assert python(BLOCK.format(package=package, arguments=elstm)).returncode == 0


def test_reader_of_our_output_may_stop_early(converted: Path) -> None:
    command = f"'{COMMAND}' inspect --json '{converted}/weather.elstm' | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ('{\n  "stage', "")


# Broken and hostile models


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def safetensors(tensors: dict[str, np.ndarray[Any, Any]], **changes: Any) -> bytes:
    """Return a .safetensors file by its specification; ``changes`` override header entries."""
    header: dict[str, Any] = {}
    body = b""
    for name, value in tensors.items():
        data = value.astype(np.float32).tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        header[name].update(changes.get(name.replace(".", "_"), {}))
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def lstm_tensors(poison: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    tensors = {
        "lstm.weight_ih_l0": rng.normal(size=(128, 7)),
        "lstm.weight_hh_l0": rng.normal(size=(128, 32)),
        "lstm.bias_ih_l0": np.zeros(128),
        "lstm.bias_hh_l0": np.zeros(128),
        "fc.weight": rng.normal(size=(1, 32)),
        "fc.bias": np.zeros(1),
    }
    tensors["lstm.weight_hh_l0"][3, 3] += poison
    return tensors


def check_refused_convert(command: Cli, model: Path, *words: str) -> None:
    """Check that ``model`` is refused with exit 3 and that nothing is left of the attempt."""
    folder = model.parent / "out"
    weights_only = model.suffix in (".pt", ".pth", ".safetensors")
    layers = STATE_DICT[1:] if weights_only else []
    refused(command("convert", model, *layers, "-o", folder, "--calib", CALIBRATION), 3, *words)
    assert not folder.exists()


SUFFIXES = [".onnx", ".pt", ".pth", ".pt2", ".safetensors", ".tflite", ".elstm"]


@pytest.fixture
def sound(converted: Path, suffix: str) -> bytes:
    """Give the bytes of a model that can be read, in the format of ``suffix``."""
    if suffix == ".safetensors":
        return safetensors(lstm_tensors())
    return {
        ".onnx": WEATHER / "model.onnx",
        ".tflite": converted / "weather_int8.tflite",
        ".elstm": converted / "weather.elstm",
    }.get(suffix, WEATHER / "model.pt").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -1])
def test_truncated_model_is_exit_3(
    command: Cli, tmp_path: Path, suffix: str, sound: bytes, kept: float
) -> None:
    model = tmp_path / f"m{suffix}"
    model.write_bytes(sound[: int(kept * len(sound)) if 0 < kept < 1 else int(kept)])
    check_refused_convert(command, model, f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "data",
    [b"just some text, no model at all\n" * 9, b"\0" * 300, b"\xff" * 300, b"PK\3\4" + b"\7" * 99],
    ids=["text", "zeros", "ones", "zip start"],
)
def test_file_that_is_no_model_is_exit_3(
    command: Cli, tmp_path: Path, suffix: str, data: bytes
) -> None:
    model = tmp_path / f"m{suffix}"
    model.write_bytes(data)
    check_refused_convert(command, model, f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_model_never_gives_a_traceback(
    command: Cli, tmp_path: Path, suffix: str, sound: bytes
) -> None:
    rng = np.random.default_rng(len(sound))
    for number in range(25):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), 1 + number // 5):
            data[place] = rng.integers(256)
        model = tmp_path / f"m{number}{suffix}"
        model.write_bytes(data)
        layers = STATE_DICT[1:] if suffix in (".pt", ".pth", ".safetensors") else []
        code, _, err = command("inspect", model, *layers)
        assert code in (0, 3), err


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickle_with_code_is_refused_and_not_run(
    command: Cli, tmp_path: Path, suffix: str, protocol: int
) -> None:
    import io
    import pickle
    import zipfile

    marker = tmp_path / "ran"
    hostile = pickle.dumps({"lstm.weight_ih_l0": Hostile(marker)}, protocol)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("m/data.pkl", hostile)
        file.writestr("m/version", "3\n")
    for data in (hostile, archive.getvalue()):
        model = tmp_path / f"m{suffix}"
        model.write_bytes(data)
        check_refused_convert(command, model, f"m{suffix}")
        assert not marker.exists()
    # The test can fail: the pickle does run when it is opened the usual way.
    pickle.loads(hostile)
    assert marker.exists()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_exit_3(
    command: Cli, tmp_path: Path, poison: float
) -> None:
    model = tmp_path / "m.safetensors"
    model.write_bytes(safetensors(lstm_tensors(poison)))
    check_refused_convert(command, model, "lstm", "1 of 4096", "NaN or infinite")


@pytest.mark.parametrize("shape", [[2**40, 7], [2**31, 2**31], [-1, 7], [128, 2**62]])
def test_huge_dimensions_are_exit_3(command: Cli, tmp_path: Path, shape: list[int]) -> None:
    model = tmp_path / "m.safetensors"
    model.write_bytes(safetensors(lstm_tensors(), lstm_weight_ih_l0={"shape": shape}))
    check_refused_convert(command, model, "lstm.weight_ih_l0")


def test_huge_dimensions_in_onnx_are_exit_3(command: Cli, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    model = onnx.load(WEATHER / "model.onnx")
    (weights, *_) = (t for t in model.graph.initializer if len(t.dims) == 3)
    weights.dims[:] = [2**20, 2**20, 2**20]
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    check_refused_convert(command, path, "m.onnx")


def test_huge_dimensions_in_an_elstm_are_exit_3(
    command: Cli, converted: Path, tmp_path: Path
) -> None:
    with np.load(converted / "weather.elstm") as archive:
        arrays = dict(archive)
    name = next(n for n in arrays if n.endswith("recurrent_weights"))
    path = tmp_path / "m.elstm"
    write_npz(path, arrays, {name: (2**40, 2**20)})
    check_refused_convert(command, path, "m.elstm", name)


def write_npz(
    path: Path, arrays: dict[str, np.ndarray[Any, Any]], lies: dict[str, tuple[int, ...]]
) -> None:
    """Write an .npz in which the headers of ``lies`` name another shape than the data have."""
    import io
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        for name, value in arrays.items():
            header = np.lib.format.header_data_from_array_1_0(value)
            header["shape"] = lies.get(name, value.shape)
            buffer = io.BytesIO()
            np.lib.format.write_array_header_1_0(buffer, header)
            file.writestr(f"{name}.npy", buffer.getvalue() + value.tobytes())


# Broken and hostile data


def x_of(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "features": ({"x": x_of(10, 24, 8)}, "[10, 24, 8]"),
    "no time": ({"x": x_of(10, 7)}, "[10, 7]"),
    "scalar": ({"x": np.float32(1)}, "[]"),
    "no sequences": ({"x": x_of(0, 24, 7)}, "[0, 24, 7]"),
    "no steps": ({"x": x_of(10, 0, 7)}, "[10, 0, 7]"),
    "all zero": ({"x": np.zeros((10, 24, 7), np.float32)}, "all samples are 0.0"),
    "NaN": ({"x": np.full((10, 24, 7), np.nan, np.float32)}, "1680 of 1680 values are NaN"),
    "complex": ({"x": np.ones((10, 24, 7), np.complex64)}, "complex64"),
    "text": ({"x": np.array([["a"] * 7] * 24)[None]}, "<U1"),
    "no x": ({"inputs": x_of(10, 24, 7)}, "holds inputs; want an array named x"),
    "long lengths": ({"x": x_of(2, 24, 7), "lengths": np.array([24, 25])}, "24 to 25"),
    "zero lengths": ({"x": x_of(2, 24, 7), "lengths": np.array([0, 24])}, "0 to 24"),
    "many lengths": ({"x": x_of(2, 24, 7), "lengths": np.array([5, 6, 7])}, "[3]"),
    "float lengths": ({"x": x_of(2, 24, 7), "lengths": np.array([5.0, 6.0])}, "float"),
    "rows of y": ({"x": x_of(2, 24, 7), "y": x_of(3, 1)}, "y has shape [3, 1]; want [2, ...]"),
}


@pytest.mark.parametrize("which", BAD_DATA)
def test_calibration_data_that_do_not_fit_are_exit_2(
    command: Cli, tmp_path: Path, which: str
) -> None:
    arrays, words = BAD_DATA[which]
    np.savez(tmp_path / "c.npz", **arrays)
    arguments = ["-o", tmp_path / "out", "--calib", tmp_path / "c.npz"]
    refused(command("convert", *STATE_DICT, *arguments), 2, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", sorted(set(BAD_DATA) - {"all zero"}))
@pytest.mark.parametrize("kind", ["spec", "program"])
def test_input_data_that_do_not_fit_are_exit_2(
    command: Cli, converted: Path, tmp_path: Path, which: str, kind: str
) -> None:
    arrays, _ = BAD_DATA[which]
    np.savez(tmp_path / "x.npz", **arrays)
    model = STATE_DICT if kind == "spec" else [converted / "weather.elstm"]
    arguments = ["--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz"]
    refused(command("run", *model, *arguments), 2)
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    "data", [b"", b"text", b"PK\3\4 not a zip", CALIBRATION.read_bytes()[:5000], b"\x93NUMPY\1"]
)
def test_damaged_data_file_is_exit_2(command: Cli, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(data)
    arguments = ["-o", tmp_path / "out", "--calib", path]
    refused(command("convert", *STATE_DICT, *arguments), 2, "c.npz")
    assert not (tmp_path / "out").exists()


def test_data_file_with_huge_dimensions_is_exit_2(command: Cli, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    write_npz(path, {"x": x_of(10, 24, 7)}, {"x": (2**40, 24, 7)})
    arguments = ["-o", tmp_path / "out", "--calib", path]
    refused(command("convert", *STATE_DICT, *arguments), 2, "c.npz")


def test_data_file_with_code_is_refused_and_not_run(command: Cli, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    x = np.array([Hostile(marker)], dtype=object)
    np.savez(tmp_path / "c.npz", x=x)
    np.save(tmp_path / "c.npy", x)
    for name in ("c.npz", "c.npy"):
        arguments = ["-o", tmp_path / "out", "--calib", tmp_path / name]
        refused(command("convert", *STATE_DICT, *arguments), 2, name)
    assert not marker.exists()


# Places that cannot be read or written


def test_folder_in_place_of_a_file_is_refused(command: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "m.onnx"
    folder.mkdir()
    refused(command("inspect", folder), 3, "folder")
    refused(command("run", *STATE_DICT, "--input", folder, "--output", "y.npz"), 2, "m.onnx")


def test_output_folder_that_is_a_file_is_exit_2(command: Cli, tmp_path: Path) -> None:
    blocked = tmp_path / "out"
    blocked.write_text("mine")
    for output in (blocked, blocked / "below"):
        result = command("convert", *STATE_DICT, "-o", output, "--calib", CALIBRATION)
        refused(result, 2, str(output), "cannot be")
    assert blocked.read_text() == "mine"


def test_output_that_a_folder_stands_in_the_way_of_leaves_the_others_alone(
    command: Cli, tmp_path: Path
) -> None:
    (tmp_path / "w.elstm").mkdir()
    (tmp_path / "w_int8.tflite").write_text("before")
    arguments = ["-o", tmp_path, "--calib", CALIBRATION, "--name", "w", "--to", "tflite,elstm"]
    refused(command("convert", *STATE_DICT, *arguments), 2, "w.elstm", "folder")
    assert {p.name for p in tmp_path.iterdir()} == {"w.elstm", "w_int8.tflite"}
    assert (tmp_path / "w_int8.tflite").read_text() == "before"


# All modules are loaded before the rights are given up, so that only the model is out of reach.
WITHOUT_RIGHTS = """
import os, sys
from edge_lstm import cli
warm, *arguments = {commands!r}
assert cli.run(warm) == 0
if os.geteuid() == 0:
    os.setegid(65534), os.seteuid(65534)
sys.stdout.flush()
print("=====", flush=True)
sys.exit(cli.run(arguments))
"""


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """Give a folder that every user of the machine can enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a system with file modes")
def test_model_without_read_permission_is_exit_3(open_folder: Path, converted: Path) -> None:
    model = open_folder / "m.elstm"
    model.write_bytes((converted / "weather.elstm").read_bytes())
    model.chmod(0)
    warm = ["inspect", str(converted / "weather.elstm")]
    done = python(WITHOUT_RIGHTS.format(commands=[warm, "inspect", str(model)]))
    out = done.stdout.partition("=====\n")[2]
    refused((done.returncode, out, done.stderr), 3, "m.elstm", "permission denied")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a system with file modes")
def test_output_folder_without_write_permission_is_exit_2(
    open_folder: Path, converted: Path
) -> None:
    model = open_folder / "m.elstm"
    model.write_bytes((converted / "weather.elstm").read_bytes())
    model.chmod(0o644)
    folder = open_folder / "closed"
    folder.mkdir(0o555)
    warm = ["convert", str(model), "-o", str(open_folder / "warm")]
    for output in (folder, folder / "below"):
        again = ["convert", str(model), "-o", str(output)]
        done = python(WITHOUT_RIGHTS.format(commands=[warm, *again]))
        out = done.stdout.partition("=====\n")[2]
        refused((done.returncode, out, done.stderr), 2, str(output), "permission denied")
    assert list(folder.iterdir()) == []


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from edge_lstm import cli
sys.argv[1:] = {arguments!r}
cli.main()
"""


# The .onnx has about 22,000 bytes, the .tflite 9,000, the manifest 3,000.
@pytest.mark.parametrize("limit", [0, 2000, 8500, 12000])
@pytest.mark.parametrize("existed", [True, False])
def test_file_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, limit: int, existed: bool
) -> None:
    pytest.importorskip("resource", reason="needs a system with resource limits")
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    folder = tmp_path / "out"
    if existed:
        folder.mkdir()
        (folder / "weather.elstm").write_text("before")
    arguments = ["convert", *STATE_DICT, "-o", folder, "--calib", CALIBRATION, "--name", "weather"]
    done = python(LIMITED.format(limit=limit, arguments=[str(a) for a in arguments]))
    refused(
        (done.returncode, done.stdout, done.stderr), 2, f"{folder}: cannot be written: file too"
    )
    assert folder.exists() == existed
    if existed:
        assert {p.name: p.read_text() for p in folder.iterdir()} == {"weather.elstm": "before"}


def test_full_disk_is_exit_2_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = ["convert", *STATE_DICT, "-o", disk / "out", "--calib", CALIBRATION]
    command = " ".join(f"'{a}'" for a in [COMMAND, *arguments])
    # A mount of its own: nothing is left of it when the shell ends.
    script = (
        f"mount -t tmpfs -o size=16k none '{disk}' && {{ {command}; echo $?; ls -A '{disk}'; }}"
    )
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("unshare not found; Debian: apt install util-linux")
    if not done.stdout:
        pytest.skip(f"no right to mount a small disk (needs root): {done.stderr.strip()}")
    assert done.stdout == "2\n"
    refused((2, "", done.stderr), 2, f"{disk}/out: cannot be written: no space left on device")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_run_into_a_full_device_is_exit_2(command: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x_of(2, 24, 7))
    arguments = ["--input", tmp_path / "x.npy", "--output", "/dev/full/y.npz"]
    refused(command("run", *STATE_DICT, *arguments), 2, "/dev/full", "not a directory")


# Interruptions

WAITING = """
import sys, time
from edge_lstm import cli, program_file
def wait(*arguments):
    print("writing", flush=True)
    time.sleep(60)
program_file.save = wait
sys.argv[1:] = {arguments!r}
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_convert_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "new" / "out"
    arguments = ["convert", *STATE_DICT, "-o", folder, "--calib", CALIBRATION]
    code = WAITING.format(arguments=[str(a) for a in [*arguments, "--to", "tflite,elstm"]])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (draft,) = folder.iterdir()
        assert [path.suffix for path in draft.iterdir()] == [".tflite"]
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "edge-lstm: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_interruption_between_two_files_brings_the_old_ones_back(
    command: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w_int8.tflite").write_text("before")
    replace, moved = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        if target.parent == tmp_path and self.suffix != ".before":
            moved.append(target.name)
            if len(moved) == 3:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    arguments = ["-o", tmp_path, "--calib", CALIBRATION, "--name", "w", "--to", "tflite,elstm"]
    assert command("convert", *STATE_DICT, *arguments)[0] == 130
    assert moved == ["w_int8.tflite", "w.elstm", "w.manifest.json"]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"w_int8.tflite": "before"}
