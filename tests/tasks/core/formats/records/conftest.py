"""Reads bytes as a file of a partner's server, as the import does."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from blocks.errors import BadPayloadError
from tasks.core.formats.records.formats import FileFormat
from tasks.core.formats.records.reading import Records, read_records
from tasks.core.formats.records.record import Record, Reject

SYSTEM = "sftp://files.partner.example"


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Records]:
    """Puts bytes in a file and returns its records."""
    folder = tmp_path_factory.mktemp("files")
    numbers = itertools.count()

    def opened(content: bytes, file_format: FileFormat, name: str = "stock.dat") -> Records:
        path = folder / f"{next(numbers) % 4}.dat"
        path.write_bytes(content)
        return read_records(path, file_format, system=SYSTEM, name=name)

    return opened


@pytest.fixture(scope="session")
def read(opened: Callable[..., Records]) -> Callable[..., list[Record | Reject]]:
    """Puts bytes in a file and reads all its records."""

    def read(
        content: bytes, file_format: FileFormat, name: str = "stock.dat"
    ) -> list[Record | Reject]:
        return list(opened(content, file_format, name))

    return read


@pytest.fixture(scope="session")
def refusal(opened: Callable[..., Records]) -> Callable[..., str]:
    """Puts bytes in a file that cannot be read, and returns what the operator sees."""

    def refusal(content: bytes, file_format: FileFormat, name: str = "stock.dat") -> str:
        with pytest.raises(BadPayloadError) as raised:
            list(opened(content, file_format, name))
        error = raised.value
        assert (error.system, error.operation) == (SYSTEM, "read")
        assert str(error.record).startswith(name)
        return error.message

    return refusal
