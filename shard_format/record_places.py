"""Where records of equal size lie in an ArrayRecord file that is plain: uncompressed, one a chunk.

Riegeli, which ArrayRecord is built on, writes a stream of bytes that a header of 24 bytes
interrupts at every 64 KiB. Without those headers the stream is regular: a signature, then chunks of
a fixed size that end in their record. The place of a record thus follows from its number, with no
index to read.

Source: riegeli's doc/riegeli_records_file_format.md. Tests compare the pipeline's own files with
it, and every record that is read this way is checked against its checksum.
"""

import numpy as np

HEADER_BYTES = 24
CONTENT_BYTES = (1 << 16) - HEADER_BYTES  # from a header to the next
_SIGNATURE_BYTES = 40
# A chunk's own header, then the kind of compression, the size of the list of sizes, and that list,
# which is the record's size as a varint.
_CHUNK_HEADER_BYTES, _BEFORE_SIZES_BYTES = 40, 2


def overhead_bytes(record_bytes: int) -> int:
    """Returns the bytes of a chunk that aren't its record; all of them precede it."""
    return _CHUNK_HEADER_BYTES + _BEFORE_SIZES_BYTES + -(-max(1, record_bytes.bit_length()) // 7)


def stream_places(indices: np.ndarray, record_bytes: int) -> np.ndarray:
    """Returns int64[n], where records begin in the stream that has no block headers."""
    overhead = overhead_bytes(record_bytes)
    return _SIGNATURE_BYTES + overhead + indices.astype(np.int64) * (record_bytes + overhead)


def file_places(places: np.ndarray) -> np.ndarray:
    """Returns int64[n], where bytes of the stream stand in the file."""
    return places + HEADER_BYTES * (places // CONTENT_BYTES + 1)


def room(places: np.ndarray) -> np.ndarray:
    """Returns int64[n], the bytes from places of the stream to the next block header."""
    return CONTENT_BYTES - places % CONTENT_BYTES
