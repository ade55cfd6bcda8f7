"""Casing, tokenizer options and embedding rows of released folders, as declared or refused."""

import json
import logging
import shutil

import numpy as np
import pytest
import released
from released import google_variables, write_google, write_ours
from safetensors.numpy import load_file
from test_formats import run

from undivided_tf import convert
from undivided_tf.convert import converter
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.convert.vocabularies import guess_lower_case, read_tokenizer
from undivided_tf.errors import InputError
from undivided_tf.export import parts, reference, signatures
from undivided_tf.export.inference import TENSORFLOW
from undivided_tf.models import checkpoints
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer


@pytest.fixture
def log(caplog):
    """What goes into absl's log."""
    with caplog.at_level(logging.INFO, logger="absl"):
        yield caplog


# === Casing ===


def google_folder(path, pieces):
    folder = write_google(path, google_variables(released.weights()))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    return folder


def test_markers_in_capitals_do_not_make_googles_vocabulary_cased(tmp_path, log):
    pieces = [*released.PIECES[:6], "<S>", "<T>", *released.PIECES[8:]]
    folder = google_folder(tmp_path / "google", pieces)
    _, tokenizer = convert.load(folder)
    assert tokenizer.do_lower_case
    assert tokenizer.tokenize(["CAT"]).to_list() == [[5]]
    assert "no file declares the casing; the vocabulary is uncased, since 0 of its" in log.text


def test_casing_that_is_declared_beats_what_the_vocabulary_tells(tmp_path, log):
    folder = google_folder(tmp_path / "google", released.PIECES)
    config = json.loads((folder / "bert_config.json").read_text())
    (folder / "bert_config.json").write_text(json.dumps({**config, "do_lower_case": False}))
    assert not convert.load(folder)[1].do_lower_case
    assert "the vocabulary is cased, declared in" in log.text
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert convert.load(folder)[1].do_lower_case
    assert "bert_config.json declares another casing than" in log.text


@pytest.mark.parametrize("kind", ["google", "huggingface", "undivided", "keras_hub"])
def test_the_flag_decides_the_casing_of_every_format(tmp_path, kind):
    folder = tmp_path / "in"
    if kind == "google":
        google_folder(folder, released.PIECES)
    elif kind == "huggingface":
        released.write(folder)
    else:
        write_ours(tmp_path / "ours", hidden_activation="gelu_tanh")
        folder = tmp_path / "ours"
        if kind == "keras_hub":
            run(folder, tmp_path / "preset", "keras_hub")
            folder = tmp_path / "preset"
    output = tmp_path / "out"
    report = convert.convert(
        ConversionConfig(input=str(folder), output_dir=str(output), do_lower_case="false")
    )
    assert report["format"] == kind and report["do_lower_case"] is False
    assert not checkpoints.load_encoder(output)[1].do_lower_case
    assert convert.load(folder)[1].do_lower_case


def test_a_few_capitals_in_a_large_vocabulary_are_no_proof(log):
    lower = [f"word{i}" for i in range(300)]
    assert guess_lower_case((*SPECIAL_TOKENS, "<S>", "[unused1]", *lower), "there")
    assert not guess_lower_case((*SPECIAL_TOKENS, *lower, "Paris", "Rome", "A", "B"), "there")
    assert (
        "cased, since 4 of its 304 word pieces have capitals, such as 'Paris', 'Rome'" in log.text
    )
    with pytest.raises(InputError, match=r"1 of 301 word pieces have capitals \('E1'\).*declare"):
        guess_lower_case((*SPECIAL_TOKENS, *lower, "E1"), "there")


def test_casing_of_the_real_vocabulary_is_uncased(shared_data):
    vocabulary = Tokenizer(shared_data / "bert/vocab.txt").vocabulary
    assert guess_lower_case(vocabulary, "there")
    assert guess_lower_case((*vocabulary, "<S>", "<T>", "[E1]"), "there")
    assert not guess_lower_case(tuple(piece.title() for piece in vocabulary), "there")


# === Options of the tokenizer ===


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is False"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize is False"),
        ({"never_split": ["[E1]"]}, r"never_split is \['\[E1\]'\]"),
        (
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "tokenizer_class is 'BertJapaneseTokenizer'",
        ),
        ({"word_tokenizer_type": "mecab"}, "word_tokenizer_type is 'mecab'"),
        ({"subword_tokenizer_type": "character"}, "subword_tokenizer_type is 'character'"),
        ({"strip_accents": False}, "strip_accents is False with do_lower_case True"),
        ({"strip_accents": True, "do_lower_case": False}, "strip_accents is True with do_lower"),
        ({"unk_token": "<unk>"}, "unk_token is '<unk>'"),
        ({"mask_token": {"content": "<mask>", "lstrip": True}}, "mask_token is '<mask>'"),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, "tokenizer_class is 'PreTrained"),
    ],
)
def test_tokenizer_options_that_we_lack_are_refused_by_name(tmp_path, about, message):
    folder = released.write(tmp_path / "bert")
    declared = {"do_lower_case": True, **about}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared))
    with pytest.raises(InputError, match=rf"tokenizer_config\.json: {message}"):
        convert.load(folder)


def test_a_tokenizer_class_in_the_config_is_read_too(tmp_path):
    folder = released.write(tmp_path / "bert", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(InputError, match=r"bert/config\.json: tokenizer_class is 'BertJapanese"):
        convert.load(folder)


WHOLE = {
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                   "strip_accents": None, "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100,
              "vocab": {piece: i for i, piece in enumerate(released.PIECES)}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("normalizer", {"handle_chinese_chars": False}, "handle_chinese_chars is False"),
        ("normalizer", {"clean_text": False}, "normalizer: clean_text is False"),
        ("normalizer", {"strip_accents": False}, "strip_accents is False with do_lower_case True"),
        ("normalizer", {"type": "NFKC"}, "normalizer: type is 'NFKC'"),
        ("normalizer", None, "normalizer is None"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer: type is 'Whitespace'"),
        ("model", {"type": "BPE"}, "model: type is 'BPE'"),
        ("model", {"max_input_chars_per_word": 20}, "max_input_chars_per_word is 20"),
        ("model", {"continuing_subword_prefix": "@@"}, "continuing_subword_prefix is '@@'"),
        ("model", {"vocab": {**WHOLE["model"]["vocab"], "cat": 6, "dog": 5}},
         r"tokenizer\.json gives 'cat' the id 6, where vocab\.txt has 'dog'"),
    ],
)  # fmt: skip
def test_options_of_tokenizer_json_that_we_lack_are_refused(tmp_path, section, changes, message):
    folder = released.write(tmp_path / "bert")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "tokenizer.json").write_text(json.dumps(WHOLE))
    assert read_tokenizer(folder, "config.json").do_lower_case
    whole = {**WHOLE, section: changes and {**WHOLE[section], **changes}}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match=message):
        convert.load(folder)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_hub")
    write_ours(folder / "ours", hidden_activation="gelu_tanh")
    run(folder / "ours", folder / "preset", "keras_hub")
    return folder / "preset"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"split_on_cjk": False}, "split_on_cjk is False"),
        ({"split": False}, "split is False"),
        ({"lowercase": False, "strip_accents": True}, "strip_accents is True with lowercase False"),
        ({"suffix_indicator": "@@"}, "suffix_indicator is '@@'"),
        ({"special_tokens_in_strings": True}, "special_tokens_in_strings is True"),
    ],
)
def test_options_of_keras_hubs_tokenizer_that_we_lack_are_refused(tmp_path, preset, about, message):
    shutil.copytree(preset, tmp_path / "preset")
    path = tmp_path / "preset/tokenizer.json"
    whole = json.loads(path.read_text())
    whole["config"].update(about)
    path.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=rf"tokenizer\.json: {message}"):
        convert.load(tmp_path / "preset")


def test_keras_hubs_tokenizer_strips_accents_as_ours_does(preset, tmp_path, log):
    assert json.loads((preset / "tokenizer.json").read_text())["config"]["strip_accents"] is True
    convert.load(preset)
    assert "KerasHub keeps accents" not in log.text
    shutil.copytree(preset, tmp_path / "preset")
    path = tmp_path / "preset/tokenizer.json"
    path.write_text(path.read_text().replace('"strip_accents": true', '"strip_accents": false'))
    convert.load(tmp_path / "preset")
    assert "KerasHub keeps accents" in log.text


# === The vocabulary through every format ===


def test_vocabularies_of_any_characters_go_through_every_format_byte_for_byte(tmp_path):
    pieces = [*released.PIECES[:5], "\u2028", "\u00a0", "\x85", *released.PIECES[8:]]
    folder = released.write(tmp_path / "hf", pieces=pieces, hidden_act="gelu_new")
    raw = (folder / "vocab.txt").read_bytes()
    run(folder, tmp_path / "ours")
    run(tmp_path / "ours", tmp_path / "again", "huggingface")
    run(tmp_path / "ours", tmp_path / "preset", "keras_hub")
    for written in ("ours/vocab.txt", "again/vocab.txt", "preset/assets/tokenizer/vocabulary.txt"):
        assert (tmp_path / written).read_bytes() == raw, written
    assert convert.load(tmp_path / "preset")[1].vocabulary == tuple(pieces)


# === Embedding rows behind the vocabulary ===


def padded(rows, heads=("cls",)):
    """The made-up BERT with more embedding rows; the bias prefers the new ones."""
    tensors, more = released.weights(heads), rows - 60
    new = np.random.default_rng(1).normal(size=(more, 8)).astype("float32")
    name = "embeddings.word_embeddings.weight"
    tensors[name] = np.concatenate([tensors[name], new])
    if "cls" in heads:
        bias = tensors["cls.predictions.bias"]
        tensors["cls.predictions.bias"] = np.append(bias, np.full(more, 9, "float32"))
    return tensors


def there_and_back(folder, tmp_path):
    report = run(folder, tmp_path / "ours")
    run(tmp_path / "ours", tmp_path / "back", "huggingface")
    run(tmp_path / "back", tmp_path / "ours2")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "back"))
    after = {name.removeprefix("bert."): value for name, value in after.items()}
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    return report


@pytest.mark.parametrize("declared", [60, 64])
def test_rows_padded_to_a_multiple_of_eight_are_kept(tmp_path, declared, log):
    folder = released.write(tmp_path / "hf", padded(64), vocab_size=declared)
    report = there_and_back(folder, tmp_path)
    assert report["surplus_rows"] == 4
    encoder, tokenizer = checkpoints.load_encoder(tmp_path / "ours")
    assert (encoder.config.vocab_size, tokenizer.vocab_size) == (64, 60)
    assert "64 embedding rows for 60 word pieces; the 4 surplus rows are kept" in log.text


def test_rows_of_added_tokens_are_kept_and_the_tokens_named(tmp_path, log):
    folder = released.write(tmp_path / "hf", padded(62), vocab_size=62)
    (folder / "added_tokens.json").write_text('{"[E1]": 60, "[E2]": 61}')
    # Back from us the folder has no added_tokens.json, but the hash of its vocabulary.
    assert there_and_back(folder, tmp_path)["surplus_rows"] == 2
    assert "2 added tokens have ids beyond the vocabulary, such as '[E1]'" in log.text


def test_added_tokens_of_tokenizer_json_count_too(tmp_path):
    folder = released.write(tmp_path / "hf", padded(61, ()), vocab_size=61)
    added = [{"id": 0, "content": "[PAD]"}, {"id": 60, "content": "[E1]"}]
    (folder / "tokenizer.json").write_text(json.dumps({**WHOLE, "added_tokens": added}))
    assert convert.load(folder)[0].config.vocab_size == 61


def test_googles_padded_rows_are_kept(tmp_path):
    folder = write_google(tmp_path / "google", google_variables(padded(64)))
    encoder, tokenizer = convert.load(folder)  # Its config says 60.
    assert (encoder.config.vocab_size, tokenizer.vocab_size) == (64, 60)


@pytest.mark.parametrize(("rows", "pieces"), [(63, 60), (72, 60), (60, 59)])
def test_rows_that_nothing_explains_are_another_model(tmp_path, rows, pieces):
    folder = released.write(
        tmp_path / "hf", padded(rows, ()), released.PIECES[:pieces], vocab_size=rows
    )
    message = f"vocab_size is {rows}, but the vocabulary beside it has {pieces}.*different models"
    with pytest.raises(InputError, match=message):
        convert.load(folder)


def test_another_vocabulary_beside_weights_that_name_theirs_is_refused(tmp_path):
    run(released.write(tmp_path / "hf"), tmp_path / "again", "huggingface")
    pieces = [*released.PIECES[:-1], "new"]
    (tmp_path / "again/vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    with pytest.raises(InputError, match=r"vocabulary_hash is .* restore the vocabulary"):
        convert.load(tmp_path / "again")


def test_rows_behind_the_vocabulary_fill_no_mask(tmp_path):
    released.write(tmp_path / "hf", padded(64), vocab_size=64)
    found = parts.load(str(tmp_path / "hf"))
    (probabilities,) = reference.fill_mask(found, ["cat [MASK]"], 8)
    assert probabilities.shape == (1, 60)
    np.testing.assert_allclose(probabilities.sum(), 1)
    (signature,) = signatures.of_ids(("fill_mask",), found, TENSORFLOW)
    inputs = reference.example_ids(found, "fill_mask", 8)
    scores = signature.function(**inputs)["scores"].numpy()
    assert scores.shape[-1] == 60
    np.testing.assert_allclose(
        scores, reference.of_ids(found, "fill_mask", inputs)["scores"], atol=1e-5
    )


# === Files at fault ===


def test_nothing_of_a_keras_hub_preset_is_called_unused(preset):
    coverage = converter.open_checkpoint(preset).coverage
    assert len(coverage.loaded) == 39 and coverage.unused == []
