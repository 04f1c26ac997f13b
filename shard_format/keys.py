"""Document keys: the 64-bit hash whose order *is* the global shuffle.

A document is named by (file index, row), its place in the pinned source; its key is a hash of
(seed, file index, row) and nothing else. Rank, worker, bundle, attempt and clock never enter, so
every machine computes the same shuffled order, however often it does so. Everything here is integer
arithmetic on uint64 arrays (SplitMix64's finaliser), so the order can't change with a NumPy
release, as the numbers of a `Generator` may.

Source: SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
"""

import numpy as np

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOW_32 = np.uint64(0xFFFFFFFF)

# Domains keep the hashes of different purposes independent of each other for one and the same seed.
DOMAIN_DOCUMENT = 1
DOMAIN_SEQUENCE = 2
DOMAIN_SPLIT = 3
DOMAIN_DRAW = 4


def mix64(values: np.ndarray) -> np.ndarray:
    """Returns uint64[n]: SplitMix64's finaliser of each value, a bijection."""
    z = values + _GOLDEN_GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


def chain(*values: int) -> int:
    """Returns a 64-bit hash that depends on every value and on their order.

    Keys of different purposes are chains of a domain, a seed and whatever else they depend on,
    never sums, so that seed 1 of epoch 0 isn't seed 0 of epoch 1.

    Args:
        values: integers of any size and sign, taken modulo 2**64.
    """
    state = np.zeros(1, np.uint64)
    for value in values:
        state = mix64(state ^ np.array([value % 2**64], np.uint64))
    return int(state[0])


def document_keys(seed: int, file_index: int | np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns uint64[n], the shuffle key of each document.

    Args:
        seed: the dataset's shuffle seed.
        file_index: number of the source file, one for all rows or int[n].
        row: int64[n], row inside the source file.

    Guarantees: a pure function of its arguments; in one file, no two rows share a key.
    """
    return _hash_documents(DOMAIN_DOCUMENT, seed, file_index, row)


def draw_keys(document_keys: np.ndarray, seed: int, *numbers: int) -> np.ndarray:
    """Returns uint64[n], fresh keys of documents for one draw from a buffer.

    Args:
        document_keys: uint64[n].
        seed: of the shuffle.
        numbers: of this draw among all with the seed, e.g. (lane, draw).

    Guarantees: a pure function of its arguments, whatever the order of the documents.
    """
    return mix64(document_keys ^ np.uint64(chain(DOMAIN_DRAW, seed, *numbers)))


def split_keys(file_index: int | np.ndarray, row: np.ndarray) -> np.ndarray:
    """Returns uint64[n], the key that assigns documents to train or validation.

    It doesn't depend on the seed: another shuffle, or data appended, moves no document across.
    """
    return _hash_documents(DOMAIN_SPLIT, 0, file_index, row)


def _hash_documents(
    domain: int, seed: int, file_index: int | np.ndarray, row: np.ndarray
) -> np.ndarray:
    base = np.uint64(chain(domain, seed))
    file_state = mix64(np.atleast_1d(np.asarray(file_index)).astype(np.uint64) ^ base)
    return mix64(mix64(np.asarray(row).astype(np.uint64)) ^ file_state)


def bucket_of(keys: np.ndarray, num_buckets: int) -> np.ndarray:
    """Returns int64[n], the bucket of each key: `floor(key * num_buckets / 2**64)`, exact.

    A bucket is a range of keys, not a remainder. The order of buckets is thus the order of keys,
    and the whole dataset, read bucket by bucket, is one permutation.
    """
    if not 1 <= num_buckets < 2**31:
        raise ValueError(f"num_buckets is {num_buckets}, expected 1 to 2**31 - 1")
    n = np.uint64(num_buckets)
    # 64 x 31 bits by halves: the partial products stay below 2**64.
    low = (keys & _LOW_32) * n >> np.uint64(32)
    return (((keys >> np.uint64(32)) * n + low) >> np.uint64(32)).astype(np.int64)


def assign_buckets(
    file_index: int | np.ndarray,
    row: np.ndarray,
    *,
    seed: int,
    num_shards: int,
    num_validation_shards: int = 0,
    validation_fraction: float = 0.0,
) -> np.ndarray:
    """Returns int64[n], the bucket each document ends in: train shards first, then validation's.

    Args:
        file_index: number of the source file, one for all rows or int[n].
        row: int64[n], row inside the source file.
        seed: of the shuffle.
        num_shards: of the train split.
        num_validation_shards: 0 where there is no validation split.
        validation_fraction: of documents, chosen by a key of their own whatever the seed.
    """
    shuffle_keys = document_keys(seed, file_index, row)
    buckets = bucket_of(shuffle_keys, num_shards)
    if num_validation_shards:
        chosen = split_keys(file_index, row) < np.uint64(int(validation_fraction * 2**64))
        validation = bucket_of(shuffle_keys, num_validation_shards)
        buckets = np.where(chosen, num_shards + validation, buckets)
    return buckets


def permutation(n: int, seed: int, *numbers: int) -> np.ndarray:
    """Returns int64[n], a pseudo-random permutation of range(n), fixed by (seed, *numbers).

    Sorting by 64-bit hashes is uniform up to ties, which a stable sort settles by index.
    """
    keys = mix64(np.arange(n, dtype=np.uint64) ^ np.uint64(chain(DOMAIN_SEQUENCE, seed, *numbers)))
    return np.argsort(mix64(keys), kind="stable")
