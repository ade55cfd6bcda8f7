import os
import subprocess
import sys

import pytest

from undivided_tf.convert import tensor_files
from undivided_tf.support import files
from undivided_tf.training.config import FinetuningConfig


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert files.read_json(path) == {"a": 1}
    with pytest.raises(RuntimeError), files.atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_of_two_writers_at_once_the_last_remains_whole(tmp_path):
    path = tmp_path / "value"
    with files.atomic_path(path, shared=True) as first:
        first.write_text("first")
        with files.atomic_path(path, shared=True) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["value"]


def test_a_directory_replaces_a_directory(tmp_path):
    for content in ("old", "new"):
        with files.atomic_path(tmp_path / "made") as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert os.listdir(tmp_path / "made") == ["new"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A file size limit of the process stands for the full disk: both end in an OSError."""
    code = (
        "import resource, signal, sys\n"
        "from undivided_tf.support import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "files.write_text(sys.argv[1], 'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    files.write_text(sys.argv[1], 'x' * 100_000)\n"
        "except OSError as error:\n"
        "    print('refused')\n"
    )
    path = tmp_path / "text"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text"]


def test_a_byte_order_mark_before_json_is_skipped(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"workdir": "a"}')
    assert files.read_json(path) == {"workdir": "a"}
    assert FinetuningConfig.from_json(path).workdir == "a"
    assert tensor_files.read_object(path) == {"workdir": "a"}
