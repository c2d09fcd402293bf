"""A disk that is full for a time."""

from typing import Any

import pytest

from ringfence.errors import StoreError


class FullDisk:
    """Makes methods of a table fail while ``is_full``, also those of writes that are tried again later."""

    def __init__(self, patch: pytest.MonkeyPatch, table: object, *names: str) -> None:
        self.is_full = True
        for name in names:
            patch.setattr(table, name, self._limited(getattr(table, name)))

    def _limited(self, method: Any) -> Any:  # noqa: ANN401 - any method
        def write(*arguments: Any) -> Any:  # noqa: ANN401 - any arguments
            if self.is_full:
                raise StoreError("disk full")
            return method(*arguments)

        return write
