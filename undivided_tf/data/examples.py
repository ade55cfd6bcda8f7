"""Bytes of records: `tf.train.Example`s of fixed width in TFRecord's framing.

Every feature is one byte string of fixed width. So the records of a file differ only in their
values and checksums, and NumPy lays out a whole block at once.
"""

import functools

import numpy as np
import tensorflow as tf

TOKEN_IDS = "token_ids"
FIRST_SEGMENT_LENGTH, LABEL = PAIR_FIELDS = ("first_segment_length", "next_sentence_label")
ROW_DTYPE = np.dtype("<i4")


def _widths(max_seq_length: int, pairs: bool) -> dict[str, int]:
    """Number of values of each feature of a record."""
    return {TOKEN_IDS: max_seq_length, **dict.fromkeys(PAIR_FIELDS if pairs else (), 1)}


def _prefix(name: str, values: int) -> bytes:
    """The bytes before a feature's value in an Example with this feature only.

    Concatenated serialised messages are one merged message (Protocol Buffers, Encoding, "Last One
    Wins"). So an Example of several features is the concatenation of its parts.

    Args:
        name: name of the feature.
        values: number of little-endian int32 values that it holds.
    """
    width = values * ROW_DTYPE.itemsize
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes(width)]))
    example = tf.train.Example(features=tf.train.Features(feature={name: feature}))
    return example.SerializeToString()[:-width]


def parse(examples: tf.Tensor, max_seq_length: int, pairs: bool = False) -> dict[str, tf.Tensor]:
    """Serialised examples `(rows,)` -> int32 `token_ids` `(rows, max_seq_length)`.

    With `pairs` also `next_sentence_label` `(rows,)` and `segment_ids` `(rows, max_seq_length)`,
    which are 1 from the second segment to the end of the row, padding included.
    """
    widths = _widths(max_seq_length, pairs)
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in widths}
    raw = tf.io.parse_example(examples, spec)
    fields = {
        name: tf.ensure_shape(tf.io.decode_raw(raw[name], tf.int32), (None, width))
        for name, width in widths.items()
    }
    if pairs:
        first = fields.pop(FIRST_SEGMENT_LENGTH)
        fields["segment_ids"] = tf.cast(tf.range(max_seq_length) >= first, tf.int32)
        fields[LABEL] = fields[LABEL][:, 0]
    return fields


class Layout:
    """Lays out blocks of records in the format of a TFRecord file.

    Args:
        max_seq_length: word pieces per row.
        pairs: whether the records have `PAIR_FIELDS`.

    References:
        TFRecord: length, masked CRC-32C of it, data, masked CRC-32C of them
        (tensorflow.org/tutorials/load_data/tfrecord).
    """

    def __init__(self, max_seq_length: int, pairs: bool = False):
        self._widths = _widths(max_seq_length, pairs)
        prefixes = {name: _prefix(name, width) for name, width in self._widths.items()}
        fields = [("length", "<u8"), ("length_checksum", "<u4")]
        for name, width in self._widths.items():
            fields += [(f"{name}_prefix", f"S{len(prefixes[name])}"), (name, ROW_DTYPE, (width,))]
        self.dtype = np.dtype([*fields, ("checksum", "<u4")])
        self._blank = np.zeros((), self.dtype)
        self._blank["length"] = self.dtype.itemsize - 16
        self._blank["length_checksum"] = _masked(_crc32c(self._blank["length"].tobytes()))
        for name, prefix in prefixes.items():
            self._blank[f"{name}_prefix"] = prefix
        self._checksum = _crc32c(self._blank.tobytes()[12:-4])
        tables = _position_tables(self.dtype.itemsize - 16)
        self._tables = {
            name: tables[self.dtype.fields[name][1] - 12 :][: width * ROW_DTYPE.itemsize]
            for name, width in self._widths.items()
        }

    def records(self, **fields: np.ndarray) -> np.ndarray:
        """Structured array `(rows,)` of type `dtype`; its bytes are a TFRecord file.

        Args:
            fields: int32 `token_ids` `(rows, max_seq_length)` and, for pairs, the fields of
                `PAIR_FIELDS` `(rows,)`.
        """
        rows = np.full(len(fields[TOKEN_IDS]), self._blank)
        checksum = np.full(len(rows), self._checksum)
        for name, width in self._widths.items():
            values = np.ascontiguousarray(fields[name], ROW_DTYPE).reshape(len(rows), width)
            rows[name] = values
            # A CRC is linear: the contribution of each byte depends only on its value and position.
            # Zero bytes contribute nothing, so the upper halves of small ids are skipped.
            used = 2 if values.size and values.max() < 1 << 16 and values.min() >= 0 else 4
            octets = values.view(np.uint8).reshape(len(rows), width, 4)[:, :, :used]
            tables = self._tables[name].reshape(width, 4, 256)[:, :used]
            places = np.arange(width * used, dtype=np.int32) * 256
            octet_rows = np.take(
                tables.reshape(-1), octets.reshape(len(rows), width * used) + places
            )
            checksum ^= np.bitwise_xor.reduce(octet_rows, axis=1)
        rows["checksum"] = _masked(checksum)
        return rows


@functools.cache
def _byte_table() -> np.ndarray:
    """CRC-32C (Castagnoli, reflected) of each byte, uint32 `(256,)`."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


def _position_tables(length: int) -> np.ndarray:
    """Contribution of a byte at each position to the checksum, uint32 `(length, 256)`."""
    table = _byte_table()
    tables = np.empty((length, 256), np.uint32)
    row = table
    for place in reversed(range(length)):
        tables[place] = row
        row = table[row & 255] ^ (row >> 8)
    return tables


def _crc32c(data: bytes) -> np.uint32:
    table, crc = _byte_table(), 0xFFFFFFFF
    for octet in data:
        crc = int(table[(crc ^ octet) & 255]) ^ (crc >> 8)
    return np.uint32(crc ^ 0xFFFFFFFF)


def _masked(crc: np.ndarray) -> np.ndarray:
    """TFRecord's masked checksum: rotated, plus a constant, modulo 2^32."""
    with np.errstate(over="ignore"):  # NumPy warns of scalar overflow, which is intended here.
        return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
