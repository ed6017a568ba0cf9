import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from edge_lstm.errors import ModelError, UnreadableModel, UnsupportedModel
from edge_lstm_converters.torch_checkpoint import read_checkpoint

MODELS = Path(__file__).parent / "models"
NEEDS_TORCH = "PyTorch not found: pip install torch"


# A checkpoint by hand: pickle protocol 2 as torch.save writes it, and what it would never write.


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    return b"L%dL\n" % value


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def tensor(
    key: str = "0",
    elements: int = 6,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    storage: str = "FloatStorage",
) -> bytes:
    name = b"ctorch\n" + storage.encode() + b"\n"
    storage_id = tuple_of(text("storage"), name, text(key), text("cpu"), integer(elements)) + b"Q"
    arguments = tuple_of(
        storage_id,
        integer(offset),
        tuple_of(*map(integer, shape)),
        tuple_of(*map(integer, strides)),
        b"\x89",
        b"ccollections\nOrderedDict\n)R",
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def pickled(value: bytes) -> bytes:
    """Pickle a dict with one key, w."""
    return b"\x80\x02}" + text("w") + value + b"s."


def archive(
    data_pkl: bytes,
    storage: bytes | None = None,
    byte_order: bytes = b"little",
    more: tuple[str, ...] = (),
) -> bytes:
    """Return a zip with one storage, 0, of 0.0 to 5.0 unless given."""
    file = io.BytesIO()
    numbers = np.arange(6, dtype="<f4").tobytes()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("m/data.pkl", data_pkl)
        made.writestr("m/byteorder", byte_order)
        made.writestr("m/data/0", numbers if storage is None else storage)
        for name in more:
            made.writestr(f"m/{name}", b".")
    return file.getvalue()


def read(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    return read_checkpoint(path)


def test_a_checkpoint_by_hand_reads_as_its_array(tmp_path: Path) -> None:
    value = read(tmp_path, archive(pickled(tensor())))
    assert value["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    transposed = read(tmp_path, archive(pickled(tensor(shape=(3, 2), strides=(1, 3)))))
    assert transposed["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize(
    ("storage", "dtype"),
    [
        ("DoubleStorage", "f8"),
        ("FloatStorage", "f4"),
        ("HalfStorage", "f2"),
        ("LongStorage", "i8"),
        ("ByteStorage", "u1"),
    ],
)
def test_storages_read_as_numbers(
    tmp_path: Path, storage: str, dtype: str, byte_order: Literal["little", "big"]
) -> None:
    data = np.arange(6).astype(np.dtype(dtype).newbyteorder(byte_order)).tobytes()
    file = archive(pickled(tensor(storage=storage)), data, byte_order.encode())
    assert read(tmp_path, file)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_everything_torch_saves_reads_as_torch_loads_it(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    saved = {
        "model_state": {
            "float": base,
            "transposed": base.T,
            "part": base[1:3, ::2],
            "parameter": torch.nn.Parameter(torch.randn(3)),
            "double": torch.randn(2).double(),
            "half": torch.randn(2).half(),
            "bfloat": torch.randn(5).bfloat16(),
            "count": torch.tensor(3),
            "flag": torch.tensor([True, False]),
            "empty": torch.zeros(0, 3),
        },
        "epoch": 7,
        "loss": 0.25,
        "names": ["a", ("b", None)],
        "size": torch.Size([1]),
        "dtype": torch.float32,
    }
    path = tmp_path / "model.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    got = read_checkpoint(path)
    assert isinstance(got, dict)
    assert (got["epoch"], got["loss"], got["names"]) == (7, 0.25, ["a", ("b", None)])
    for name, want in saved["model_state"].items():
        values = want.detach().float().numpy() if name == "bfloat" else want.detach().numpy()
        assert got["model_state"][name].dtype == values.dtype, name
        assert (got["model_state"][name] == values).all(), name
        assert got["model_state"][name].shape == values.shape, name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_of_torch_save_reads(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    torch.save({"w": torch.arange(3.0)}, tmp_path / "model.pt", pickle_protocol=protocol)
    value = read_checkpoint(tmp_path / "model.pt")
    assert isinstance(value, dict)
    assert value["w"].tolist() == [0, 1, 2]


# Damage.


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(offset=1), r"tensor 'w': shape \[2, 3\], strides \[3, 1\], offset 1; its storage"),
        (tensor(offset=2**40), "its storage has 6 elements"),
        (tensor(strides=(4, 1)), "its storage has 6 elements"),
        (tensor(shape=(2**20, 2**20), strides=(0, 0)), "its storage has 6 elements"),
        (tensor(offset=-1), "offset -1"),
        (tensor(shape=(2, -3)), r"shape \(2, -3\)"),
        (tensor(strides=(-3, 1), offset=3), r"strides \(-3, 1\)"),
        (tensor(shape=(2,)), r"shape \(2,\)"),
        (tensor(shape=(1,) * 40, strides=(1,) * 40), "its storage has 6 elements"),
        (tensor(elements=2**40), "storage '0' has 24 bytes; want 4,398,046,511,104"),
        (tensor(elements=2**60), "storage '0': size"),
        (tensor(key="1"), "storage '1' is not in the file"),
        (tensor(key="../byteorder", elements=1), "has 6 bytes; want 4|is not in the file"),
        (text("storage") + b"Q", "a persistent id is no storage"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNt" + b"R", "a tensor has no storage"),
        (b"cbuiltins\nNone\n", "the pickle asks for builtins.None"),
    ],
)
def test_a_wrong_tensor_is_one_line(tmp_path: Path, value: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read(tmp_path, archive(pickled(value)))
    assert "\n" not in str(caught.value)


def test_state_set_behind_the_checks_does_not_change_a_tensor(tmp_path: Path) -> None:
    # BUILD sets attributes: strides that reach outside the storage, given after the check.
    for state in (
        b"}" + text("strides") + tuple_of(integer(10**6), integer(1)) + b"s",
        tuple_of(b"N", b"}" + text("strides") + tuple_of(integer(10**6), integer(1)) + b"s"),
        tuple_of(b"N", b"}" + text("_function") + b"ccollections\nOrderedDict\ns"),
    ):
        for subject in (tensor(), b"ctorch._utils\n_rebuild_tensor_v2\n"):
            with pytest.raises(UnreadableModel, match="damaged checkpoint"):
                read(tmp_path, archive(pickled(subject + state + b"b")))
    assert read(tmp_path, archive(pickled(tensor())))["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["stacked.pt", "malicious.pt"])
def test_every_truncation_is_one_line(tmp_path: Path, name: str) -> None:
    data = (MODELS / name).read_bytes()
    for size in range(0, len(data), max(1, len(data) // 97)):
        with pytest.raises(ModelError) as caught:
            read(tmp_path, data[:size])
        assert "\n" not in str(caught.value)


def test_every_truncation_of_a_legacy_file_is_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    path = tmp_path / "legacy.pt"
    torch.save({"w": torch.ones(3, 5)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert read(tmp_path, data)["w"].tolist() == [[1] * 5] * 3
    for size in range(len(data)):
        with pytest.raises(ModelError) as caught:
            read(tmp_path, data[:size])
        assert "\n" not in str(caught.value)


def test_random_damage_never_gives_another_kind_of_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = np.frombuffer(archive(pickled(tensor())), np.uint8)
    for _ in range(500):
        damaged = data.copy()
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(ModelError):
            read(tmp_path, damaged.tobytes())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am a text\n", "not a PyTorch checkpoint"),
        (pickle.dumps({"a": 1}), "a pickle, but not one that torch.save wrote"),
        (archive(b"\x80\x02}.").replace(b"data.pkl", b"data.pkm"), "with 0 data.pkl"),
        (archive(pickled(tensor()), more=("constants.pkl",)), "a TorchScript archive"),
        (archive(pickled(tensor()), more=("models/model.json",)), r"name it \.pt2"),
        (
            archive(pickled(tensor()), byte_order=b"middle"),
            "byte order b'middle'; want little",
        ),
        (archive(b"\x80\x02."), "damaged checkpoint"),
        (archive(b"\x80\x02}r\xff\xff\xff\x7f."), "memo index 2147483647"),
        (archive(b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00."), "damaged|opcode"),
        (archive(b"\x80\x02\x82\x01."), "pickle opcode EXT1 is no part of a state dict"),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("m/data.pkl", pickled(tensor(elements=2**24)))
        made.writestr("m/data/0", bytes(2**26))
    with pytest.raises(UnreadableModel, match="its parts claim 67,1"):
        read(tmp_path, file.getvalue())


def test_a_pickle_of_millions_of_dicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="over 4,000,000 steps"):
        read(tmp_path, archive(b"\x80\x02" + b"}" * 4_000_001 + b"."))


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableModel, match="cannot be read: no such file"):
        read_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(UnreadableModel, match="is a folder"):
        read_checkpoint(tmp_path)


# Code.


class Touch:
    """Pickles as code that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_checkpoint_is_refused_by_name_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "was_run"
    code = pickle.dumps({"w": Touch(marker)}, protocol=protocol)
    with pytest.raises(UnsupportedModel, match=r"asks for __builtin__\.getattr|asks for pathlib"):
        read(tmp_path, archive(code))
    assert not marker.exists()


def test_the_code_of_the_test_above_runs_where_nothing_stops_it(tmp_path: Path) -> None:
    marker = tmp_path / "was_run"
    pickle.loads(pickle.dumps({"w": Touch(marker)}, protocol=2))
    assert marker.exists()


def test_the_malicious_sample_is_refused_by_the_name_of_its_function() -> None:
    with pytest.raises(UnsupportedModel, match=r"malicious\.pt: the pickle asks for posix\.system"):
        read_checkpoint(MODELS / "malicious.pt")


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    torch.save(torch.nn.LSTM(2, 3), tmp_path / "model.pt", pickle_protocol=protocol)
    with pytest.raises(
        UnsupportedModel,
        match=r"a pickled nn\.Module \(torch\.nn\.modules\.rnn\.LSTM\).*model\.state_dict\(\)",
    ):
        read_checkpoint(tmp_path / "model.pt")


def test_a_quantized_tensor_is_refused_by_its_rebuilder(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"torch\._utils\._rebuild_qtensor"):
        read(tmp_path, archive(pickled(b"ctorch._utils\n_rebuild_qtensor\n)R")))


# Independence of PyTorch.

LOADED = "; import sys; print('torch' in sys.modules)"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=MODELS
    )
    return done.stdout.strip()


def test_reading_a_checkpoint_does_not_load_torch() -> None:
    code = (
        "from pathlib import Path; from edge_lstm_converters import read;"
        " read(Path('stacked.pt'), layers=Path('stacked_layers.toml'));"
        " read(Path('stacked.safetensors'), layers=Path('stacked_layers.toml'))"
    )
    assert run_python(code + LOADED) == "False"


def test_the_check_above_sees_torch_when_it_is_loaded() -> None:
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    assert run_python("import torch" + LOADED) == "True"
