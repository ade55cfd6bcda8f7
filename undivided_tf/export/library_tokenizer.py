"""Files with which programs without TensorFlow make the ids that LiteRT and ONNX exports take."""

import pathlib
from collections.abc import Iterable

import tokenizers

from undivided_tf.export.signatures import Signature
from undivided_tf.models import checkpoints
from undivided_tf.tokenization import Tokenizer

FILE = "tokenizer.json"


def write(directory: pathlib.Path, tokenizer: Tokenizer, signatures: Iterable[Signature]) -> None:
    """Writes vocab.txt, and tokenizer.json for the library `tokenizers`.

    The docstring of `Tokenizer` says on which texts the library's tokenizer differs. tokenizer.json
    reads "[MASK]" in a text as the special token.

    Args:
        directory: an existing directory.
        tokenizer: gives the word pieces and the casing.
        signatures: of the export. tokenizer.json cuts texts to the shortest of their lengths.
    """
    tokenizer.save(directory / checkpoints.VOCABULARY)
    library = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(tokenizer.vocabulary)},
        lowercase=tokenizer.do_lower_case,
        strip_accents=tokenizer.do_lower_case,
    )
    library.enable_truncation(min(signature.max_seq_length for signature in signatures))
    library.enable_padding(pad_id=tokenizer.pad_id)
    library.save(str(directory / FILE), pretty=False)
