import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm import float_reference
from edge_lstm.arrays import Array
from edge_lstm.errors import MissingTool, UnreadableModel, UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec
from edge_lstm_converters import READERS, read
from edge_lstm_converters.read_torch import find_state_dict, read_module, read_torch

MODELS = Path(__file__).parent / "models"
NEEDS_TORCH = "PyTorch not found: pip install torch"

# torch computes in float32, the reference in float64: sums of some hundred terms of either sign
# and 20 steps leave a relative difference of about 1e-6.
RELATIVE = 1e-5


def assert_close(got: Array, want: Array) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= RELATIVE * max(np.abs(want).max(), 1e-3)


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "layers.toml"
    path.write_text(text, encoding="utf8")
    return path


@pytest.mark.parametrize("name", ["stacked.pt", "stacked.safetensors"])
def test_the_sample_state_dicts_compute_what_torch_computed(name: str) -> None:
    spec = read(MODELS / name, layers=MODELS / "stacked_layers.toml")
    assert isinstance(spec, ModelSpec)
    answers = np.load(MODELS / "stacked_dynamo.npz")
    assert_close(float_reference.run(spec, answers["x"]), answers["y"])
    assert [layer.type_name for layer in spec.layers] == [
        "embedding",
        "lstm",
        "lstm",
        "laststep",
        "dense",
    ]


HOW = [("zip", "pt"), ("legacy", "pth"), ("safetensors", "safetensors")]


def save(torch: Any, state_dict: Any, path: Path, how: str) -> None:
    if how == "safetensors":
        reason = "safetensors not found: pip install safetensors"
        pytest.importorskip("safetensors.torch", reason=reason).save_file(state_dict, path)
    else:
        torch.save(state_dict, path, _use_new_zipfile_serialization=how == "zip")


@pytest.mark.parametrize(
    ("how", "suffix"), [("zip", "pt"), ("legacy", "pth"), ("safetensors",) * 2]
)
@pytest.mark.parametrize("seed", range(8))
def test_random_state_dicts_compute_what_torch_computes(
    tmp_path: Path, how: str, suffix: str, seed: int
) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    inputs, hidden, outputs = (int(n) for n in rng.integers(1, 24, 3))
    depth, bias, steps = int(rng.integers(1, 4)), bool(seed % 2), bool(seed % 4 < 2)
    lstm = torch.nn.LSTM(inputs, hidden, depth, bias=bias, batch_first=True, dropout=0.0)
    dense = torch.nn.Linear(hidden, outputs, bias=not bias)
    module = torch.nn.ModuleDict({"rnn": lstm, "head": dense}).eval()
    if seed == 3:
        module = module.double()
    path = tmp_path / f"model.{suffix}"
    save(torch, module.state_dict(), path, how)
    layers = config(
        tmp_path,
        f'[[layers]]\ntype = "lstm"\nweights = "rnn"\nreturn_sequences = {str(steps).lower()}\n'
        '[[layers]]\ntype = "dense"\nweights = "head"\nactivation = "tanh"\n',
    )
    x = rng.normal(size=(3, int(rng.integers(1, 20)), inputs)).astype(np.float32)
    with torch.no_grad():
        y = lstm(torch.from_numpy(x).to(next(module.parameters()).dtype))[0]
        want = torch.tanh(dense(y if steps else y[:, -1])).float().numpy()
    assert_close(float_reference.run(read_torch(path, layers), x), want)


def test_lengths_pick_the_step_that_torch_picks_from_a_packed_sequence(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 5, 2, batch_first=True)
    torch.save(lstm.state_dict(), tmp_path / "model.pt")
    layers = config(tmp_path, "[[layers]]\ntype='lstm'\nweights=''\nreturn_sequences=false")
    x, lengths = torch.randn(3, 7, 3), np.array([7, 2, 4])
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        want = lstm(packed)[1][0][-1].numpy()
    got = float_reference.run(read_torch(tmp_path / "model.pt", layers), x.numpy(), lengths)
    assert_close(got, want)


@pytest.mark.parametrize("name", ["stacked.pt", "stacked.safetensors"])
def test_without_a_configuration_the_message_ends_with_one_that_works(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        read_torch(MODELS / name)
    sentence, _, guessed = str(caught.value).partition("\n\n")
    assert sentence.startswith(f"{MODELS / name}: a state dict does not say the order")
    assert "\n" not in sentence
    got = read_torch(MODELS / name, config(tmp_path, guessed))
    want = read_torch(MODELS / name, MODELS / "stacked_layers.toml")
    x = np.load(MODELS / "stacked_dynamo.npz")["x"]
    assert (float_reference.run(got, x) == float_reference.run(want, x)).all()


def test_the_name_comes_from_the_argument_then_the_configuration_then_the_file(
    tmp_path: Path,
) -> None:
    text = (MODELS / "stacked_layers.toml").read_text(encoding="utf8")
    named = config(tmp_path, 'name = "in_config"\n' + text)
    assert read_torch(MODELS / "stacked.pt", named, "given").name == "given"
    assert read_torch(MODELS / "stacked.pt", named).name == "in_config"
    assert read_torch(MODELS / "stacked.pt", MODELS / "stacked_layers.toml").name == "stacked"


# Checkpoints that hold more than a state dict.

ONE = {"lstm.weight_ih_l0": np.zeros((8, 3)), "fc.weight": np.zeros((1, 2))}
OTHER = {"weight_ih_l0": np.ones((8, 3))}


def test_the_one_state_dict_is_found_wherever_it_is() -> None:
    path = Path("c.pt")
    assert find_state_dict(path, ONE) == ONE
    assert find_state_dict(path, {"model_state": ONE, "epoch": 3, "loss": 0.5}) == ONE
    assert find_state_dict(path, {"a": {"b": {"state_dict": ONE}}, "l": [1]}) == ONE
    moments = {"exp_avg": np.zeros((8, 3)), "step": np.zeros(())}
    trained = {"model": ONE, "optimizer": {"state": {"0": moments}, "param_groups": [{}]}}
    assert find_state_dict(path, trained) == ONE


def test_several_state_dicts_are_refused_with_their_keys_unless_one_is_named() -> None:
    both = {"model": ONE, "ema": {"model": OTHER}}
    with pytest.raises(UnsupportedModel, match=r"2 state dicts: 'model', 'ema\.model'; name one"):
        find_state_dict(Path("c.pt"), both)
    assert find_state_dict(Path("c.pt"), both, "ema.model") == OTHER
    with pytest.raises(UsageError, match=r"state_dict = 'emma'; the checkpoint has 'model'"):
        find_state_dict(Path("c.pt"), both, "emma")


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"epoch": 3}, "holds 'epoch' and no state dict"),
        ([1, 2], "holds a list and no state dict"),
        (np.zeros(3), "holds a ndarray and no state dict"),
        ({}, "holds a dict and no state dict"),
    ],
)
def test_a_checkpoint_without_weights_is_one_line(checkpoint: object, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message) as caught:
        find_state_dict(Path("c.pt"), checkpoint)
    assert "\n" not in str(caught.value)


def test_dicts_that_hold_each_other_end_the_search() -> None:
    inner: dict[str, Any] = dict(ONE)
    inner["self"] = inner
    wide: dict[str, Any] = {str(k): inner for k in range(100)}
    for _ in range(5):
        wide = {str(k): wide for k in range(100)}
    assert set(find_state_dict(Path("c.pt"), wide)) == set(ONE)


# Files.


def test_unknown_suffixes_are_refused_with_those_that_are_read() -> None:
    with pytest.raises(UnsupportedModel, match=r"m\.bin: suffix '\.bin'; edge-lstm reads \.h5"):
        read(Path("m.bin"))
    assert all(module.startswith("edge_lstm_converters.read_") for module, _, _ in READERS.values())


def test_layers_are_refused_where_the_file_says_its_own() -> None:
    for name in ("m.tflite", "m.pt2"):
        with pytest.raises(UsageError, match="--layers is for"):
            read(Path(name), layers=MODELS / "stacked_layers.toml")
    pytest.importorskip("onnx", reason="onnx not found: pip install 'edge-lstm[tools]'")
    with pytest.raises(
        UsageError, match=r"--layers may say start = .*, the layers are in the file"
    ):
        read(Path("m.onnx"), layers=MODELS / "stacked_layers.toml")


def test_an_empty_state_dict_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(UnreadableModel, match="has no tensors"):
        read_torch(path)


def test_reading_a_module_without_torch_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingTool, match=r"reading an nn\.Module needs it: pip install torch"):
        read_module(object(), None)


def test_resemblyzer_computes_what_torch_computes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from edge_lstm_benchmarks.datasets import resemblyzer_checkpoint

    torch.set_num_threads(1)
    try:
        path = resemblyzer_checkpoint()
    except MissingTool as error:
        pytest.skip(str(error))
    layers = config(
        tmp_path,
        'ignore = ["similarity_*"]\n'
        '[[layers]]\ntype = "lstm"\nweights = "lstm"\nreturn_sequences = false\n'
        '[[layers]]\ntype = "dense"\nweights = "linear"\nactivation = "relu"\n',
    )
    spec = read_torch(path, layers)
    saved = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    lstm, dense = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    for module, prefix in ((lstm, "lstm."), (dense, "linear.")):
        own = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        module.load_state_dict(own)
    # Mel powers span ten decades; this draw has their order of size.
    x = np.random.default_rng(0).exponential(1e-2, (2, 160, 40)).astype(np.float32)
    with torch.no_grad():
        want = torch.relu(dense(lstm(torch.from_numpy(x))[1][0][-1])).numpy()
    assert np.abs(want).max() > 0.1
    assert_close(float_reference.run(spec, x), want)
