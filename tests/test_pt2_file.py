import contextlib
import io
import json
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm.spec import ModelSpec
from edge_lstm_converters import read
from edge_lstm_converters.pt2_file import read_pt2
from edge_lstm_converters.read_torch_export import read_exported

torch = pytest.importorskip("torch", reason="PyTorch not found: pip install torch")


class Net(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]  # Any to mypy
    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, batch_first=True)
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.fc(self.lstm(x)[0][:, -1])


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def saved(net: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch.export warns of the list that nn.LSTM keeps its weights in.
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (torch.zeros(2, 5, 3),)), file)
    return file.getvalue()


def changed(data: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """Return the archive with each part as ``change`` gives it; None leaves it out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            part = change(name, old.read(name))
            if part is not None:
                new.writestr(name, part)
    return file.getvalue()


def with_json(data: bytes, file: str, change: Callable[[Any], None]) -> bytes:
    def edit(name: str, part: bytes) -> bytes:
        if not name.endswith(file):
            return part
        value = json.loads(part)
        change(value)
        return json.dumps(value).encode()

    return changed(data, edit)


def test_a_file_computes_what_torch_computes(tmp_path: Path, net: Any, saved: bytes) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(saved)
    spec = read(path)
    assert isinstance(spec, ModelSpec)
    x = np.random.default_rng(0).normal(size=(3, 8, 3)).astype(np.float32)
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    # float32 in torch, float64 here: 8 steps of sums of 7 terms below 1.
    assert np.abs(float_reference.run(spec, x) - want).max() < 1e-6
    assert spec.name == "net"
    assert spec.source["format"] == "torch.export"


def test_reading_a_file_does_not_load_torch(tmp_path: Path, saved: bytes) -> None:
    (tmp_path / "net.pt2").write_bytes(saved)
    code = (
        "import sys; from pathlib import Path; from edge_lstm_converters import read;"
        " read(Path('net.pt2')); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "False"


class Touch:
    """Pickles as code that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def with_code(data: bytes, marker: Path) -> bytes:
    """Return the file with code as a pickled constant, where torch.export.load unpickles it."""
    code = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    data = with_json(data, "constants_config.json", lambda v: v["config"].update(code=code))
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(Touch(marker)))
    return file.getvalue()


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, saved: bytes) -> None:
    marker = tmp_path / "was_run"
    path = tmp_path / "net.pt2"
    path.write_bytes(with_code(saved, marker))
    with pytest.raises(UnsupportedModel, match="'code' is a pickled object, which may hold code"):
        read_exported(path)
    assert not marker.exists()


def test_the_code_of_the_test_above_runs_in_pytorchs_own_loader(
    tmp_path: Path, saved: bytes
) -> None:
    marker = tmp_path / "was_run"
    # What the code leaves does not fit the program; by then it has run.
    with contextlib.suppress(Exception):
        torch.export.load(io.BytesIO(with_code(saved, marker)))
    assert marker.exists()


def test_every_truncation_is_one_line(saved: bytes) -> None:
    for size in range(0, len(saved), 211):
        with pytest.raises(ModelError) as caught:
            read_pt2(Path("net.pt2"), saved[:size])
        assert "\n" not in str(caught.value)


def test_every_part_is_needed_or_not_read(saved: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        names = archive.namelist()
    read_parts = ("weights/", "constants/", "model.json")
    for gone in names:

        def without(name: str, part: bytes, gone: str = gone) -> bytes | None:
            return None if name == gone else part

        data = changed(saved, without)
        if any(word in gone for word in read_parts):
            with pytest.raises(ModelError) as caught:
                read_pt2(Path("net.pt2"), data)
            assert "\n" not in str(caught.value)
        else:
            assert read_pt2(Path("net.pt2"), data).inputs == ("x",)


def weight(value: Any) -> Any:
    return value["config"]["fc.weight"]


def program(value: Any) -> Any:
    return value["graph_module"]["graph"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("weights_config.json", lambda v: weight(v).update(use_pickle=True), "a pickled object"),
        (
            "weights_config.json",
            lambda v: weight(v)["tensor_meta"].update(storage_offset={"as_int": 3}),
            "'fc.weight': shape .* offset 3; its storage has 8 elements",
        ),
        (
            "weights_config.json",
            lambda v: weight(v)["tensor_meta"].update(sizes=[{"as_int": 2**40}, {"as_int": 4}]),
            "its storage has 8 elements",
        ),
        ("weights_config.json", lambda v: weight(v)["tensor_meta"].update(dtype=10), "type 10"),
        ("weights_config.json", lambda v: v["config"].pop("fc.weight"), "'fc.weight' is not in"),
        ("weights_config.json", lambda v: v.pop("config"), "damaged .pt2 file"),
        ("model.json", lambda v: v["schema_version"].update(major=9), "schema 9 of PyTorch"),
        ("model.json", lambda v: v.pop("graph_module"), "damaged .pt2 file"),
        ("model.json", lambda v: program(v)["nodes"].append(3), "damaged .pt2 file"),
        ("model.json", lambda v: program(v)["tensor_values"].pop("x"), "tensor 'x' has no sizes"),
        (
            "model.json",
            lambda v: program(v)["tensor_values"]["x"].update(sizes=[{"as_int": -1}]),
            "a tensor has size -1",
        ),
        ("model.json", lambda v: program(v)["nodes"].pop(), "reads .*, which no node gives"),
        (
            "model.json",
            lambda v: program(v)["nodes"][-2].update(target="torch.ops.os.system"),
            r"node 'select', os\.system: has no counterpart here",
        ),
    ],
)
def test_damage_inside_is_one_line(
    tmp_path: Path, saved: bytes, file: str, change: Callable[[Any], None], message: str
) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(with_json(saved, file, change))
    with pytest.raises(ModelError, match=message) as caught:
        read_exported(path)
    assert "\n" not in str(caught.value)


def test_arguments_of_another_type_are_one_line(tmp_path: Path, saved: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("model.json"))
        nodes = json.loads(archive.read(name))["graph_module"]["graph"]["nodes"]
    others = [
        {"as_none": True},
        {"as_string": "text"},
        {"as_int": 2**70},
        {"as_int": -9},
        {"as_ints": [5, 7]},
        {"as_tensor": {"name": "x"}},
        {"as_tensors": [{"name": "x"}]},
        {"as_sym_int": {"as_name": "s0"}},
    ]
    path = tmp_path / "net.pt2"
    refused = 0
    for i, node in enumerate(nodes):
        for j in range(len(node["inputs"])):
            for other in others:

                def change(value: Any, i: int = i, j: int = j, other: Any = other) -> None:
                    program(value)["nodes"][i]["inputs"][j]["arg"] = other

                path.write_bytes(with_json(saved, "model.json", change))
                try:
                    read_exported(path)
                except ModelError as error:
                    refused += 1
                    message = str(error)
                    assert "\n" not in message
    assert refused > 50


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"text", "not a .pt2 file; save it again"),
        (b"PK\x03\x04", "not a .pt2 file"),
    ],
)
def test_a_file_of_another_kind_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableModel, match=message):
        read_pt2(Path("net.pt2"), data)


def test_a_checkpoint_named_pt2_is_one_line() -> None:
    data = (Path(__file__).parent / "models" / "stacked.pt").read_bytes()
    with pytest.raises(UnreadableModel, match=r"with 0 models/model\.json"):
        read_pt2(Path("net.pt2"), data)
