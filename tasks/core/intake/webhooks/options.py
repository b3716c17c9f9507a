"""What can be set for a scheme beyond its secrets; everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class NoOptions(BaseModel):
    """The scheme leaves nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ToleranceOptions(NoOptions):
    """Of schemes whose requests carry a time stamp."""

    tolerance_s: float | None = Field(
        300, gt=0, description="How old a request may be, in seconds; null for any age."
    )


class HubspotOptions(ToleranceOptions):
    """HubSpot sends old versions beside v3 for subscriptions made long ago."""

    versions: tuple[Literal["v3", "v2", "v1"], ...] = Field(
        ("v3", "v2", "v1"),
        min_length=1,
        description="Accepted versions; only v3 has a time stamp that stops replays.",
    )


class HmacOptions(ToleranceOptions):
    """Any sender that signs the body, or something with the body in it, with a shared secret."""

    header: str = Field("X-Signature", min_length=1, description="Where the signature stands.")
    algorithm: Literal["sha1", "sha256", "sha512"] = Field("sha256", description="The hash.")
    encoding: Literal["hex", "base64"] = Field("hex", description="How it is written.")
    prefix: str = Field("", description="What stands before it, e.g. 'sha256='.")
    separator: str = Field("", description="What stands between several signatures.")
    message: str = Field(
        "{body}", description="What is signed, of {method} {url} {body} {id} {timestamp}."
    )
    key_encoding: Literal["text", "base64"] = Field("text", description="How secrets are written.")
    timestamp_header: str | None = Field(None, description="The header with {timestamp}.")
    timestamp_unit: Literal["s", "ms"] = Field("s", description="The unit of {timestamp}.")
    id_header: str | None = Field(None, description="The header with {id}.")

    @model_validator(mode="after")
    def _what_is_checked_is_signed(self) -> Self:
        for header, part in ((self.timestamp_header, "{timestamp}"), (self.id_header, "{id}")):
            if (header is not None) != (part in self.message):
                name = part.strip("{}")
                raise ValueError(
                    f"give {name}_header and {part} in message both or neither: a {name} that is "
                    "not signed proves nothing"
                )
        return self


class ApiKeyOptions(NoOptions):
    """A key in a header of its own."""

    header: str = Field("X-API-Key", min_length=1, description="Where the key stands.")


class SalesforceOptions(NoOptions):
    """Salesforce signs nothing; its organisations are allowed by id."""

    organization_ids: tuple[str, ...] = Field(
        (), description="Allowed organisations, 15 or 18 characters, beside those in secrets."
    )


class SnsOptions(NoOptions):
    """Amazon signs for everybody; topics are allowed by name."""

    topic_arns: tuple[str, ...] = Field(
        (), description="Allowed topics, arn:aws:sns:…, beside those in secrets."
    )
    fetch_certificate: Callable[[str], bytes] | None = Field(
        None, description="Gets the PEM file at a URL, for tests; by default from Amazon."
    )
