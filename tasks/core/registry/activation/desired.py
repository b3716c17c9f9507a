"""Computes the desired registrations of an integration from its declaration and public URL."""

from __future__ import annotations

from collections.abc import Mapping

from blocks.errors import MisconfiguredError
from tasks.core.registry.activation.registrar import DesiredRegistration
from tasks.core.registry.declarations import (
    EndpointDeclaration,
    IntegrationDeclaration,
    declaration_files,
    read_declarations,
)
from tasks.core.registry.registrations import AnyRegistration
from tasks.core.registry.variables import fill_in

PUBLIC_URL_VARIABLE = "INTEGRATIONS_PUBLIC_URL"
_OPERATION = "read registrations"
_FILLED = {"connection": "/", "path": "/:", "user": "@+"}  # what values may hold there


def declared_integration(name: str) -> IntegrationDeclaration:
    """Return the declaration of one integration.

    Args:
        name: E.g. "github_events"; "github-events" is the same.

    Raises:
        MisconfiguredError: There is none with that name, or a declaration is wrong.
    """
    declared = declared_integrations()
    found = declared.get(name.replace("-", "_"))
    if found is None:
        raise MisconfiguredError(
            f"there is no such integration; there are {', '.join(declared)}",
            system="activation",
            operation="read declaration",
            record=name,
        )
    return found


def declared_integrations() -> dict[str, IntegrationDeclaration]:
    """Return all declarations by the integrations' names.

    Raises:
        MisconfiguredError: A declaration is wrong.
    """
    return {each.integration: each for each in read_declarations(declaration_files())}


def desired_registrations(
    declared: IntegrationDeclaration, public_url: str | None, environment: Mapping[str, str]
) -> list[DesiredRegistration]:
    """Return the desired registrations.

    Args:
        declared: The integration.
        public_url: URL of the gateway for third parties, e.g. "https://hooks.example"; None for
            `INTEGRATIONS_PUBLIC_URL`.
        environment: Where variables are looked up.

    Raises:
        MisconfiguredError: There is no public URL, or a variable is not set.
    """
    if not declared.registrations:
        return []
    base_url = (public_url or environment.get(PUBLIC_URL_VARIABLE, "")).rstrip("/")
    if not base_url.startswith(("https://", "http://")):
        raise MisconfiguredError(
            f"give public_url or set {PUBLIC_URL_VARIABLE} to how third parties reach the "
            "gateway, e.g. https://hooks.example",
            system="activation",
            operation=_OPERATION,
            record=declared.integration,
        )
    return [
        DesiredRegistration(
            integration=declared.integration,
            name=name,
            url=_url(declared.endpoints[registration.endpoint], base_url, environment),
            shown_url=_shown_url(declared.endpoints[registration.endpoint], base_url),
            registration=_filled(registration, environment),
        )
        for name, registration in declared.registrations.items()
    ]


def _url(endpoint: EndpointDeclaration, base_url: str, environment: Mapping[str, str]) -> str:
    path = fill_in(endpoint.path, environment, operation=_OPERATION)
    return endpoint.public_url or base_url + path


def _shown_url(endpoint: EndpointDeclaration, base_url: str) -> str:
    return endpoint.public_url or base_url + endpoint.path


def _filled(registration: AnyRegistration, environment: Mapping[str, str]) -> AnyRegistration:
    return registration.model_copy(
        update={
            name: fill_in(value, environment, more_letters=letters, operation=_OPERATION)
            for name, letters in _FILLED.items()
            if (value := getattr(registration, name, None)) is not None
        }
    )
