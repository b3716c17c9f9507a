"""Declares endpoints whose callers wait for a flow's reply."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Self

from pydantic import Field, field_validator, model_validator

from blocks.errors import BadPayloadError
from tasks.core.intake.request_reply.callback_address import check_url
from tasks.core.registry.strict import Declaration

_DAY_S = 86_400


class CallbackDeclaration(Declaration):
    """Where to send results whose callers have hung up."""

    url: str | None = Field(None, description="One address for all results.")
    header: str | None = Field(None, description="The request header that names an address.")
    field: str | None = Field(
        None, description="The field of the JSON body that names one, as dotted path."
    )
    signed_by: str = Field(
        pattern=r"^callback-signature/[a-z0-9-]+$",
        description="The block with the secret that signs, e.g. callback-signature/quotes.",
    )
    allowed_networks: list[IPv4Network | IPv6Network] = Field(
        [],
        description="Private networks, as CIDR, that addresses may point to; only there TLS is "
        "optional.",
    )

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if not (self.url or self.header or self.field):
            raise ValueError("give url, header or field: where is the result to go?")
        if self.url is not None:
            try:
                check_url(self.url)
            except BadPayloadError as exc:
                raise ValueError(exc.message) from exc
        return self

    @field_validator("header")
    @classmethod
    def _in_lower_case(cls, name: str | None) -> str | None:
        return None if name is None else name.lower()


class RequestReplyDeclaration(Declaration):
    """How long callers wait for the flow's reply, how many may wait, and what happens then."""

    deadline_s: float = Field(
        10.0,
        gt=0,
        le=300,
        description="Seconds until a caller gets a URL for the result instead.",
    )
    max_waiting: int = Field(
        200, ge=1, description="Most callers that wait at once in one gateway; more get a 503."
    )
    max_waiting_per_caller: int = Field(
        20,
        ge=1,
        description="Most of them with the same credential, or from one address.",
    )
    keep_results_s: int = Field(
        _DAY_S, ge=60, le=30 * _DAY_S, description="Seconds during which results can be fetched."
    )
    cancel_when_caller_leaves: bool = Field(
        False, description="Stop handling a request whose caller hangs up before the deadline."
    )
    callback: CallbackDeclaration | None = Field(
        None, description="Where to send results whose callers have hung up."
    )
