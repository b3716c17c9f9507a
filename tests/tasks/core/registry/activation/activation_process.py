"""Activates when told to, each time in a process of its own that may be killed at any step.

Reads one JSON line a command: {"places", "database", "key", "declaration", "public_url",
"kill_at"}. The places are connection to {"base_url", "headers", "token_url"?}; kill_at counts
steps from 1, and a step is what outlives the process: a commit, or a request that changes
something. Writes one JSON line each: what became of the registrations, or {"killed": true}.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

sys.path.append(str(Path(__file__).parents[4]))
from killed import KillSwitch

from blocks.errors import IntegrationError
from tasks.core.connectors.http.auth import OAuth2
from tasks.core.connectors.http.client import ApiClient
from tasks.core.connectors.http.errors import Where
from tasks.core.connectors.http.retrying import RetryPolicy
from tasks.core.registry.activation.activating import Registered, Registering, failed_registration
from tasks.core.registry.activation.desired import desired_registrations
from tasks.core.registry.activation.ledger import ActivationLedger
from tasks.core.registry.activation.registrar import Registrar
from tasks.core.registry.activation.rest_registrar import RestRegistrar
from tasks.core.registry.activation.salesforce_registrar import SalesforceRegistrar
from tasks.core.registry.declarations import IntegrationDeclaration
from tasks.core.registry.registrations import AnyRegistration, RestRegistration
from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database

PLACES: dict[str, dict[str, Any]] = {}


def watch(switch: KillSwitch, engine: Engine) -> None:
    switch.after_statements(engine, lambda statement: statement == "COMMIT")
    exchange: Callable[..., Any] = ApiClient._exchange

    def watched(client: ApiClient, request: httpx.Request, where: Where) -> Any:
        answer = exchange(client, request, where)
        if request.method != "GET" and "token" not in request.url.path:
            switch.step()
        return answer

    ApiClient._exchange = watched  # type: ignore[method-assign]


@contextmanager
def open_registrar(registration: AnyRegistration) -> Iterator[Registrar]:
    place = PLACES[registration.connection]
    oauth = place.get("token_url") and OAuth2(
        place["token_url"], client_id="c", client_secret="sandbox", client_auth="form"
    )
    base_url = place["base_url"]
    with httpx.Client(
        base_url=base_url, headers=place["headers"], timeout=10, verify=False
    ) as http:  # reading the authorities would take most of the time
        api = ApiClient(http, system=base_url, oauth=oauth, retries=RetryPolicy(max_attempts=1))
        if isinstance(registration, RestRegistration):
            yield RestRegistrar(api, registration, base_url=base_url, sleep=lambda _s: None)
        else:
            yield SalesforceRegistrar(api, registration, base_url=base_url)


def activate(engine: Engine, command: dict[str, Any]) -> list[Registered]:
    declared = IntegrationDeclaration.model_validate(command["declaration"])
    desired = desired_registrations(declared, command["public_url"], {})
    ledger = ActivationLedger(engine, run_id=command.get("run_id") or str(uuid.uuid4()))
    secrets = StoredSecrets(engine, [command["key"]])
    registering = Registering(ledger, secrets, open_registrar)
    ledger.begin(declared.integration, is_active=bool(desired))
    done = []
    for each in desired:
        try:
            done.append(registering.ensure(each))
        except IntegrationError as error:
            done.append(failed_registration(each, error.system, error))
    for entry in registering.obsolete(declared.integration, desired):
        try:
            done.append(registering.remove(entry))
        except IntegrationError as error:
            done.append(failed_registration(entry.desired, entry.place, error))
    ledger.end(declared.integration)
    return done


def in_a_process(command: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        PLACES.update(command["places"])
        engine = open_database(command["database"])
        watch(KillSwitch(command.get("kill_at", 0)), engine)
        try:
            answer: Any = {"done": [asdict(each) for each in activate(engine, command)]}
        except IntegrationError as error:
            answer = {"error": str(error)}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return {"killed": True}
    answer = json.loads(told)
    assert isinstance(answer, dict)
    return answer


for line in sys.stdin:
    print(json.dumps(in_a_process(json.loads(line))), flush=True)
