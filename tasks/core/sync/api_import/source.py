"""How a list is read incrementally: what a record is known by, and when it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator

from tasks.core.connectors.http.pagination import BodyCursor, CountedStyle, Pagination
from tasks.core.connectors.http.response_fields import optional_field
from tasks.core.sync.api_import.windows import TakenRecord
from tasks.core.sync.batches.result import RejectedRecord
from tasks.core.ui_labels import ui_label

InstantFormat = Literal["rfc3339", "epoch_s", "epoch_ms"]
_LONGEST_ID = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class IncrementalList(BaseModel):
    """A list of an API that can be asked for what changed since an instant.

    The instants of changes may be late: a record can appear that changed a while ago. `overlap_s`
    is for how long; so much is read again each time, and what is known is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", field_title_generator=ui_label)

    path: str = Field(description="The list, relative to the block's base URL.")
    pagination: Pagination = Field(
        default=BodyCursor(records_path="records"), description="How the list is paged."
    )
    params: dict[str, str | int] = Field(
        default_factory=dict, description="Query of every page, such as the page size."
    )
    since_param: str = Field(
        default="updated_since", description="Parameter that asks for changes since an instant."
    )
    until_param: str | None = Field(
        default=None, description="Parameter for the end of a range, if the API has one."
    )
    id_path: str = Field(default="id", description="Where a record's identity is.")
    changed_at_path: str = Field(
        default="updated_at", description="Where the instant of its last change is."
    )
    instants: InstantFormat = Field(
        default="rfc3339", description="How the API writes and takes instants."
    )
    is_ordered: bool = Field(
        default=True,
        description=(
            "Whether the list is in the order of change, the oldest first. Then little has to be "
            "remembered; a list in another order is an error."
        ),
    )
    overlap_s: NonNegativeFloat = Field(
        default=120, description="Seconds before the cursor that are read again, for late records."
    )
    is_shifting: bool | None = Field(
        default=None,
        description=(
            "Whether a record that changes moves those behind it to other pages, as with page "
            "numbers: then a window is read again until nothing new comes. Empty: with page "
            "numbers and offsets."
        ),
    )
    slice_s: PositiveInt | None = Field(
        default=None,
        description=(
            "Read windows that are longer in slices of so many seconds, `at_once` of them; needs "
            "`until_param`."
        ),
    )
    at_once: PositiveInt = Field(
        default=1,
        description="Pages fetched at a time: of slices, or where pages are numbered.",
    )
    max_pages_a_run: PositiveInt = Field(
        default=5000,
        description="A run ends after so many pages, or with the list if that shifts; "
        "the next one goes on there.",
    )

    @model_validator(mode="after")
    def _slices_have_ends(self) -> Self:
        if self.slice_s is not None and (self.until_param is None or self.shifts):
            raise ValueError("slices need until_param, and a list that does not shift")
        return self

    @property
    def shifts(self) -> bool:
        """Whether a page's place changes with the records before it."""
        if self.is_shifting is not None:
            return self.is_shifting
        return isinstance(self.pagination, CountedStyle)

    def asking_for(self, since_at: datetime | None, until_at: datetime | None) -> dict[str, Any]:
        """The query of every page of a window."""
        asked: dict[str, Any] = dict(self.params)
        if since_at is not None:
            asked[self.since_param] = self.written(since_at)
        if until_at is not None and self.until_param is not None:
            asked[self.until_param] = self.written(until_at)
        return asked

    def written(self, instant: datetime) -> str | int:
        """An instant as the API wants it, never later than it is."""
        if self.instants == "rfc3339":
            utc = instant.astimezone(UTC)
            precision = "microseconds" if utc.microsecond else "seconds"
            return utc.isoformat(timespec=precision).replace("+00:00", "Z")
        unit = timedelta(seconds=1) if self.instants == "epoch_s" else timedelta(milliseconds=1)
        return (instant - _EPOCH) // unit

    def identify(self, record: Any) -> TakenRecord | RejectedRecord:
        """What a record is known by, or why it cannot be imported."""
        if not isinstance(record, Mapping):
            return RejectedRecord("", "", "is not an object")
        identity = optional_field(record, self.id_path)
        if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
            return RejectedRecord("", self.id_path, "is missing")
        name = _short(str(identity))
        try:
            changed_at = self._instant(optional_field(record, self.changed_at_path))
        except (ValueError, TypeError, OverflowError):
            reason = f"is no instant ({self.instants}), so that it is not known when it changed"
            return RejectedRecord(name, self.changed_at_path, reason)
        content = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
        return TakenRecord(name, hashlib.blake2b(content, digest_size=16).hexdigest(), changed_at)

    def _instant(self, value: Any) -> datetime:
        if self.instants == "rfc3339":
            instant = datetime.fromisoformat(value)
            if instant.tzinfo is None:
                raise ValueError("no zone")
            return instant.astimezone(UTC)
        if isinstance(value, bool):
            raise TypeError("a flag is no instant")
        number = float(value) if self.instants == "epoch_s" else float(value) / 1000
        return _EPOCH + timedelta(seconds=number)


@dataclass(frozen=True, slots=True)
class Range:
    """A range of time to import again; the start belongs to it, the end does not.

    Attributes:
        from_at: Aware instant.
        until_at: Aware instant.
    """

    from_at: datetime
    until_at: datetime

    @property
    def name(self) -> str:
        """What tells this range from others."""
        start, end = self.from_at.astimezone(UTC), self.until_at.astimezone(UTC)
        return f"{start:%Y%m%dT%H%M%S.%fZ}--{end:%Y%m%dT%H%M%S.%fZ}"


def _short(identity: str) -> str:
    """The identity, or a digest in place of one that is too long to be kept."""
    if len(identity) <= _LONGEST_ID:
        return identity
    return f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"
