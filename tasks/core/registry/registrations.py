"""What an integration wants registered at a third party so that events come to its endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.core.connectors.http.pagination import LinkHeader, Pagination
from tasks.core.registry.strict import Declaration


class RegistrationSecret(Declaration):
    """The secret that the third party signs with, kept in the state database."""

    name: str = Field(description="As the endpoint names it under `stored`.")
    made_by: Literal["them", "us"] = Field(
        "them", description="Whether the third party returns it or we make it and send it along."
    )


class Registration(Declaration):
    """What all kinds of registrations have in common."""

    endpoint: str = Field(description="The endpoint of this integration that shall be called.")
    connection: str = Field(
        description="The block that leads to the third party; ${NAME} is taken from the "
        "environment."
    )


class RestRegistration(Registration):
    """A webhook made by `POST path` and changed and removed at `path/id`, as most APIs have it.

    The defaults are those of the own application.
    """

    kind: Literal["rest"] = Field(description="By a REST API for webhooks.")
    path: str = Field(
        description="The collection, relative to the block's base URL; ${NAME} is taken from the "
        "environment."
    )
    events: list[str] = Field([], description="The event types to ask for.")
    secret: RegistrationSecret | None = Field(None, description="What they shall sign with.")
    body: dict[str, Any] = Field({}, description="More fields, the same for every registration.")
    pagination: Pagination = Field(
        LinkHeader(records_path="webhooks"),
        description="How GET `path` lists them, e.g. {kind: link_header, records_path: hooks}.",
    )
    id_field: str = Field("id", description="Where a registration's id is, by dotted path.")
    url_field: str = Field("url", description="Where the URL to call is, e.g. config.url.")
    events_field: str | None = Field("events", description="Where the event types are.")
    secret_field: str = Field("secret", description="Where the secret is.")
    marker_field: str | None = Field(
        "description",
        description="A text field of free choice, in which we say whose it is; null for none.",
    )
    update_method: Literal["PATCH", "PUT", "POST"] = Field("PATCH", description="At `path/id`.")
    ping: str | None = Field(
        "ping", description="POST `path/id/…` lets it send a test event; null if it cannot."
    )
    ping_result_field: str | None = Field(
        "status",
        description="Where the answer to that, or GET `path/id` some time later, tells the status "
        "of our answer to the test event, e.g. last_response.code; null if nowhere.",
    )


class SalesforceRegistration(Registration):
    """An outbound message and the workflow rule that sends it."""

    kind: Literal["salesforce"] = Field(description="By Salesforce's Tooling API.")
    object: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="The object type, e.g. Opportunity."
    )
    when: Literal["created", "updated", "created-or-updated"] = Field(
        description="Which changes are told."
    )
    fields: list[str] = Field(
        ["Id"], description="What is sent; Id alone for thin messages, completed by fetching."
    )
    user: str = Field(
        description="User name under whose permissions the message is made; ${NAME} is taken from "
        "the environment."
    )

    @property
    def events(self) -> list[str]:
        """What is told, for people."""
        return [f"{self.object} {self.when}"]


AnyRegistration = Annotated[RestRegistration | SalesforceRegistration, Field(discriminator="kind")]
