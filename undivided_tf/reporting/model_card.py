"""The card of an exported model: README.md and the drawing of its block pattern beside it."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import undivided_tf
from undivided_tf.config import EncoderConfig
from undivided_tf.models.heads import INPUTS, MULTI_LABEL, PAIR, REGRESSION, ClassifierHead
from undivided_tf.reporting import compress, drawings, formatting, layout
from undivided_tf.support import files
from undivided_tf.training import learning

CARD, DRAWING = "README.md", "pattern.svg"
_WHAT = {
    "answer": "Finds in each context the answer to its question",
    "fill_mask": "Fills every `[MASK]` of each text",
    "embed": "Gives vectors for each text",
}
_TOKENIZED = (
    "Strings are UTF-8. Bytes that are not become U+FFFD; a NUL, as every control character, ends "
    "a word.",
    "An empty string is a text without words, not an error. So is an empty batch.",
    "A batch may have any size; its texts do not influence each other.",
)


def write(
    directory: pathlib.Path, exported: dict[str, Any], compressed: dict[str, Any] | None = None
) -> None:
    """Writes the card of an export.

    Args:
        directory: where the export stands.
        exported: the content of its export.json. What is known of training and scores is read
            from results.json, config.json and the records' metadata.json near its checkpoint.
        compressed: results of kind `compression` whose encoder this is; the card then shows what
            was cut and healed, and costs and measures before and after.
    """
    encoder = EncoderConfig.from_dict(exported["encoder"])
    checkpoint = pathlib.Path(exported["config"]["input"])
    run = _run(checkpoint)
    template = layout.environment(autoescape=False).get_template("model_card.md.j2")
    text = template.render(
        title=f"{encoder.block_pattern} for {', '.join(exported['signatures'])}",
        summary=_summary(exported, run),
        description=drawings.describe(encoder.pattern),
        sizes=list(_sizes(exported, encoder)),
        data=[*_data(exported, run), *(_compression(compressed) if compressed else ())],
        scores=list(_scores(checkpoint, run)),
        before_and_after=compressed and _before_and_after(compressed, exported),
        signatures={name: _signature(name, exported) for name in exported["signatures"]},
        inputs=_TOKENIZED if exported["config"]["output_format"] == "saved_model" else (),
        use=_use(exported),
        licences=list(_licences(run)),
        version=undivided_tf.__version__,
        config=json.dumps(exported["config"], indent=2, ensure_ascii=False),
    )
    (directory / DRAWING).write_text(drawings.block_pattern(encoder.block_pattern, "pattern"))
    (directory / CARD).write_text(text, encoding="utf-8")


def _run(checkpoint: pathlib.Path) -> dict[str, Any]:
    """The files of the run that made a checkpoint: `results`, `config` and `metadata`."""
    folder = _workdir(checkpoint)
    run: dict[str, Any] = {"results": {}, "config": {}, "metadata": {}}
    for name in ("results", "config"):
        if (folder / f"{name}.json").is_file():
            run[name] = files.read_json(folder / f"{name}.json")
    if run["results"].get("kind") not in ("pretraining", "finetuning", "squad"):
        return {"results": {}, "config": {}, "metadata": {}}
    records = pathlib.Path(run["config"].get("records_dir", "")) / "metadata.json"
    return {**run, "metadata": files.read_json(records)} if records.is_file() else run


def _workdir(checkpoint: pathlib.Path) -> pathlib.Path:
    """The run that a checkpoint belongs to, by the names that the binaries give to theirs."""
    parent = checkpoint.parent
    if parent.name == "checkpoints" or (
        re.fullmatch(r"run_\d+", parent.name) and checkpoint.name == "model"
    ):
        return parent.parent
    return parent if re.fullmatch(r"model_\d+", checkpoint.name) else checkpoint


def _summary(exported: dict[str, Any], run: dict[str, Any]) -> str:
    origin = f"from a checkpoint in the format {exported['checkpoint_format']}"
    trained = {
        "pretraining": "pre-trained as a masked language model",
        "finetuning": f"fine-tuned on {run['results'].get('task', '')}",
        "squad": "trained to answer questions",
    }.get(run["results"].get("kind"), origin)
    form = {"saved_model": "SavedModel", "litert": "LiteRT", "onnx": "ONNX"}
    return (
        f"An encoder like BERT, with the block pattern `{exported['encoder']['block_pattern']}`, "
        f"{trained}; as {form[exported['config']['output_format']]} in "
        f"{exported['config']['dtype']}."
    )


def _sizes(exported: dict[str, Any], encoder: EncoderConfig) -> Iterator[tuple[str, str]]:
    yield "parameters of the encoder", formatting.decimals(exported["parameters"], 0)
    yield "attention blocks", str(encoder.pattern.num_attention)
    yield "intermediate blocks", str(encoder.pattern.num_intermediate)
    yield "hidden size", str(encoder.hidden_size)
    yield "attention heads", str(encoder.num_attention_heads)
    yield "intermediate size", str(encoder.intermediate_size)
    casing = "uncased" if encoder.do_lower_case else "cased"
    yield "vocabulary", f"{encoder.vocab_size} word pieces, {casing}"
    for name, size in exported["files"].items():
        yield f"`{name}`", f"{formatting.decimals(size, 0)} bytes"


def _data(exported: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    yield f"The weights come from `{exported['config']['input']}`."
    results, metadata = run["results"], run["metadata"]
    for source in metadata.get("sources", []):
        yield f"Pre-training text: {source['name']}. {source.get('description', '')}".rstrip()
    if results.get("kind") == "pretraining":
        yield (
            f"Pre-trained on {formatting.decimals(results['tokens'], 0)} tokens in "
            f"{formatting.decimals(results['steps'], 0)} steps."
        )
    if results.get("kind") == "finetuning":
        rows = ", ".join(f"{count} in {split}" for split, count in results["rows"].items())
        yield f"Fine-tuned on {results['task']}; rows: {rows}."
    if results.get("kind") == "squad":
        yield f"Trained on {', '.join(results['sources']['train']) or 'no file of this run'}."
    if results.get("kind") == "pretraining" and (
        verdict := learning.verdict(results["validation"])
    ):
        yield f"Held-out loss is {verdict}."
    if run["config"].get("init_checkpoint"):
        start = run["config"]["init_checkpoint"]
        yield f"That began with the weights of `{start}`."
        if results.get("kind") != "pretraining" and (warning := learning.warning(start)):
            yield f"Their held-out loss is {warning}."
    if exported["classifier"]:
        yield from _head(ClassifierHead.from_dict(exported["classifier"]))


def _compression(results: dict[str, Any]) -> Iterator[str]:
    """What was cut from the whole encoder, and how it was healed."""
    blocks = ", ".join(f"`{name}`" for name in results["blocks"])
    yield (
        f"Of `{results['config']['input']}` ({results['from']}) these blocks were cut for the "
        f"budget `{results['config']['budget']}`: {blocks}. Chosen by: {results['damage']}."
    )
    if healed := results["healing"]:
        yield (
            f"Healed towards the whole encoder on {formatting.count(healed['pieces'])} word pieces "
            "of text, without labels."
        )


def _before_and_after(results: dict[str, Any], exported: dict[str, Any]) -> str:
    name = exported["config"]["output_format"]
    lines = compress.served_lines({name: exported})
    return "\n\n".join([compress.compression_table(results, {name: exported}), *lines]) + "."


def _head(head: ClassifierHead) -> Iterator[str]:
    """The labels of a classifier, and the texts that it was trained on."""
    labels = ", ".join(f"`{label}`" for label in head.labels)
    if head.kind == REGRESSION:
        within = " within {:g} to {:g}".format(*head.score_range) if head.score_range else ""
        yield f"The head is a regression: it gives one score{within}."
    elif head.kind == MULTI_LABEL:
        yield f"Labels, of which any number may hold at once: {labels}."
    else:
        yield f"Labels: {labels}."
    task = f" of {head.task}" if head.task else ""
    fed = INPUTS.get(head.input, "texts (single or in pairs is not known)")
    yield f"Trained on {fed}{task}, up to {head.max_seq_length} word pieces."


def _scores(checkpoint: pathlib.Path, run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Split, metric and value, of the model at `checkpoint` alone."""
    results = run["results"]
    if results.get("kind") == "pretraining":
        # The results are of the last step, so the checkpoint of an earlier one has none.
        if checkpoint.name not in (_workdir(checkpoint).name, f"step_{results['steps']:08d}"):
            return
        for name, value in results["validation"].items():
            if type(value) in (int, float):  # Not whether it has learnt, which stands under Data.
                yield (
                    "held-out text",
                    name,
                    formatting.decimals(value, 0 if type(value) is int else 4),
                )
        yield "held-out text", "unigram entropy", formatting.decimals(results["unigram_entropy"], 4)
        return
    seed = re.search(
        r"_(\d+)$", checkpoint.parent.name if results.get("kind") == "squad" else checkpoint.name
    )
    for fine_tuning in results.get("runs", []):
        if seed is None or fine_tuning["seed"] != int(seed[1]):
            continue
        for split, values in fine_tuning.items():
            if isinstance(values, dict):
                for metric, value in values.items():
                    if isinstance(value, int | float):
                        yield split, formatting.metric(metric), formatting.decimals(value, 4)


def _signature(name: str, exported: dict[str, Any]) -> dict[str, Any]:
    about = exported["signatures"][name]
    if exported["config"]["output_format"] != "saved_model":
        beyond = ""
    elif name == "answer":
        beyond = " a window; a longer context is read in overlapping windows"
    else:
        beyond = "; what is longer is cut at its end"
    measured = ", ".join(f"{v:.1e} (`{file}`)" for file, v in about.get("differences", {}).items())
    if "largest_difference" in about:
        measured = f"{about['largest_difference']:.1e}"
    if measured:
        measured = (
            "Largest difference of an output from that of the Keras model in float32, on a handful "
            f"of texts when it was exported: {measured}."
        )
    return {**about, "what": _what(name, exported), "beyond": beyond, "measured": measured}


def _what(name: str, exported: dict[str, Any]) -> str:
    """What a signature gives, in words."""
    if name in _WHAT:
        return _WHAT[name]
    head = ClassifierHead.from_dict(exported["classifier"])
    is_pair = name == "classify_pair" or head.input == PAIR
    gives = {
        REGRESSION: "Gives a score to",
        MULTI_LABEL: "Gives the probability of each label by itself for",
    }.get(head.kind, "Gives the class of")
    return f"{gives} each {'pair of texts' if is_pair else 'text'}"


def _licences(run: dict[str, Any]) -> Iterator[str]:
    yield "The program that trained or converted and exported the model: Apache-2.0."
    sources = run["metadata"].get("sources", [])
    for source in sources:
        if source.get("licence"):
            yield f"Text of {source['name']}: {source['licence']}"
    if not sources:
        yield "The weights: as whoever made them says; nothing is written down beside them."


def _use(exported: dict[str, Any]) -> str:
    """Markdown: how a program calls the first signature."""
    name, about = next(iter(exported["signatures"].items()))
    output_format = exported["config"]["output_format"]
    if output_format != "saved_model":
        return _use_of_ids(output_format, name, about["inputs"])
    strings = {
        key: "the [MASK] sat" if name == "fill_mask" else "a text" for key in about["inputs"]
    }
    arguments = ", ".join(f'{key}=tf.constant(["{text}"])' for key, text in strings.items())
    request = json.dumps({"signature_name": name, "instances": [strings]})
    return (
        "```python\nimport tensorflow as tf\n"
        "import tensorflow_text  # The tokenizer's operations.\n"
        f'\nmodel = tf.saved_model.load("THIS_FOLDER/1")\n'
        f'model.signatures["{name}"]({arguments})\n```\n\n'
        "TensorFlow Serving takes the folder as it is:\n\n"
        "```sh\ntensorflow_model_server --rest_api_port=8501 --model_name=undivided "
        "--model_base_path=$PWD/THIS_FOLDER\n"
        f"curl -d '{request}' http://localhost:8501/v1/models/undivided:predict\n```"
    )


_RUNTIMES = {  # Imports, and how `run` is made: a function from ids by name to arrays.
    "onnx": (
        "import onnxruntime",
        'session = onnxruntime.InferenceSession("THIS_FOLDER/{name}.onnx")\n'
        "names = [output.name for output in session.get_outputs()]\n"
        "run = lambda **ids: dict(zip(names, session.run(names, ids)))",
    ),
    "litert": (
        "import tensorflow as tf  # Or the package ai-edge-litert, which is smaller.",
        'interpreter = tf.lite.Interpreter("THIS_FOLDER/model.tflite")\n'
        'run = interpreter.get_signature_runner("{name}")',
    ),
}


def _use_of_ids(output_format: str, name: str, inputs: dict[str, str]) -> str:
    """Markdown: how a program makes the ids of a text and calls a signature."""
    imported, make_run = _RUNTIMES[output_format]
    examples = {"fill_mask": '"the [MASK] sat"', "answer": '("a question", "its context")'}
    text = examples.get(name, '"a text"')
    lines = [
        imported,
        "import numpy as np",
        "import tokenizers",
        "",
        'tokenizer = tokenizers.Tokenizer.from_file("THIS_FOLDER/tokenizer.json")',
        make_run.format(name=name),
        "",
        f"rows = tokenizer.encode_batch([{text}])  # A pair is a tuple of two texts.",
        "ids = {",
        '    "token_ids": [row.ids for row in rows],',
        '    "segment_ids": [row.type_ids for row in rows],',
        '    "padding_mask": [row.attention_mask for row in rows],',
    ]
    if "masked_positions" in inputs:
        lines.append('    "masked_positions": [[row.tokens.index("[MASK]")] for row in rows],')
    lines += ["}", "run(**{name: np.array(value, np.int32) for name, value in ids.items()})"]
    return "\n".join(["```python", *lines, "```"])
