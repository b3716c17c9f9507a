"""What all stand-ins are: servers that run until they are stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class StandIn(ABC):
    """A stand-in of an outside system, from its start on; leaving a `with` stops it."""

    @abstractmethod
    def stop(self) -> None:
        """Stop serving."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
