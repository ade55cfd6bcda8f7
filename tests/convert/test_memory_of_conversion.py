"""Converting takes less than twice the checkpoint's size, imports left out."""

import json

import numpy as np
import pytest
import released
import toys

from undivided_tf.config import EncoderConfig
from undivided_tf.convert import huggingface, names
from undivided_tf.convert.tensor_files import write_tensors

CODE = """
import pathlib, re, sys
import undivided_tf.convert.converter  # Brings TensorFlow, whose memory is not the conversion's.
from undivided_tf.bin import convert_checkpoint

def memory(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s*(\\d+) kB", status)[1])

before = memory("VmRSS")
try:
    convert_checkpoint.run()
finally:
    print(memory("VmHWM") - before)
"""


@pytest.mark.slow
def test_converting_takes_less_than_twice_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)  # Those of the tests themselves.
    pieces = [*released.PIECES, *(f"q{i}" for i in range(30000))]
    sizes = {"vocab_size": len(pieces), "hidden_size": 768, "intermediate_size": 3072}
    layers = {"num_hidden_layers": 4, "num_attention_heads": 12, "max_position_embeddings": 128}
    folder = released.write(tmp_path / "bert", pieces=pieces, **sizes, **layers)
    config = EncoderConfig(
        **sizes, num_attention_heads=12, max_position_embeddings=128, block_pattern="(AI)*4"
    )
    random = np.random.default_rng(0)
    tensors = []
    for tensor in names.encoder_tensors(config):
        stored = huggingface._foreign(tensor)
        tensors.append(
            (
                stored.name,
                stored.shape,
                lambda s=stored.shape: random.normal(0, 0.02, s).astype("f4"),
            )
        )
    write_tensors(folder / "model.safetensors", tensors)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 200e6
    found = {}
    for source, target, output_format in (
        ("bert", "ours", "undivided"), ("ours", "back", "huggingface"),
    ):  # fmt: skip
        flags = {"input": tmp_path / source, "output_dir": tmp_path / target}
        flags["output_format"] = output_format
        done = toys.run_python(CODE, *(f"--{name}={value}" for name, value in flags.items()))
        assert done.returncode == 0, done.stderr
        found[output_format] = int(done.stdout.splitlines()[-1]) * 1024 / size
    assert max(found.values()) < 2, json.dumps(found)
