"""What all binaries have in common, and the five-command way on toy data."""

import json
import subprocess
import sys
import zipfile

import pytest
import toys

BINARIES = {
    "create_pretraining_data": ("--input_files", "--max_seq_length", "--[no]do_lower_case"),
    "run_pretraining": ("--preset", "--block_pattern", "--num_train_steps"),
    "run_finetuning": ("--init_checkpoint", "--num_runs"),
    "run_glue": ("--init_checkpoint", "--tasks", "--per_task", "--selection"),
    "predict": ("--model", "--input"),
    "run_squad": ("--train_files", "--doc_stride", "--n_best_size"),
    "run_cka": ("--first_checkpoint", "--num_examples"),
    "run_probing": ("--init_checkpoint", "--inverse_l2"),
    "run_blimp": ("--init_checkpoint", "--data", "--max_pairs"),
    "run_masked_loss": ("--init_checkpoint", "--records_dir", "--mask_rates", "--masked_pieces"),
    "run_structural_probe": ("--init_checkpoint", "--treebank", "--probe_rank"),
    "run_diagnostics": ("--init_checkpoint", "--num_attention_examples", "--top"),
    "convert_checkpoint": ("--input", "--output_dir"),
    "run_surgery": ("--block_pattern", "--cut", "--importance", "--share_intermediate"),
    "run_healing": ("--teacher_checkpoint", "--train_pieces", "--similarity_weight"),
    "run_damage": ("--num_cut", "--order.importance", "--zero_shot", "--per_task"),
    "run_compress": ("--budget", "--max_loss", "--[no]heal", "--healing.train_pieces"),
    "export_model": ("--input", "--signatures", "--output_format"),
    "run_mechanism": ("--num_facts", "--exposures", "--learning_rates"),
    "run_sweep": ("--learning_rates", "--pilot_seeds", "--pretraining.optimizer"),
    "run_study": ("--patterns", "--records.vocab_size", "--pretraining.hidden_size"),
}


NOT_LEARNT = "nats): this encoder has not learnt from its context"


def call(binary, *flags, python_flags=()):
    module = f"undivided_tf.bin.{binary}"
    command = [sys.executable, *python_flags, "-m", module, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("binary", BINARIES)
def test_help_names_the_flags_and_does_not_wait_for_tensorflow(binary):
    done = call(binary, "--help", python_flags=("-X", "importtime"))
    assert done.returncode in (0, 1)  # absl leaves with 1.
    for flag in BINARIES[binary]:
        assert f"  {flag}:" in done.stdout
    assert done.stdout.splitlines()[0].strip()  # What the binary is for.
    imports = done.stderr.splitlines()
    assert all(line.startswith("import time:") for line in imports)
    imported = {line.split("|")[-1].strip() for line in imports}
    assert "absl.flags" in imported
    assert not imported & {"tensorflow", "keras", "matplotlib", "sklearn"}


@pytest.mark.parametrize(
    ("binary", "argument", "message"),
    [
        *(
            (name, "--no_such_flag=3", "Unknown command line flag 'no_such_flag'")
            for name in BINARIES
        ),
        ("run_pretraining", "stray", "error: unexpected argument 'stray'"),
    ],
)
def test_mistyped_flags_are_refused_in_a_line(binary, argument, message):
    done = call(binary, argument)
    assert done.returncode != 0 and done.stdout == ""
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("binary", "flags", "message"),
    [
        ("create_pretraining_data", ["--max_seq_length=3"], "max_seq_length must be at least 8"),
        ("run_pretraining", ["--hidden_size=10"], "hidden_size 10 is not divisible by"),
        ("run_pretraining", ["--block_pattern=AXI"], "'X'"),
        ("run_finetuning", ["--num_runs=0"], "num_runs must be above 0, got 0"),
        ("run_finetuning", ["--seed=-1"], "seed must be from 0 to 2147483647, got -1"),
        ("create_pretraining_data", ["--random_seed=-1"], "random_seed must be from 0 to"),
        ("run_cka", [f"--seed={2**31}"], "seed must be from 0 to 2147483647, got 2147483648"),
        ("run_finetuning", ["--num_train_epochs=0"], "so it must have all weights"),
        ("run_glue", ["--tasks=cola,sst3"], "tasks must be one of cola, sst2"),
        ("run_glue", ["--learning_rates=a"], "learning_rates must be a list of float"),
        ("run_glue", ["--per_task=cola.batch=3"], "per_task 'cola.batch=3' must be TASK.FIELD"),
        ("predict", ["--batch_size=0"], "batch_size must be above 0"),
        ("run_squad", ["--doc_stride=400"], "doc_stride 400 would skip text"),
        ("run_cka", ["--batch_size=0"], "batch_size must be above 0, got 0"),
        ("run_probing", ["--inverse_l2=-1"], "inverse_l2 must be above 0, got -1.0"),
        ("run_blimp", ["--batch_size=0"], "batch_size must be above 0, got 0"),
        ("run_masked_loss", ["--mask_rates=0.5,0.3"], "mask_rates must list rates that rise, got"),
        ("run_masked_loss", ["--mask_rates=0.5,1"], "mask_rates must be above 0 and below 1"),
        ("run_structural_probe", ["--probe_rank=0"], "probe_rank must be above 0, got 0"),
        ("run_diagnostics", ["--top=0"], "top must be above 0, got 0"),
        ("run_surgery", ["--cut=first"], "cut first needs a number: --num_cut=N"),
        ("run_mechanism", ["--num_facts=5,1"], "num_facts must list increasing numbers, got 5, 1"),
        ("run_healing", ["--train_pieces=0"], "train_pieces must be above 0, got 0"),
        ("run_damage", ["--num_cut=1,2"], "num_cut must rise from 0"),
        ("run_damage", ["--zero_shot=cosine:sst2"], "zero_shot must list MEASURE:TASK"),
        ("run_compress", ["--budget=latency:2"], "budget must be COST:SHARE with a cost of"),
        ("run_compress", ["--max_loss=task:1"], "max_loss must list MEASURE:POINTS with a measure"),
        ("export_model", ["--signatures=embed,summarize"], "signatures must be one of classify"),
        (
            "run_sweep",
            ["--learning_rates=2e-3,1e-3"],
            "learning_rates must list rates that rise, got 0.002",
        ),
        (
            "run_study",
            ["--learning_rate_sweep=none.json"],
            "none.json is no sweep.json of run_sweep",
        ),
        ("run_study", ["--patterns=AI,(AI)*1"], "spell the same blocks"),
        (
            "run_pretraining",
            ["--do_whole_word_mask", "--masking_unit=span"],
            "--do_whole_word_mask and --masking_unit=span contradict each other",
        ),
    ],
)
def test_bad_values_are_one_clear_message(binary, flags, message):
    done = call(binary, *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


# === The five-command way ===


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Corpus and task."""
    folder = tmp_path_factory.mktemp("five")
    toys.write_corpus(folder / "text")
    toys.write_task(folder / "animals")
    return folder


def succeed(binary, *flags):
    done = toys.run_binary(binary, *flags)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def made(toy):
    """Printed by the first two commands, upon which the others build."""
    records = succeed(
        "create_pretraining_data", f"--input_files={toy}/text/*.txt",
        f"--output_dir={toy}/records", "--vocab_size=60", f"--max_seq_length={toys.LENGTH}",
        "--num_shards=2", "--validation_fraction=0.2",
    )  # fmt: skip
    pretraining = succeed(
        "run_pretraining", f"--records_dir={toy}/records", f"--workdir={toy}/run",
        "--preset=bert_tiny", "--block_pattern=AAI", "--hidden_size=8", "--num_attention_heads=2",
        "--intermediate_size=16", f"--max_position_embeddings={toys.LENGTH}",
        "--num_train_steps=4", "--num_warmup_steps=1", "--train_batch_size=4", "--nojit_compile",
    )  # fmt: skip
    return records, pretraining


def test_records_and_pretraining(made, toy):
    records, pretraining = made
    assert f"written to {toy}/records" in records
    found = results(toy / "run")
    assert (found["kind"], found["pattern"], found["steps"]) == ("pretraining", "A*2I", 4)
    assert f"A*2I: {found['parameters']:,} parameters, 4 steps" in pretraining
    assert f"held-out loss {found['validation']['loss']:.3f} nats" in pretraining
    assert list((toy / "run" / "tensorboard").iterdir())
    assert f"{NOT_LEARNT}\nwhat to change: --position_type=rotary" in pretraining
    assert f"visible at {found['context_use']['places']} masked places" in pretraining
    page = (toy / "run" / "results.md").read_text()
    for name in ("loss", "context_use"):
        assert f"![{name}]({name}.png)" in page
        assert (toy / "run" / f"{name}.svg").stat().st_size > 1000


@pytest.mark.slow
def test_sweep(made, toy):
    flags = (
        "run_sweep", f"--records_dir={toy}/records", f"--workdir={toy}/sweep", "--patterns=AI,AA",
        "--learning_rates=1e-5,1e-4", "--max_extensions=1", "--pilot_seeds=1,2",
        "--pretraining.hidden_size=8", "--pretraining.num_attention_heads=2",
        "--pretraining.intermediate_size=16",
        f"--pretraining.max_position_embeddings={toys.LENGTH}", "--pretraining.num_train_steps=4",
        "--pretraining.num_warmup_steps=1", "--pretraining.train_batch_size=4",
        "--nopretraining.jit_compile", "--pretraining.optimizer=muon",
    )  # fmt: skip
    printed = succeed(*flags)
    found = json.loads((toy / "sweep" / "sweep.json").read_text())
    assert found["pilot_seeds"] == [1, 2] and list(found["patterns"]) == ["AI", "A*2"]
    for pattern in found["patterns"].values():  # So few steps learn most from the highest rate.
        assert [point["learning_rate"] for point in pattern["curve"]] == [1e-5, 1e-4, 1e-3]
        assert pattern["learning_rate"] == 1e-3 and not pattern["interior"]
        assert pattern["loss"] == min(point["loss"] for point in pattern["curve"])
    assert "AI: the best rate 0.001 is at the edge of those measured" in printed
    assert not list((toy / "sweep").rglob("*.safetensors"))
    assert succeed(*flags) == printed


def test_finetuning(made, toy):
    printed = succeed(
        "run_finetuning", f"--init_checkpoint={toy}/run", f"--task={toy}/animals",
        f"--workdir={toy}/tuned", f"--max_seq_length={toys.LENGTH}", "--train_batch_size=8",
        "--num_train_epochs=1", "--num_runs=2", "--nosave_models",
    )  # fmt: skip
    found = results(toy / "tuned")
    mean = sum(run["test"]["accuracy"] for run in found["runs"]) / 2
    assert "animals, A*2I, pretrained" in printed and f"{NOT_LEARNT}\n" in printed
    assert f"test accuracy: mean {mean:.4f}, n 2, 95 % interval" in printed
    majority = found["majority"]["test"]
    assert f"test accuracy of a constant answer: {majority:.4f}" in printed


def test_squad(made, toy):
    words = "the cat sat on a mat one dog ran up the hill"
    paragraphs = [
        {"context": words, "qas": [{"id": animal, "question": f"a {animal}", "answers": [
            {"text": animal, "answer_start": words.index(animal)}]}]}
        for animal in ("cat", "dog")
    ]  # fmt: skip
    (toy / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    printed = succeed(
        "run_squad", f"--init_checkpoint={toy}/run", f"--train_files={toy}/squad.json",
        f"--predict_file={toy}/squad.json", f"--workdir={toy}/squad", "--max_query_length=2",
        f"--max_seq_length={toys.LENGTH}", "--doc_stride=4", "--train_batch_size=2",
        "--num_train_epochs=1",
    )  # fmt: skip
    # Where they are, and not the word "run_SEED".
    assert f"predictions: {toy}/squad/run_12345/predictions.json, nbest.json" in printed
    (run,) = results(toy / "squad")["runs"]
    assert f"seed 12345, predict: exact {run['predict']['exact']:.2f}, F1" in printed
    assert set(json.loads((toy / "squad/run_12345/predictions.json").read_text())) == {"cat", "dog"}
    done = toys.run_binary(
        "run_squad", f"--init_checkpoint={toy}/run", "--predict_file=nothing.json",
        f"--workdir={toy}/nothing",
    )  # fmt: skip
    assert done.returncode == 1 and "span_predictor.json is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (toy / "nothing").exists()  # So that the mended command can use it.


def test_cka(made, toy):
    command = [
        "run_cka", f"--first_checkpoint={toy}/run", f"--second_checkpoint={toy}/run",
        f"--task={toy}/animals", f"--workdir={toy}/cka", "--num_examples=10", "--batch_size=5",
        f"--max_seq_length={toys.LENGTH}", "--tokens_per_example=4",
    ]  # fmt: skip
    printed = succeed(*command)
    matrix = results(toy / "cka")["matrix"]
    assert [matrix[i][i] for i in range(4)] == pytest.approx([1] * 4, abs=1e-6)
    before = (toy / "cka" / "results.json").stat().st_mtime_ns
    assert succeed(*command) == printed  # What is there is only shown again.
    assert (toy / "cka" / "results.json").stat().st_mtime_ns == before
    assert "rows: A*2I, seed 12345" in printed
    assert printed.count(f"WARNING: {toy}/run: not below the neighbour model (") == 1
    assert "mean over matched taps  1.000\n  shuffled " in printed
    assert "other_seed: no other_seed_checkpoint was given" in printed
    for name in ("cka", "cka_by_depth", "cka_difference"):
        assert (toy / "cka" / f"{name}.png").exists() and (toy / "cka" / f"{name}.svg").exists()


def test_blimp(made, toy):
    pair = {
        "sentence_good": "the cat sat on a mat", "sentence_bad": "the cat mat on a sat",
        "UID": "toy", "linguistics_term": "order", "field": "syntax",
    }  # fmt: skip
    with zipfile.ZipFile(toy / "blimp.zip", "w") as archive:
        archive.writestr("data/toy.jsonl", json.dumps(pair))
    printed = succeed(
        "run_blimp", f"--init_checkpoint={toy}/run", f"--data={toy}/blimp.zip",
        f"--workdir={toy}/blimp", f"--max_seq_length={toys.LENGTH}", "--batch_size=8",
    )  # fmt: skip
    accuracy = results(toy / "blimp")["phenomena"]["order"]["accuracy"]
    assert f"{'order':<28}{accuracy:>10.3f}" in printed and "1 pairs" in printed
    assert f"{NOT_LEARNT}\n" in printed
    assert (toy / "blimp" / "blimp.png").exists() and (toy / "blimp" / "blimp.svg").exists()


def test_masked_loss(made, toy):
    printed = succeed(
        "run_masked_loss", f"--init_checkpoint={toy}/run", f"--records_dir={toy}/records",
        f"--workdir={toy}/masked_loss", "--masked_pieces=300", "--mask_rates=0.2,0.6",
    )  # fmt: skip
    found = results(toy / "masked_loss")
    assert [of["rate"] for of in found["rates"]] == [0.2, 0.6]
    assert f"{found['masked_pieces']:,} masked pieces: {found['rows']:,} rows at each" in printed
    for rate, of in (("20 %", found["rates"][0]), ("all", found["all"])):
        rare = of["classes"]["rare"]
        assert f"{rate:<8}{'rare':<14}{rare['pieces']:>9,}{rare['loss']:>8.3f}" in printed
    assert f"{NOT_LEARNT}\n" in printed
    for kind in ("png", "svg"):
        assert (toy / "masked_loss" / f"masked_loss.{kind}").exists()


def test_diagnostics(made, toy):
    printed = succeed(
        "run_diagnostics", f"--init_checkpoint={toy}/run", f"--second_checkpoint={toy}/run",
        f"--task={toy}/animals", f"--workdir={toy}/diagnostics", "--batch_size=4",
        f"--max_seq_length={toys.LENGTH}", "--top=3",
    )  # fmt: skip
    found = results(toy / "diagnostics")
    for tap, residual, loss in zip(
        found["taps"], found["blocks"]["collapse"]["relative_residual"], found["read_out"]["loss"],
        strict=True,
    ):  # fmt: skip
        assert f"{tap:<24}{residual:>11.3f}" in printed and f"{loss:>11.3f}" in printed
    assert "block_01/attention ~ block_01/attention: matched heads differ by 0.000" in printed
    assert f"{NOT_LEARNT}\n" in printed
    for name in ("blocks", "attention", "read_out"):
        for kind in ("png", "svg"):
            assert (toy / "diagnostics" / f"{name}.{kind}").exists()


def test_probing(made, toy):
    printed = succeed(
        "run_probing", f"--init_checkpoint={toy}/run", f"--task={toy}/animals",
        f"--workdir={toy}/probes", f"--max_seq_length={toys.LENGTH}", "--batch_size=8",
    )  # fmt: skip
    found = results(toy / "probes")
    assert found["rows"] == {"train": 96, "test": 11}
    for tap, accuracy in zip(found["taps"], found["accuracy"], strict=True):
        assert f"{tap:<24}{accuracy:>10.3f}" in printed
    assert "scalar mix" in printed and "3 seed(s)" in printed and " control" in printed
    assert f"{NOT_LEARNT}\n" in printed
    assert f"{NOT_LEARNT}\n" in (toy / "probes" / "results.md").read_text()
    assert (toy / "probes" / "probes.png").exists() and (toy / "probes" / "probes.svg").exists()


@pytest.mark.slow
def test_probes_of_converted_weights_have_no_pre_training_seed_none(made, toy):
    succeed("convert_checkpoint", f"--input={toy}/run", f"--output_dir={toy}/converted")
    printed = succeed(
        "run_probing", f"--init_checkpoint={toy}/converted", f"--task={toy}/animals",
        f"--workdir={toy}/converted_probes", f"--max_seq_length={toys.LENGTH}", "--num_seeds=1",
        "--nocontrol_task", "--nocodelength", "--noscalar_mix",
    )  # fmt: skip
    assert "A*2I, animals: 96 training sentences" in printed and "None" not in printed


def test_surgery(made, toy):
    printed = succeed(
        "run_surgery", f"--input={toy}/run", f"--output_dir={toy}/cut", "--cut=importance",
        "--num_cut=1", f"--records_dir={toy}/records", "--batch_size=4",
    )  # fmt: skip
    about = json.loads((toy / "cut" / "surgery.json").read_text())
    before, after = about["order"]["damages"]
    assert f"| 0 | | {before:.4f} | |\n| 1 | block_01/intermediate | {after:.4f} |" in printed
    assert "A*2I -> A*2\nnew: none\ndropped: block_01/intermediate" in printed
    assert before == pytest.approx(results(toy / "run")["validation"]["loss"], rel=1e-4)
    assert (toy / "cut" / "damage.png").exists() and (toy / "cut" / "damage.svg").exists()


@pytest.mark.slow
def test_healing(made, toy):
    if not (toy / "cut").exists():
        test_surgery(made, toy)
    printed = succeed(
        "run_pretraining", f"--init_checkpoint={toy}/cut", f"--teacher_checkpoint={toy}/run",
        f"--records_dir={toy}/records", f"--workdir={toy}/healed", "--num_train_steps=2",
        "--num_warmup_steps=1", "--train_batch_size=4", "--nojit_compile",
    )  # fmt: skip
    found = results(toy / "healed")
    assert found["pattern"] == "A*2"  # The checkpoint brings its sizes.
    distance = found["validation"]["hidden_loss"]
    assert f"states differ from the teacher's by {distance:.4f}\nanswers differ from" in printed
