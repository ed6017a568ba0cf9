"""The dependency rules of ARCHITECTURE.md that no linter sees; each check is shown to fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Runs code, then prints which modules it loaded beyond those that `before` had. `__spec__` is None
# for modules that compiled extensions make up at run time (cython_runtime).
MODULES_LOADED = """
import importlib, json, sys
for name in {before!r}:
    importlib.import_module(name)
before = set(sys.modules)
{code}
new = set(sys.modules) - before
print(json.dumps(sorted(n for n in new if getattr(sys.modules[n], "__spec__", None) is not None)))
"""


def modules_loaded(code: str, before: tuple[str, ...] = ("json",)) -> list[str]:
    """Return the modules that ``code`` loads in a new interpreter after importing ``before``."""
    script = MODULES_LOADED.format(code=code, before=before)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    names: list[str] = json.loads(result.stdout)
    return names


def third_party(modules: list[str]) -> set[str]:
    """Return the top-level names in ``modules`` that a device with only NumPy does not have."""
    return {name.partition(".")[0] for name in modules} - {
        *sys.stdlib_module_names,
        "edge_lstm",
        "numpy",
    }


def test_import_loads_numpy_and_the_standard_library_only() -> None:
    assert third_party(modules_loaded("import edge_lstm")) == set()


def test_import_check_sees_a_third_party_package() -> None:
    assert "hypothesis" in third_party(modules_loaded("import edge_lstm, hypothesis"))


def test_import_adds_few_modules_to_numpy() -> None:
    # 52 to 56 by Python version: 18 of ours, the rest for zipfile, tempfile and hashlib. All
    # together may take 30 ms.
    added = modules_loaded("import edge_lstm", before=("json", "numpy"))
    assert len(added) <= 75, added


def test_import_count_sees_a_heavy_module() -> None:
    added = modules_loaded("import edge_lstm, hypothesis", before=("json", "numpy"))
    assert len(added) > 75


def ruff_codes(code: str, path: str) -> list[str]:
    """Return the rules that ruff finds broken when ``code`` stands in the file ``path``."""
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format=json", "--stdin-filename", path],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return [finding["code"] for finding in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("ai_edge_litert", "benchmarks/edge_lstm_benchmarks/backends/litert.py"),
        ("flatbuffers", "converters/edge_lstm_converters/tflite_schema.py"),
        ("h5py", "converters/edge_lstm_converters/hdf5_file.py"),
        ("onnx", "converters/edge_lstm_converters/read_onnx.py"),
        ("onnx", "converters/edge_lstm_converters/write_onnx.py"),
        ("onnxruntime", "benchmarks/edge_lstm_benchmarks/backends/onnxruntime.py"),
        ("tflite_micro", "benchmarks/edge_lstm_benchmarks/backends/tflm.py"),
        ("tflite_runtime", "benchmarks/edge_lstm_benchmarks/backends/tflite_runtime.py"),
        ("torch", "converters/edge_lstm_converters/read_torch.py"),
        ("typer", "edge_lstm/cli.py"),
    ],
)
def test_a_format_or_engine_is_imported_in_its_own_file_only(package: str, home: str) -> None:
    code = f"def use() -> None:\n    import {package}\n\n    print({package})\n"
    assert ruff_codes(code, home) == []
    assert ruff_codes(code, "edge_lstm/runtime.py") == ["TID251"]
    assert ruff_codes(code, "converters/edge_lstm_converters/layouts.py") == ["TID251"]
