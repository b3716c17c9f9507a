"""The options of each scheme besides its secrets; unknown options are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class NoOptions(BaseModel):
    """A scheme without options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ToleranceOptions(NoOptions):
    """Options of schemes whose requests carry a timestamp."""

    tolerance_s: float | None = Field(
        300, gt=0, description="How old a request may be, in seconds; null for any age."
    )


class HubspotOptions(ToleranceOptions):
    """Options for HubSpot, which still sends old versions for old subscriptions."""

    versions: tuple[Literal["v3", "v2", "v1"], ...] = Field(
        ("v3", "v2", "v1"),
        min_length=1,
        description="Accepted versions; only v3 has a timestamp that prevents replays.",
    )


class HmacOptions(ToleranceOptions):
    """Options for any sender that signs a message with the body in it, with a shared secret."""

    header: str = Field("X-Signature", min_length=1, description="The header with the signature.")
    algorithm: Literal["sha1", "sha256", "sha512"] = Field("sha256", description="The hash.")
    encoding: Literal["hex", "base64"] = Field("hex", description="Encoding of the signature.")
    prefix: str = Field("", description="Text before the signature, e.g. 'sha256='.")
    separator: str = Field("", description="Text between several signatures.")
    message: str = Field(
        "{body}", description="What is signed, of {method} {url} {body} {id} {timestamp}."
    )
    key_encoding: Literal["text", "base64"] = Field("text", description="Encoding of the secrets.")
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
    """Options for a key in its own header."""

    header: str = Field("X-API-Key", min_length=1, description="The header with the key.")


class SalesforceOptions(NoOptions):
    """Options for Salesforce, which does not sign; organisations are allowed by id."""

    organization_ids: tuple[str, ...] = Field(
        (), description="Allowed organisations (15 or 18 characters), besides those in secrets."
    )


class SnsOptions(NoOptions):
    """Options for SNS: Amazon signs for everybody, so topics are allowed by name."""

    topic_arns: tuple[str, ...] = Field(
        (), description="Allowed topics, arn:aws:sns:…, besides those in secrets."
    )
    fetch_certificate: Callable[[str], bytes] | None = Field(
        None, description="Fetches the PEM file at a URL, for tests; by default from Amazon."
    )
