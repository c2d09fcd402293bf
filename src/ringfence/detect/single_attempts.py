"""A compact table for subjects (addresses or networks counted as one) with a single attempt.

The records are stored as bytes, one after the other, in buckets, the oldest of a bucket first. A record
is its length, its key and its content. Python's hash of the key (secret for each process) selects the
bucket, so attackers cannot choose addresses that collide.

A million records take 44 MB. In a dict they would take 148 MB. Then the daemon would need some 216 MB
instead of 112, and the benchmark row "a million addresses, one attempt each, within an hour: ≤ 200 MB"
would fail.
"""

from collections.abc import Iterator

_BUCKETS = 1 << 15
_LENGTH = 1
MAX_RECORD = 255
"""The greatest length of a record in bytes, because its length is stored in one byte."""


class SingleAttempts:
    """A compact table: stores bytes (a record) under each key of ``key_size`` bytes."""

    def __init__(self, key_size: int) -> None:
        self._key_size = key_size
        self._size = 0
        self._buckets: list[bytearray | None] = []
        self._next = 0

    def __len__(self) -> int:
        """Return the number of records in the table."""
        return self._size

    def put(self, key: bytes, record: bytes) -> None:
        """Store a record under a new key.

        Raise ValueError if the record, with its key and its length byte, exceeds ``MAX_RECORD``.
        """
        whole = bytes((_LENGTH + len(key) + len(record),)) + key + record
        if not self._buckets:
            self._buckets = [None] * _BUCKETS
        number = hash(key) % _BUCKETS
        bucket = self._buckets[number]
        if bucket is None:
            self._buckets[number] = bytearray(whole)
        else:
            bucket += whole
        self._size += 1

    def get(self, key: bytes) -> bytes | None:
        """Return the record of a key, None if there is none."""
        found = self._find(key)
        if found is None:
            return None
        bucket, start = found
        return bytes(bucket[start + _LENGTH + self._key_size : start + bucket[start]])

    def pop(self, key: bytes) -> bytes | None:
        """Remove and return the record of a key; None if there is none."""
        found = self._find(key)
        if found is None:
            return None
        bucket, start = found
        end = start + bucket[start]
        record = bytes(bucket[start + _LENGTH + self._key_size : end])
        del bucket[start:end]
        self._size -= 1
        return record

    def drop(self, number: int) -> int:
        """Discard up to ``number`` records, the oldest of each hash bucket in turn; return how many."""
        wanted = min(number, self._size)
        left = wanted
        while left:
            bucket = self._buckets[self._next]
            self._next = (self._next + 1) % _BUCKETS
            if bucket:
                del bucket[: bucket[0]]
                self._size -= 1
                left -= 1
        return wanted

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all keys with their records, in no particular order."""
        behind_key = _LENGTH + self._key_size
        for bucket in self._buckets:
            start = 0
            while bucket and start < len(bucket):
                end = start + bucket[start]
                yield (
                    bytes(bucket[start + _LENGTH : start + behind_key]),
                    bytes(bucket[start + behind_key : end]),
                )
                start = end

    def _find(self, key: bytes) -> tuple[bytearray, int] | None:
        bucket = self._buckets[hash(key) % _BUCKETS] if self._size else None
        if not bucket or key not in bucket:  # a fast test: nearly all looked-up keys are absent
            return None
        start = 0
        while start < len(bucket):
            if bucket.startswith(key, start + _LENGTH):
                return bucket, start
            start += bucket[start]
        return None
