"""Reads and checks the declarations of integrations: YAML files beside their flows.

    integration: github_events
    pattern: event-driven, one flow that branches by event type
    summary: pushes, issues and pull requests become activities in the application
    guide: docs/inbox.md
    blocks: [http-api/github, http-api/own-app]
    endpoints:
      github:
        path: /webhooks/github
        scheme: github
        secrets: {stored: github-webhook, env: [GITHUB_WEBHOOK_SECRET]}
    registrations:
      repository:
        kind: rest
        endpoint: github
        connection: http-api/github
        path: repos/example-shop/storefront/hooks
        secret: {name: github-webhook, made_by: us}

The gateway serves the endpoints; activation creates the registrations at the third parties. Flows
and deployments follow from the entrypoints in `prefect.yaml`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from blocks.errors import MisconfiguredError
from tasks.core.former_names import ENDPOINT_FIELDS, in_present_names
from tasks.core.intake.webhooks.verifier import SCHEMES
from tasks.core.registry.flow_folders import flow_folders
from tasks.core.registry.registrations import AnyRegistration
from tasks.core.registry.request_reply import RequestReplyDeclaration
from tasks.core.registry.strict import Declaration

ENDPOINTS_VARIABLE = "INTEGRATIONS_ENDPOINTS"
RESERVED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
REQUESTS_PATH = "/requests/"  # prefix of the URLs where callers find their results
_PATTERNS = ("*/integration.yaml", "*.integration.yaml", "integration.yaml")
_LARGEST_BODY_BYTES = 25 * 1024 * 1024  # the most that GitHub sends and the inbox accepts
_DERIVED = frozenset({"flows", "deployments"})
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_PATH = re.compile(r"(/([A-Za-z0-9._~-]|\$\{[A-Z0-9_]+\})+)+/?", re.ASCII)

Places = Annotated[list[str], BeforeValidator(lambda one: [one] if isinstance(one, str) else one)]


class SecretSources(Declaration):
    """Where secrets are; several are accepted at once, so that they can be rotated."""

    env: Places = Field([], description="Names of environment variables; unset ones are skipped.")
    stored: Places = Field(
        [], description="Names of secrets that activation stored in the state database."
    )
    files: Places = Field([], description="Files with a secret per line; missing ones are skipped.")


class EndpointDeclaration(Declaration):
    """A URL that a sender calls."""

    path: str = Field(description="E.g. /webhooks/github; ${NAME} comes from the environment.")
    scheme: str = Field(description="How to authenticate the sender, e.g. github; or none.")
    secrets: SecretSources = Field(SecretSources(), description="Where the secrets are.")
    options: dict[str, Any] = Field({}, description="The scheme's options.")
    feeds: str = Field(
        "",
        description="The deployment that handles the deliveries; for request-reply endpoints the "
        "gateway starts its runs directly, which is faster than by an event.",
    )
    queue: str | None = Field(
        None,
        pattern=f"^{_NAME.pattern}$",
        description="Name under which deliveries wait, if an integration's endpoints feed several "
        "flows; by default the integration's name.",
    )
    methods: list[Literal["GET", "POST", "PUT"]] | None = Field(
        None, min_length=1, description="By default as the scheme's senders use."
    )
    event_type: Places | None = Field(None, description="Where the event's type is.")
    dedup: Places | None = Field(None, description="Where an id is that repeats share.")
    ordering_key: Places | None = Field(None, description="Where the key to order by is.")
    is_batch: bool | None = Field(None, description="The body is a JSON array of events.")
    events: list[str] | None = Field(None, description="Event types to accept; others are ignored.")
    max_body_bytes: int = Field(
        1024 * 1024, gt=0, le=_LARGEST_BODY_BYTES, description="Larger requests get a 413."
    )
    allowed_ips: list[IPv4Network | IPv6Network] = Field(
        [], description="Addresses or CIDR ranges that may call; empty for all."
    )
    response: Literal["provider", "ok", "accepted", "no-content", "receipt"] = Field(
        "provider",
        description="As the sender requires (else 202), 200, 202, 204, or 202 with delivery ids.",
    )
    public_url: str | None = Field(
        None, pattern=r"^https?://[^/?#]+[^?#]*$", description="For this endpoint, if different."
    )
    request_reply: RequestReplyDeclaration | None = Field(
        None, description="Callers wait for the flow's reply; {} for the default limits."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_former_names(cls, values: Any) -> Any:
        return in_present_names(values, ENDPOINT_FIELDS)

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, path: str) -> str:
        is_reserved = path in RESERVED_PATHS or path.startswith(REQUESTS_PATH)
        if not _PATH.fullmatch(path) or is_reserved:
            raise ValueError(
                "must begin with / and hold letters, digits, . _ ~ - and ${NAME}, and be none of "
                + ", ".join((*sorted(RESERVED_PATHS), REQUESTS_PATH))
            )
        return path

    @field_validator("scheme")
    @classmethod
    def _is_a_scheme(cls, scheme: str) -> str:
        if scheme not in SCHEMES:
            raise ValueError(f"must be one of {', '.join(SCHEMES)}")
        return scheme

    @model_validator(mode="after")
    def _one_request_has_one_answer(self) -> Self:
        if self.request_reply is not None and (self.is_batch or self.events is not None):
            raise ValueError("every request gets its own reply: leave out is_batch and events")
        return self


class IntegrationDeclaration(Declaration):
    """One file, which declares one integration."""

    integration: str = Field(
        description="Its name: that of its package, its inbox and, with dashes, its tag in Prefect."
    )
    pattern: str = Field("", description="The pattern it follows, for people.")
    summary: str = Field("", description="What it does, for people.")
    guide: str = Field("", description="The page that explains it, for people.")
    always_deployed: bool = Field(
        False, description="It operates the others, so it is always deployed."
    )
    blocks: list[str] = Field([], description="Connections it uses, as type/name.")
    endpoints: dict[str, EndpointDeclaration] = Field({}, description="By name.")
    registrations: dict[str, AnyRegistration] = Field(
        {}, description="What activation registers at third parties, by name."
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_derived(cls, values: Any) -> Any:
        # files of former versions list them; they follow from prefect.yaml
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key not in _DERIVED}

    @field_validator("integration")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("must be of small letters, digits, . _ - and at most 63 long")
        return name

    @field_validator("endpoints", "registrations")
    @classmethod
    def _have_names(cls, found: dict[str, Any]) -> dict[str, Any]:
        for name in found:
            cls._is_a_name(name)
        return found

    @model_validator(mode="after")
    def _registrations_lead_to_endpoints(self) -> Self:
        for name, registration in self.registrations.items():
            if registration.endpoint not in self.endpoints:
                raise ValueError(
                    f"registrations.{name}: {registration.endpoint!r} is none of the endpoints"
                )
        return self


def declaration_files(places: str | None = None) -> list[Path]:
    """Return the files to read.

    Args:
        places: Files and folders separated like PATH; None for `INTEGRATIONS_ENDPOINTS`. If that
            is empty too, the flows' own: `flows/<integration>/integration.yaml` and
            `flows/<integration>.integration.yaml` in each of `flow_folders()`.

    Raises:
        MisconfiguredError: A place does not exist.
    """
    configured = places if places is not None else os.environ.get(ENDPOINTS_VARIABLE)
    roots = [Path(part) for part in configured.split(os.pathsep)] if configured else flow_folders()
    return [file for root in roots for file in _files_of(root)]


def read_declarations(files: Sequence[Path]) -> list[IntegrationDeclaration]:
    """Read and check the files, together.

    Raises:
        MisconfiguredError: Lists everything that is wrong, file by file, and how to fix it.
    """
    found: list[IntegrationDeclaration] = []
    problems: list[str] = []
    for file in files:
        try:
            found.append(IntegrationDeclaration.model_validate(yaml.safe_load(file.read_bytes())))
        except ValidationError as exc:
            problems += [f"{file}: {problem}" for problem in _problems(exc)]
        except (OSError, yaml.YAMLError) as exc:
            problems.append(f"{file}: {exc}")
    problems += _clashes(found)
    if problems:
        raise _misconfigured("\n  ".join(["the declared integrations cannot be used:", *problems]))
    return found


def _files_of(root: Path) -> Iterable[Path]:
    if root.is_dir():
        return sorted(file for pattern in _PATTERNS for file in root.glob(pattern))
    if root.is_file():
        return [root]
    raise _misconfigured(f"{root} does not exist; fix {ENDPOINTS_VARIABLE}")


def _problems(exc: ValidationError) -> Iterator[str]:
    for error in exc.errors(include_url=False, include_input=False):
        where = ".".join(map(str, error["loc"])) or "the file"
        yield f"{where}: {error['msg']}"


def _clashes(declared: Sequence[IntegrationDeclaration]) -> Iterator[str]:
    names: dict[str, str] = {}
    paths: dict[str, str] = {}
    for each in declared:
        for name, endpoint in each.endpoints.items():
            for taken, key in ((names, name), (paths, endpoint.path)):
                if key in taken:
                    yield f"{key}: declared by {taken[key]} and by {each.integration}; rename one"
                taken[key] = each.integration


def _misconfigured(message: str) -> MisconfiguredError:
    return MisconfiguredError(message, system="gateway", operation="read endpoints")
