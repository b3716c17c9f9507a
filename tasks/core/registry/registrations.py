"""Declares the registrations at third parties that send events to an integration's endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.core.connectors.http.pagination import LinkHeader, Pagination
from tasks.core.registry.strict import Declaration


class RegistrationSecret(Declaration):
    """The secret that the third party signs with, stored in the state database."""

    name: str = Field(description="As the endpoint names it under `stored`.")
    made_by: Literal["them", "us"] = Field(
        "them", description="Whether the third party makes and returns it, or we make and send it."
    )


class Registration(Declaration):
    """The fields that all kinds of registrations share."""

    endpoint: str = Field(description="The endpoint of this integration to call.")
    connection: str = Field(
        description="The block for the third party's API; ${NAME} comes from the environment."
    )


class RestRegistration(Registration):
    """A webhook created by `POST path` and changed and removed at `path/id`, as in most APIs.

    The defaults are those of your own application.
    """

    kind: Literal["rest"] = Field(description="For REST APIs with webhooks.")
    path: str = Field(
        description="The collection, relative to the block's base URL; ${NAME} is taken from the "
        "environment."
    )
    events: list[str] = Field([], description="The event types to request.")
    secret: RegistrationSecret | None = Field(None, description="The secret they sign with.")
    body: dict[str, Any] = Field({}, description="Extra fields, the same for every registration.")
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
        description="A free text field for our marker; null for none.",
    )
    update_method: Literal["PATCH", "PUT", "POST"] = Field("PATCH", description="At `path/id`.")
    ping: str | None = Field(
        "ping", description="POST `path/id/…` sends a test event; null if there is none."
    )
    ping_result_field: str | None = Field(
        "status",
        description="Where the response to that, or a later GET `path/id`, holds the status of "
        "our response to the test event, e.g. last_response.code; null if nowhere.",
    )


class SalesforceRegistration(Registration):
    """An outbound message and the workflow rule that sends it."""

    kind: Literal["salesforce"] = Field(description="For Salesforce's Tooling API.")
    object: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="The object type, e.g. Opportunity."
    )
    when: Literal["created", "updated", "created-or-updated"] = Field(
        description="Which changes are sent."
    )
    fields: list[str] = Field(
        ["Id"], description="Fields to send; Id alone for thin messages that flows complete."
    )
    user: str = Field(
        description="User with whose permissions the message is built; ${NAME} comes from "
        "the environment."
    )

    @property
    def events(self) -> list[str]:
        """What is sent, for people."""
        return [f"{self.object} {self.when}"]


AnyRegistration = Annotated[RestRegistration | SalesforceRegistration, Field(discriminator="kind")]
