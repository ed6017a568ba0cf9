from pathlib import Path

import numpy as np
import pytest

from edge_lstm.arrays import Array
from edge_lstm.cells import Dense, Lstm
from edge_lstm.errors import EdgeLstmError, ModelError, UnsupportedModel, UsageError
from edge_lstm.spec import ModelSpec, Signal
from edge_lstm_converters.layer_config import LAYER_KEYS, build, read_config
from edge_lstm_converters.suggest_layers import suggest

LSTM = '[[layers]]\ntype = "lstm"\nweights = "lstm"\nreturn_sequences = false\n'
DENSE = '[[layers]]\ntype = "dense"\nweights = "fc"\n'


def lstm_weights(prefix: str, inputs: int, hidden: int, depth: int = 1) -> dict[str, Array]:
    start = f"{prefix}." if prefix else ""
    weights: dict[str, Array] = {}
    rng = np.random.default_rng(0)
    for k in range(depth):
        size = inputs if k == 0 else hidden
        for name, shape in (
            ("weight_ih", (4 * hidden, size)),
            ("weight_hh", (4 * hidden, hidden)),
            ("bias_ih", (4 * hidden,)),
            ("bias_hh", (4 * hidden,)),
        ):
            weights[f"{start}{name}_l{k}"] = rng.normal(size=shape).astype(np.float32)
    return weights


def dense_weights(prefix: str, inputs: int, outputs: int) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        f"{prefix}.weight": rng.normal(size=(outputs, inputs)).astype(np.float32),
        f"{prefix}.bias": rng.normal(size=outputs).astype(np.float32),
    }


def make(tmp_path: Path, text: str, weights: dict[str, Array] | None = None) -> ModelSpec:
    path = tmp_path / "layers.toml"
    path.write_text(text, encoding="utf8")
    given = lstm_weights("lstm", 3, 4) | dense_weights("fc", 4, 2) if weights is None else weights
    return build(read_config(path), given, Path("model.pt"))


def types(spec: ModelSpec) -> list[str]:
    return [layer.type_name for layer in spec.layers]


def test_a_configuration_becomes_its_layers_in_order(tmp_path: Path) -> None:
    spec = make(tmp_path, f'name = "net"\ntime_steps = 9\n{LSTM}{DENSE}activation = "sigmoid"\n')
    assert types(spec) == ["lstm", "laststep", "dense", "sigmoid"]
    assert [layer.name for layer in spec.layers] == ["lstm", "last_step", "fc", "fc_sigmoid"]
    assert (spec.name, spec.time_steps, spec.input) == ("net", 9, Signal("sequence", 3))


def test_every_layer_of_a_stack_is_found_and_only_the_last_loses_its_steps(tmp_path: Path) -> None:
    weights = lstm_weights("rnn.core", 3, 4, depth=3)
    text = LSTM.replace('"lstm"\nret', '"rnn.core"\nret')
    spec = make(tmp_path, text, weights)
    assert [layer.name for layer in spec.layers] == [
        "rnn_core_l0",
        "rnn_core_l1",
        "rnn_core_l2",
        "last_step",
    ]
    assert types(make(tmp_path, text.replace("false", "true"), weights)) == ["lstm"] * 3


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_relu_is_computed_by_the_dense_layer_itself(tmp_path: Path, activation: str) -> None:
    spec = make(tmp_path, f'{LSTM}{DENSE}activation = "{activation}"\n')
    assert isinstance(spec.layers[-1], Dense)
    assert spec.layers[-1].activation == activation


def test_the_other_layer_types_are_built(tmp_path: Path) -> None:
    text = (
        '[[layers]]\ntype = "embedding"\nweights = "emb"\n'
        + LSTM.replace("false", "true")
        + '[[layers]]\ntype = "dropout"\n[[layers]]\ntype = "activation"\nkind = "tanh"\n'
        + '[[layers]]\ntype = "flatten"\ntime_steps = 5\n'
        + DENSE
    )
    weights = lstm_weights("lstm", 3, 4) | dense_weights("fc", 20, 2)
    weights["emb.weight"] = np.ones((7, 3), np.float32)
    spec = make(tmp_path, text, weights)
    assert types(spec) == ["embedding", "lstm", "dropout", "tanh", "flatten", "dense"]
    assert (spec.input, spec.time_steps) == (Signal("tokens", 7), 5)
    last = LSTM.replace("false", "true") + '[[layers]]\ntype = "last_step"\n' + DENSE
    assert types(make(tmp_path, last)) == ["lstm", "laststep", "dense"]


def test_a_dense_layer_without_bias_gets_zeros(tmp_path: Path) -> None:
    weights = lstm_weights("lstm", 3, 4) | dense_weights("fc", 4, 2)
    del weights["fc.bias"]
    dense = make(tmp_path, LSTM + DENSE, weights).layers[-1]
    assert isinstance(dense, Dense)
    assert dense.bias.tolist() == [0, 0]


def test_a_bare_lstm_has_an_empty_prefix(tmp_path: Path) -> None:
    text = '[[layers]]\ntype = "lstm"\nweights = ""\nreturn_sequences = true\n'
    spec = make(tmp_path, text, lstm_weights("", 3, 4))
    assert [layer.name for layer in spec.layers] == ["lstm"]


def test_modules_of_a_sequential_get_names_that_start_with_a_letter(tmp_path: Path) -> None:
    text = (LSTM + DENSE).replace('"fc"', '"1"').replace('weights = "lstm"', 'weights = "0"')
    spec = make(tmp_path, text, lstm_weights("0", 3, 4) | dense_weights("1", 4, 2))
    assert [layer.name for layer in spec.layers] == ["lstm_0", "last_step", "dense_1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers = 3", "layers = 3; want a list"),
        ("", r"has no \[\[layers\]\]"),
        ("layers = [1]", r"layer 1 is 1; want a \[\[layers\]\] table"),
        (
            "typo = 1\n" + LSTM,
            "key 'typo'; want one of name, time_steps, state_dict, ignore",
        ),
        ("time_steps = 0\n" + LSTM, "time_steps = 0; want at least 1"),
        ("time_steps = true\n" + LSTM, "time_steps = True; want a whole number"),
        ("ignore = [1]\n" + LSTM, r"ignore = \[1\]; want texts"),
        (
            "[[layers]]\nweights = 'x'",
            "layer 1: type is missing; want one of lstm, gru, rnn",
        ),
        ("[[layers]]\ntype = 'gan'", "layer 1: type = 'gan'; want one of lstm, gru"),
        ("[[layers]]\ntype = 4", "layer 1: type = 4; want one of lstm, gru"),
        (DENSE, 'no layer has type = "lstm" or "gru" or "rnn"'),
        (
            LSTM.replace('type = "lstm"', 'type = "rnn"'),
            "nonlinearity is missing; want tanh or relu",
        ),
        (LSTM + "final_states = true", "final_states is for a bidirectional layer"),
        (LSTM + "units = 3", r"layer 1 \(lstm\): key 'units'; want weights, return_sequences"),
        (LSTM.replace("false", "0"), "return_sequences = 0; want true or false"),
        (
            "[[layers]]\ntype = 'lstm'\nweights = 'lstm'",
            "return_sequences is missing; want true",
        ),
        ("[[layers]]\ntype = 'lstm'\nreturn_sequences = true", "weights is missing; want text"),
        (
            LSTM + DENSE + "activation = 'gelu'",
            r"layer 2 \(dense\): activation = 'gelu'; want one of linear, sigmoid, tanh, softmax",
        ),
        (LSTM + "[[layers]]\ntype = 'activation'", r"kind is missing; want sigmoid or tanh or"),
        (LSTM + "[[layers]]\ntype = 'last_step'\nk = 1", "key 'k'; want no key but type"),
        ("[[layers]\n", "not TOML"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'layers.toml'}")
    assert "\n" not in str(caught.value)


def test_unreadable_configurations_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: no such file"):
        read_config(tmp_path / "nowhere.toml")
    (tmp_path / "layers.toml").write_bytes(b"\xff\xfe[[layers]]")
    with pytest.raises(UsageError, match="not TOML"):
        read_config(tmp_path / "layers.toml")
    (tmp_path / "layers.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(UsageError, match="over 1,048,576 bytes"):
        read_config(tmp_path / "layers.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LSTM + DENSE.replace("fc", "head"), r"layer 2 \(dense\): weights = 'head'; model\.pt has"),
        (LSTM, r"no layer uses 'fc\.weight', 'fc\.bias' of model\.pt; add the layer, or the name"),
        ("ignore = ['x*']\n" + LSTM + DENSE, r"ignore 'x\*' matches no weight"),
        (
            LSTM.replace("false", "true") + "[[layers]]\ntype = 'flatten'\n" + DENSE,
            r"layer 2 \(flatten\): time_steps is missing",
        ),
        (
            "time_steps = 4\n" + LSTM + "[[layers]]\ntype = 'flatten'\ntime_steps = 5\n" + DENSE,
            r"layer 2 \(flatten\): time_steps = 5; want 4, as above",
        ),
        (LSTM + "[[layers]]\ntype = 'flatten'\ntime_steps = 0\n" + DENSE, "want at least 1"),
        (
            DENSE + LSTM,
            r"layer 2: layer 'lstm' \(lstm\): is fed sequence \[time, 2\]; LSTM must be fed",
        ),
        (LSTM + LSTM + DENSE, "layer 2: layer 'lstm_2'"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_declared_leftovers_are_left_alone(tmp_path: Path) -> None:
    weights = lstm_weights("lstm", 3, 4) | {"similarity_weight": np.ones(1, np.float32)}
    assert types(make(tmp_path, "ignore = ['similarity_*']\n" + LSTM, weights)) == [
        "lstm",
        "laststep",
    ]
    with pytest.raises(UsageError, match="no layer uses 'similarity_weight'"):
        make(tmp_path, LSTM, weights)


def renamed(weights: dict[str, Array], old: str, new: str) -> dict[str, Array]:
    return {(new if name == old else name): values for name, values in weights.items()}


def with_value(name: str, values: Array) -> dict[str, Array]:
    return lstm_weights("lstm", 3, 4) | dense_weights("fc", 4, 2) | {name: values}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (with_value("lstm.weight_ih_l0_reverse", np.zeros((16, 3))), "weight_hh_l0_reverse is mis"),
        (with_value("lstm.weight_hr_l0", np.zeros((2, 4), np.float32)), r"\[4, 4\]; want \[4, 2\]"),
        (with_value("lstm.weight_hh_l0", np.zeros((12, 4))), "has the weights of a GRU"),
        (with_value("lstm.weight_hh_l0", np.zeros((4, 4))), "has the weights of an RNN"),
        (with_value("lstm.weight_hh_l0", np.zeros((16, 5))), r"shape \[16, 5\]; want \[4\*hidden"),
        (with_value("lstm.weight_ih_l0", np.zeros((15, 3))), r"shape \[15, 3\]"),
        (with_value("lstm.weight_hh_l0", np.full((16, 4), np.nan)), "64 of 64 values are NaN"),
        (with_value("lstm.bias_ih_l0", np.full(16, 1e300)), "16 of 16 values are NaN or infinite"),
        (with_value("lstm.weight_hh_l0", np.zeros((16, 4), np.int64)), "int64; want float32"),
        (with_value("fc.weight", np.zeros((2, 4, 1))), r"its weight has shape \[2, 4, 1\]"),
        (with_value("fc.bias", np.zeros(3, np.float32)), r"bias: shape \[3\]; want \[2\]"),
        (with_value("fc.bias", np.full(2, np.inf, np.float32)), "fc.bias: 2 of 2 values are NaN"),
        (
            renamed(with_value("fc.bias", np.zeros(2)), "lstm.weight_hh_l0", "lstm.weight_hh_l1"),
            "weight_hh_l0 is missing",
        ),
    ],
)
def test_weights_of_another_kind_are_one_line(
    tmp_path: Path, weights: dict[str, Array], message: str
) -> None:
    with pytest.raises(EdgeLstmError, match=message) as caught:
        make(tmp_path, LSTM + DENSE, weights)
    assert isinstance(caught.value, ModelError | UsageError)
    assert "\n" not in str(caught.value)


# The guessed configuration.


@pytest.mark.parametrize("alphabetic", [False, True], ids=["as saved", "by the alphabet"])
def test_the_guessed_configuration_completes_the_state_dict(
    tmp_path: Path, alphabetic: bool
) -> None:
    weights = (
        {"emb.weight": np.ones((9, 3), np.float32)}
        | lstm_weights("rnn", 3, 4, depth=2)
        | dense_weights("head.0", 4, 6)
        | dense_weights("head.2", 6, 2)
    )
    if alphabetic:
        weights = dict(sorted(weights.items()))
    spec = make(tmp_path, suggest("model.pt", weights), weights)
    assert types(spec) == ["embedding", "lstm", "lstm", "laststep", "dense", "dense"]


def test_two_recurrent_modules_are_guessed_to_follow_each_other(tmp_path: Path) -> None:
    weights = (
        dense_weights("front", 5, 3) | lstm_weights("a", 3, 4) | lstm_weights("b", 4, 6)
    ) | dense_weights("head", 6, 1)
    spec = make(tmp_path, suggest("model.pt", weights), weights)
    assert types(spec) == ["dense", "lstm", "lstm", "laststep", "dense"]
    assert isinstance(spec.layers[2], Lstm)


def test_the_guess_names_what_fits_nowhere_but_does_not_ignore_it(tmp_path: Path) -> None:
    weights = lstm_weights("lstm", 3, 4) | {"norm.weight": np.ones(4, np.float32)}
    text = suggest("model.pt", weights)
    assert '# ignore = ["norm.weight"]' in text
    with pytest.raises(UsageError, match=r"no layer uses 'norm\.weight'"):
        make(tmp_path, text, weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (dense_weights("fc", 4, 2), "has no recurrent weights"),
        ({"c.weight_ih": np.zeros((8, 3)), "c.weight_hh": np.zeros((8, 2))}, "LSTMCell"),
        ({"c.weight_ih_l1": np.zeros((8, 3))}, "c has no weight_ih_l0"),
        (with_value("lstm.weight_ih_l0", np.zeros(3)), r"lstm\.weight_ih_l0: shape \[3\]"),
    ],
)
def test_no_configuration_is_guessed_for_what_cannot_be_converted(
    weights: dict[str, Array], message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message) as caught:
        suggest("model.pt", weights)
    assert "\n" not in str(caught.value)


def test_names_with_quotes_stay_inside_their_text(tmp_path: Path) -> None:
    prefix = 'a"\n[[layers]]\ntype = "dropout"\n#'
    text = suggest("model.pt", lstm_weights(prefix, 3, 4))
    assert types(make(tmp_path, text, lstm_weights(prefix, 3, 4))) == ["lstm", "laststep"]


def test_every_layer_type_is_in_the_modules_docstring() -> None:
    import edge_lstm_converters.layer_config as module

    for kind in LAYER_KEYS:
        assert kind in (module.__doc__ or ""), kind
