"""Send a sample event to the gateway, signed as its sender would sign it.

The samples are the files flows/<integration>/samples/<event>.json; those of an integration with
several endpoints are in samples/<endpoint>/. Each sending is a new event: its commit hashes and
instants are fresh, unless it is told to send the sample as it stands.

Without an address it goes to the demo if one runs here, else to GATEWAY_URL, else to a gateway on
its usual port. The secret is the gateway's own, from the environment or the state database.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import re
import secrets
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import httpx

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.running_demo import use_running_demo
from deployments.services.gateway.endpoints import ReadStored, read_secrets
from deployments.state_commands import tell_default_database
from sandbox.systems import standard_webhooks
from tasks.core.registry.declarations import (
    EndpointDeclaration,
    declaration_files,
    read_declarations,
)
from tasks.core.registry.flow_folders import flow_folders
from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.registry.variables import fill_in
from tasks.core.state.database import URL_VARIABLE, open_database

_HASH = re.compile(r"\b[0-9a-f]{40}\b")
_GATEWAY_VARIABLE = "GATEWAY_URL"
_GATEWAY = "http://127.0.0.1:8080"
_TIMEOUT_S = 60  # endpoints whose callers wait take their time
_INSTANT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample event.

    Attributes:
        integration: Whose.
        event: Its name, which is its file's.
        body: As it would be sent.
        endpoint: The name of the endpoint that takes it; None where there is only one.
    """

    integration: str
    event: str
    body: bytes
    endpoint: str | None = None


def samples() -> dict[str, Path]:
    """Event name to the file of its sample."""
    return {
        path.stem: path
        for folder in flow_folders()
        for path in sorted(folder.glob("*/samples/**/*.json"))
    }


def read_sample(event: str, *, as_it_stands: bool = False) -> Sample:
    """One sample, with fresh hashes and instants.

    Raises:
        MisconfiguredError: There is no sample of that name.
    """
    path = samples().get(event)
    if path is None:
        raise _misconfigured(f"there is no sample {event!r}; there are {', '.join(samples())}")
    text = path.read_text()
    if not as_it_stands:
        fresh = {known: secrets.token_hex(20) for known in _HASH.findall(text)}
        text = _HASH.sub(lambda found: fresh[found[0]], text)
        text = _INSTANT.sub(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", text)
    folder = next(filter(path.is_relative_to, flow_folders()))
    integration, _, *endpoint = path.parent.relative_to(folder).parts
    return Sample(integration, event, text.encode(), *endpoint)


def signed_headers(
    endpoint: EndpointDeclaration, sample: Sample, secret: str, *, now: datetime
) -> dict[str, str]:
    """The headers with which the endpoint's sender would send the sample.

    Raises:
        MisconfiguredError: Samples cannot be signed for the endpoint's scheme.

    Source: docs.github.com/en/webhooks, standardwebhooks.com.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "send-sample"}
    match endpoint.scheme:
        case "github":
            signature = hmac.new(secret.encode(), sample.body, hashlib.sha256).hexdigest()
            return headers | {
                "X-GitHub-Event": sample.event,
                "X-GitHub-Delivery": str(uuid.uuid4()),
                "X-Hub-Signature-256": f"sha256={signature}",
            }
        case "standard-webhooks":
            message_id = f"msg_{uuid.uuid4().hex}"
            return headers | standard_webhooks.signed_headers(
                secret, message_id, sample.body, now=now
            )
        case "api-key":
            return headers | {endpoint.options.get("header", "X-API-Key"): secret}
        case "none":
            return headers
        case other:
            raise _misconfigured(f"samples cannot be signed for the scheme {other!r}")


def endpoint_of(integration: str, name: str | None = None) -> EndpointDeclaration:
    """The endpoint that an integration declares by this name, or its only one.

    Raises:
        MisconfiguredError: It declares none, or several and the name is none of them.
    """
    endpoints = {
        name: endpoint
        for declared in read_declarations(declaration_files())
        if declared.integration == integration
        for name, endpoint in declared.endpoints.items()
    }
    if not endpoints:
        raise _misconfigured(f"{integration} declares no endpoint")
    if name is None and len(endpoints) == 1:
        return next(iter(endpoints.values()))
    if name not in endpoints:
        raise _misconfigured(
            f"{integration} has the endpoints {', '.join(endpoints)}: put the sample into "
            "samples/<endpoint>/"
        )
    return endpoints[name]


def address_and_headers(
    gateway_url: str,
    sample: Sample,
    *,
    environment: Mapping[str, str] = os.environ,
    stored: ReadStored | None = None,
) -> tuple[str, dict[str, str]]:
    """Where a sample goes, and the headers with which its sender would send it there.

    Args:
        gateway_url: E.g. "http://127.0.0.1:8080".
        sample: From `read_sample`.
        environment: Holds the endpoint's secret, and what its path names.
        stored: Reads the secret that activation has stored; asked if the environment has none.

    Raises:
        MisconfiguredError: No endpoint, or no secret for it.
    """
    endpoint = endpoint_of(sample.integration, sample.endpoint)
    path = fill_in(endpoint.path, environment, operation="send sample")
    known = [value for name in endpoint.secrets.env if (value := environment.get(name))]
    known = known or read_secrets(endpoint.secrets, environment, stored)
    secret = known[0] if known else ""
    headers = signed_headers(endpoint, sample, secret, now=datetime.now(UTC))
    return gateway_url.rstrip("/") + path, headers


def send_sample(
    gateway_url: str,
    sample: Sample,
    *,
    environment: Mapping[str, str] = os.environ,
    stored: ReadStored | None = None,
) -> httpx.Response:
    """Send a sample to the endpoint that its integration declares for it.

    Arguments and errors are those of `address_and_headers`.
    """
    url, headers = address_and_headers(gateway_url, sample, environment=environment, stored=stored)
    return httpx.post(url, content=sample.body, headers=headers, timeout=_TIMEOUT_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Send one sample; 0 if the gateway took it."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.send_sample")
    parser.add_argument("event", help=f"one of {', '.join(samples())}")
    parser.add_argument("--gateway", help="its address")
    parser.add_argument("--times", type=int, default=1, help="how many events")
    parser.add_argument(
        "--as-it-stands", action="store_true", help="the very same body each time: a duplicate"
    )
    options = parser.parse_args(arguments)
    if options.gateway is None:
        use_running_demo(_GATEWAY_VARIABLE, URL_VARIABLE)
    stored = cache(_stored)
    gateway = options.gateway or os.environ.get(_GATEWAY_VARIABLE) or _GATEWAY
    try:
        for _ in range(options.times):
            sample = read_sample(options.event, as_it_stands=options.as_it_stands)
            response = send_sample(gateway, sample, stored=lambda names: [*stored(*names)])
            print(f"{sample.event}: {response.status_code} {response.text}".rstrip())
            if response.is_error:
                return 1
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1
    except httpx.HTTPError as error:
        print(f"{gateway} does not answer ({type(error).__name__})", file=sys.stderr)
        return 1
    return 0


def _stored(*names: str) -> list[str]:
    tell_default_database()
    engine = open_database()
    try:
        return StoredSecrets.from_environment(engine, os.environ).accepted(names)
    finally:
        engine.dispose()


def _misconfigured(message: str) -> MisconfiguredError:
    return MisconfiguredError(message, system="sample", operation="send")


if __name__ == "__main__":
    sys.exit(main())
