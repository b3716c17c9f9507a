"""Declared endpoints made ready to serve: secrets fetched, verifiers built, answers prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from blocks.errors import MisconfiguredError
from deployments.services.gateway.declared_paths import is_instance
from tasks.core.intake.webhooks.sns import FetchCertificate
from tasks.core.intake.webhooks.verifier import Verifier
from tasks.core.registry.declarations import (
    EndpointDeclaration,
    IntegrationDeclaration,
    SecretSources,
)
from tasks.core.registry.request_reply import RequestReplyDeclaration
from tasks.core.registry.variables import fill_in

ReadStored = Callable[[Sequence[str]], list[str]]
"""The accepted values of stored secrets, by their names."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL as it is served.

    Attributes:
        name: Stored with each delivery; stands in the log and the metrics.
        integration: Whose inbox the deliveries wait in.
        path: Where it is; may hold a secret, so it is never logged.
        declared_path: As `path`, with variables in place of secrets.
        methods: What is answered at all.
        verifier: Says who calls and what the call says.
        events: The event types to take; None for all.
        max_body_bytes: Larger requests are refused.
        allowed_ips: Who may call; empty for all.
        response: As declared.
        public_url: Where the sender sees this endpoint; None for the gateway's own.
        has_stored_secrets: Activation may change its secrets while it is served.
        feeds: The deployment that handles the deliveries; may be empty.
        request_reply: How callers wait for the flow's answer; None if they do not.
        knows_repetitions: It was declared where an id stands that repetitions share.
    """

    name: str
    integration: str
    path: str
    declared_path: str
    methods: frozenset[str]
    verifier: Verifier
    events: frozenset[str] | None
    max_body_bytes: int
    allowed_ips: tuple[IPv4Network | IPv6Network, ...]
    response: str
    public_url: str | None
    has_stored_secrets: bool = False
    feeds: str = ""
    request_reply: RequestReplyDeclaration | None = None
    knows_repetitions: bool = False


@dataclass(frozen=True, slots=True)
class UnusableEndpoint:
    """An endpoint that lacks something only its operator can give; it answers 503.

    Attributes:
        name: As declared.
        path: Where it would be; None if that is not known.
        declared_path: As `path`, with variables in place of secrets.
        reason: What to do.
        has_stored_secrets: Activation may give what it lacks.
    """

    name: str
    path: str | None
    declared_path: str
    reason: str
    has_stored_secrets: bool = False

    def may_be_at(self, path: str) -> bool:
        """Whether requests to the path are meant for it, as far as is known."""
        if self.path is None:
            return is_instance(path, self.declared_path)
        return path == self.path


def make_endpoints(
    declared: Sequence[IntegrationDeclaration],
    environment: Mapping[str, str],
    *,
    stored: ReadStored | None = None,
    fetch_certificate: FetchCertificate | None = None,
) -> list[Endpoint | UnusableEndpoint]:
    """Make every declared endpoint ready.

    One whose secret is not set is unusable and does not keep the others from being served.

    Args:
        declared: From `read_declarations`.
        environment: Where the named variables are looked up.
        stored: Reads stored secrets; without it there are none.
        fetch_certificate: In place of Amazon's hosts, for tests.

    Raises:
        MisconfiguredError: Two endpoints have the same path once variables are filled in.
    """
    made = [
        _endpoint(each.integration, name, declaration, environment, stored, fetch_certificate)
        for each in declared
        for name, declaration in each.endpoints.items()
    ]
    by_path: dict[str, str] = {}
    for endpoint in made:
        if endpoint.path is not None and endpoint.path in by_path:
            raise _misconfigured(
                f"{by_path[endpoint.path]} and {endpoint.name} have the same path; change one"
            )
        if endpoint.path is not None:
            by_path[endpoint.path] = endpoint.name
    return made


def _endpoint(
    integration: str,
    name: str,
    declared: EndpointDeclaration,
    environment: Mapping[str, str],
    stored: ReadStored | None,
    fetch_certificate: FetchCertificate | None,
) -> Endpoint | UnusableEndpoint:
    path = None
    options = dict(declared.options)
    if fetch_certificate is not None and declared.scheme == "sns":
        options["fetch_certificate"] = fetch_certificate
    places = ("event_type", "dedup", "ordering_key", "is_batch")
    try:
        path = fill_in(declared.path, environment, operation="make endpoints")
        verifier = Verifier(
            declared.scheme,
            secrets=read_secrets(declared.secrets, environment, stored),
            options=options,
            reading={
                field: value for field in places if (value := getattr(declared, field)) is not None
            },
        )
    except MisconfiguredError as exc:
        return UnusableEndpoint(
            name, path, declared.path, exc.message, bool(declared.secrets.stored)
        )
    return Endpoint(
        name=name,
        integration=declared.queue or integration,
        path=path,
        declared_path=declared.path,
        methods=frozenset(declared.methods or verifier.scheme.methods),
        verifier=verifier,
        events=None if declared.events is None else frozenset(declared.events),
        max_body_bytes=declared.max_body_bytes,
        allowed_ips=tuple(declared.allowed_ips),
        response=declared.response,
        public_url=declared.public_url,
        has_stored_secrets=bool(declared.secrets.stored),
        feeds=declared.feeds,
        request_reply=declared.request_reply,
        knows_repetitions=declared.dedup is not None,
    )


def read_secrets(
    sources: SecretSources, environment: Mapping[str, str], stored: ReadStored | None
) -> list[str]:
    """The secrets that senders may use now; empty if none are declared.

    Raises:
        MisconfiguredError: None of the sources has one; the message says what to do.
    """
    secrets = stored(sources.stored) if stored is not None and sources.stored else []
    secrets += [value for name in sources.env if (value := environment.get(name))]
    for file in sources.files:
        try:
            lines = Path(file).read_text().splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as exc:
            raise _misconfigured(
                f"the secret in {file} cannot be read ({exc})", "read secrets"
            ) from exc
        secrets += [line.strip() for line in lines if line.strip()]
    if not secrets and (sources.env or sources.files or sources.stored):
        given = " or ".join(sources.env + sources.files)
        ways = [f"set {given}"] if given else []
        ways += ["activate the integration"] if sources.stored else []
        raise _misconfigured(f"there is no secret; {' or '.join(ways)}", "read secrets")
    return secrets


def _misconfigured(message: str, operation: str = "make endpoints") -> MisconfiguredError:
    return MisconfiguredError(message, system="gateway", operation=operation)
