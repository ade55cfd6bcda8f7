"""Kinds of cells are found by one registry, those from outside the package as well."""

import pickle

import made_up_study
import pytest

from undivided_tf.errors import InputError
from undivided_tf.study import grid, kinds, report
from undivided_tf.study.config import StudyConfig

OUTSIDE = "embedding_norms:EmbeddingNorms"


def test_kinds_have_names_of_their_own_and_calls_that_are_there():
    import importlib

    found = kinds.of(StudyConfig())
    assert len({kind.name for kind in found}) == len(found) == 11
    for kind in found:
        module, _, name = kind.call.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_every_section_of_a_kind_is_one_of_the_config():
    sections = [kind.section for kind in kinds.KINDS if kind.section]
    assert len(sections) >= 7
    assert set(sections) <= set(StudyConfig.__dataclass_fields__)


def test_a_kind_from_outside_has_cells_behind_those_of_the_package():
    config = StudyConfig(patterns=("AI", "A*2"))
    before = [cell.name for cell in grid.expand(config)]
    cells = grid.expand(config.replace(kinds=(OUTSIDE,)))
    assert [c.name for c in cells if c.kind.name != "norms"] == before
    norms = [c for c in cells if c.kind.name == "norms"]
    assert [c.label["pattern"] for c in norms] == ["AI", "A*2"]
    assert all(c.places["init_checkpoint"].kind.name == "pretraining" for c in norms)
    again = pickle.loads(pickle.dumps(norms[0]))
    assert (again.name, again.kind.call) == (norms[0].name, "embedding_norms:norms")


def test_its_numbers_stand_in_the_frame_and_in_the_report(tmp_path):
    results = made_up_study.results()
    results["config"]["kinds"] = [OUTSIDE]
    for pattern, value in (("(AI)*6", 1.25), ("(AAI)*3", 2.5), ("A*6", 3.75)):
        label = {"pattern": pattern, "pretraining_seed": 1}
        results["cells"].append(
            {"name": f"norms/{pattern}", "kind": "norms", "label": label, "status": "finished",
             "error": None, "seconds": 1.0, "machine": "",
             "result": {"kind": "norms", "mean_norm": value, **label}}
        )  # fmt: skip
    study = kinds.read_results(results)
    assert study.by_seed("norms", "mean_norm", pattern="A*6") == {1: 3.75}
    table = next(
        part
        for section in report.sections(study)
        if section.title == "Embeddings"
        for part in section.parts
    )
    assert [row[1].text for row in table.rows] == ["1.250000", "2.500000", "3.750000"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:Kind", "'nowhere:Kind', which is no MODULE:CLASS on the Python path"),
        ("embedding_norms", "no MODULE:CLASS"),
        ("embedding_norms:norms", "no subclass of Kind with name and call"),
        ("undivided_tf.study.cells:Kind", "no subclass of Kind with name and call"),
        ("undivided_tf.study.kinds.blimp:Blimp", "'blimp' is the name of two kinds"),
    ],
)
def test_what_is_no_kind_is_named(path, message):
    with pytest.raises(InputError, match=message):
        kinds.of(StudyConfig(kinds=(path,)))
