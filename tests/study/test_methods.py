"""The methods are told from the config; what is not the default has its meaning beside it."""

import made_up_study
from made_up_study import text_of

from undivided_tf.study import methods
from undivided_tf.study.kinds import read_results


def test_settings_that_are_not_the_defaults_are_shown_with_their_help():
    results = made_up_study.results()
    results["config"]["pretraining"]["masked_lm_prob"] = 0.4
    by_stage = {table.title: table for table in methods.settings(read_results(results))}
    assert {"Study", "Pre-training"} <= set(by_stage)
    pretraining = {row[0].text: row for row in by_stage["Pre-training"].rows}
    assert pretraining["num_train_steps"][1].text == "1800"
    assert pretraining["num_train_steps"][2].text == "Optimizer steps."
    assert pretraining["masked_lm_prob"][1].number == 0.4
    assert pretraining["encoder.hidden_size"][1].number == 128
    assert "adam_beta_1" not in pretraining  # The default.
    # Filled in by the study itself, so that the config's value would mislead.
    absent = {"workdir", "seed", "records_dir", "encoder.vocab_size", "encoder.block_pattern"}
    assert not absent & set(pretraining)


def test_procedure_and_limits_follow_the_config():
    study = read_results(made_up_study.results())
    told = text_of(methods.section(study))
    assert "1,800 steps of 16 sequences" in told and "3 runs an encoder" in told
    assert "One pre-training seed" in text_of(methods.limits(study))
    assert "the same again from random weights" in told
    results = made_up_study.results()
    results["config"]["core_patterns"] = 1
    told = text_of(methods.section(read_results(results)))
    assert "(AI)*6 once again from random weights" in told
    for cell in results["cells"]:  # Nor does it say otherwise before the others have begun.
        if cell["label"].get("pattern") in ("(AAI)*3", "A*6"):
            cell.update(status="not run", result=None)
    begun = text_of(methods.section(read_results(results)))
    assert "(AI)*6 once again from random weights" in begun
    several = read_results(made_up_study.results(seeds=3))
    assert "n is 3 at most" in text_of(methods.limits(several))


def test_metadata_of_the_corpus_is_shown_whole():
    results = made_up_study.results()
    results["corpus"]["sources"] = {f"file_{i}": "0" * 64 for i in range(2)}
    results["corpus"]["shards"] = list(range(40))
    rows = {row[0].text: row[1] for row in methods.corpus(read_results(results)).rows}
    assert rows["documents.train"].text == "9,000"
    assert rows["sources.file_1"].text == "0" * 64
    assert rows["shards"].text == "40 entries"


def test_the_share_of_compilation_is_told_where_cells_measured_it():
    results = made_up_study.results()
    rows = {row[0].text for row in methods.environment(read_results(results)).rows}
    assert "of it compiling first steps" not in rows
    first, second, *_ = results["cells"]
    first |= {"seconds": 30.0, "compiling_seconds": 6.0}
    second |= {"seconds": 70.0, "compiling_seconds": 0.0}
    study = read_results(results)
    rows = {row[0].text: row[1].text for row in methods.environment(study).rows}
    assert rows["of it compiling first steps"] == "6.0 s, 6.0 %"
    times = [[value.text for value in row[3:]] for row in methods.cells(study).rows]
    assert times[:2] == [["30.0 s", "6.0 s"], ["1 min 10 s", "–"]]
