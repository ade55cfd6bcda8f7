"""Our ONNX export by onnxruntime, as its card shows: no TensorFlow, the tokenizer of the export."""

import numpy as np
import onnxruntime
import serving
import tokenizers


def main() -> None:
    """Loads the export, then serves."""
    job, folder = serving.read_job()
    export = folder / job["export"]
    tokenizer = tokenizers.Tokenizer.from_file(str(export / "tokenizer.json"))
    session = onnxruntime.InferenceSession(export / "embed.onnx")

    def embed(texts):
        rows = tokenizer.encode_batch(texts)
        ids = {
            "token_ids": np.array([row.ids for row in rows], np.int32),
            "segment_ids": np.array([row.type_ids for row in rows], np.int32),
            "padding_mask": np.array([row.attention_mask for row in rows], np.int32),
        }
        return session.run(["mean"], ids)[0]

    serving.serve({"onnxruntime": onnxruntime.__version__}, embed, job["vocab_size"])


if __name__ == "__main__":
    main()
