"""What every layer promises, whichever it is; layers are found, and each needs a case here."""

import ast
import importlib
import inspect
import pathlib

import keras
import numpy as np
import pytest

from undivided_tf import layers

FOLDER = pathlib.Path(layers.__file__).parent
BATCH, LENGTH, HIDDEN, PIECES, PLACES = 2, 5, 8, 11, 3


def find_layers():
    """The classes of `undivided_tf.layers` that are Keras layers with a `call`, and all others."""
    called, rest = [], []
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                module = importlib.import_module(f"undivided_tf.layers.{path.stem}")
                kind = getattr(module, node.name)
                is_layer = issubclass(kind, keras.layers.Layer)
                is_called = is_layer and kind.call is not keras.layers.Layer.call
                (called if is_called else rest).append(kind)
    return called, rest


LAYERS, REST = find_layers()


def hidden():
    return np.random.default_rng(0).normal(size=(BATCH, LENGTH, HIDDEN)).astype("float32")


def ids(end, length=LENGTH):
    return np.random.default_rng(1).integers(0, end, (BATCH, length)).astype("int32")


def masked():
    return {"hidden": hidden(), "padding_mask": np.int32([[1] * LENGTH, [1, 1, 1, 0, 0]])}


def head_inputs(positions):
    table = np.random.default_rng(2).normal(size=(PIECES, HIDDEN)).astype("float32")
    places = ids(LENGTH, PLACES) if positions else None
    return {"sequence_output": hidden(), "masked_positions": places, "word_embeddings": table}


# Of each layer, arguments of its constructor and of its call.
BLOCK = {"hidden_dropout_prob": 0.2, "layer_norm_eps": 1e-6, "initializer_range": 0.1, "seed": 3}
CASES = {
    "AttentionBlock": [
        ({"num_attention_heads": 2, **BLOCK}, masked()),
        ({"num_attention_heads": 4, "norm_first": True}, {**masked(), "positions": ids(5, PLACES)}),
        (
            {"num_attention_heads": 2, "attention_normalization": "relu", "use_layer_norm": False,
             "attention_probs_dropout_prob": 0.3, "recompute": True},
            masked(),
        ),
    ],
    "IntermediateBlock": [
        ({"intermediate_size": 16, **BLOCK}, {"hidden": hidden()}),
        (
            {"intermediate_size": 16, "hidden_activation": "gelu_tanh", "norm_first": True,
             "recompute": True},
            {"hidden": hidden()},
        ),
    ],
    "Embeddings": [
        (
            {"vocab_size": PIECES, "hidden_size": HIDDEN, "max_position_embeddings": 7,
             "type_vocab_size": 3, **BLOCK},
            {"token_ids": ids(PIECES), "segment_ids": ids(3)},
        ),
    ],
    "Dropout": [
        ({"rate": 0.5, "seed": 3}, {"inputs": hidden()}),
        ({"rate": 0.0}, {"inputs": hidden()}),
    ],
    "MaskedLMHead": [
        ({"vocab_size": PIECES, "hidden_activation": "relu", "seed": 3}, head_inputs(True)),
        ({"vocab_size": PIECES}, head_inputs(False)),
    ],
}  # fmt: skip
CALLS = [
    pytest.param(kind, *case, id=f"{kind.__name__}-{number}")
    for kind in LAYERS
    for number, case in enumerate(CASES.get(kind.__name__, ()))
]
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


def test_every_layer_is_found_and_has_a_case():
    assert {kind.__name__ for kind in LAYERS} == set(CASES)
    assert {kind.__name__ for kind in REST} == {"ResidualBlock"}  # The base of blocks has no call.
    assert len(LAYERS) >= 5


def tensors(kind):
    """Names of the arguments of `call` that are tensors."""
    names = inspect.signature(kind.call).parameters
    return [name for name in names if name not in ("self", "training")]


def symbolic(inputs):
    """Keras inputs of the shapes and types of arrays; the batch, or the first axis, is open."""
    return {
        name: None
        if array is None
        else keras.Input(array.shape[1:], dtype=array.dtype.name, name=name)
        for name, array in inputs.items()
    }


def functional(layer, inputs):
    """A model of the layer alone."""
    given = symbolic(inputs)
    return keras.Model({k: v for k, v in given.items() if v is not None}, layer(**given))


def arrays(inputs):
    return {name: array for name, array in inputs.items() if array is not None}


def values(output):
    return keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))


@pytest.mark.parametrize("kind", LAYERS)
def test_compute_output_shape_takes_the_arguments_of_call(kind):
    shapes = [*inspect.signature(kind.compute_output_shape).parameters]
    asked = [f"{name}_shape" for name in tensors(kind)]
    if kind.__name__ == "Dropout":  # Keras's own name of an only argument.
        asked = ["input_shape"]
    assert shapes[1:] == asked


@pytest.mark.parametrize(("kind", "arguments", "inputs"), CALLS)
def test_the_constructor_stores_its_arguments_and_tells_them(kind, arguments, inputs):
    layer = kind(**arguments, name="given")
    own = [
        name
        for base in kind.__mro__[: kind.__mro__.index(keras.layers.Layer)]
        for name, about in inspect.signature(base.__init__).parameters.items()
        if name != "self" and about.kind is not about.VAR_KEYWORD
    ]
    config = layer.get_config()
    for name in own:
        assert config[name] == getattr(layer, name), name
    assert {name: config[name] for name in arguments} == arguments
    assert config["name"] == "given" and set(arguments) <= set(own)
    assert kind.from_config(config).get_config() == config
    assert keras.saving.get_registered_name(kind) == f"undivided_tf>{kind.__name__}"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("kind", "arguments", "inputs"), CALLS)
def test_shapes_and_types_are_what_the_layer_says(kind, arguments, inputs, policy):
    layer = kind(**arguments, dtype=policy)
    output = layer(**inputs)
    shapes = {f"{name}_shape": array.shape for name, array in arrays(inputs).items()}
    if kind.__name__ == "Dropout":  # Keras's own name of an only argument.
        shapes = {"input_shape": shapes["inputs_shape"]}
    assert tuple(layer.compute_output_shape(**shapes)) == tuple(output.shape)
    assert np.isfinite(values(output)).all()
    trained = layer(**inputs, training=True) if _trains(kind) else output
    assert (trained.shape, trained.dtype) == (output.shape, output.dtype)
    for variable in layer.trainable_variables:
        assert variable.dtype == layer.variable_dtype
    promised = functional(kind(**arguments, dtype=policy), inputs).output
    assert promised.shape[1:] == tuple(output.shape)[1:] and promised.shape[0] is None
    assert promised.dtype == keras.backend.standardize_dtype(output.dtype)


def _trains(kind):
    return "training" in inspect.signature(kind.call).parameters


@pytest.mark.parametrize("policy", ("float32", "mixed_bfloat16"))
@pytest.mark.parametrize(("kind", "arguments", "inputs"), CALLS)
def test_a_saved_layer_comes_back(kind, arguments, inputs, policy, tmp_path):
    layer = kind(**arguments, dtype=policy)
    expected = values(layer(**inputs))
    model = functional(layer, inputs)
    np.testing.assert_array_equal(values(model(arrays(inputs))), expected)
    path = tmp_path / "layer.keras"
    model.save(path)
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(values(again(arrays(inputs))), expected)
    (found,) = (part for part in again.layers if isinstance(part, kind))
    assert found.get_config() == layer.get_config()
    assert found.dtype_policy.name == policy
    twin = kind.from_config(layer.get_config())
    twin(**inputs)
    assert [w.path.partition("/")[2] for w in twin.weights] == [
        w.path.partition("/")[2] for w in layer.weights
    ]
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(values(twin(**inputs)), expected)
