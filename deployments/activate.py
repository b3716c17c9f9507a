"""Activates integrations: registers their endpoints at third parties and switches them on.

    python -m deployments.activate [--deactivate] [--public-url URL] NAME … | --all
    python -m deployments.activate --make-key | --reencrypt

Run it with --all after each deploy: it activates every deployed integration that has registrations,
and keeps deactivated ones switched off. Safe to repeat.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from blocks.errors import IntegrationError
from deployments.running_demo import use_running_demo
from deployments.state_commands import tell_default_database
from tasks.core.registry.declarations import declaration_files, read_declarations
from tasks.core.state.database import URL_VARIABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if all went well."""
    options = _parser().parse_args(arguments)
    try:
        if options.make_key:
            return _make_key()
        use_running_demo(URL_VARIABLE, "PREFECT_API_URL")
        tell_default_database()
        if options.reencrypt:
            return _reencrypt()
        declared = read_declarations(declaration_files())
        names = list(options.names)
        if options.all:
            names = [each.integration for each in declared if each.registrations]
        from deployments.prefect_server import require_server  # takes seconds, as Prefect does

        require_server()
        return asyncio.run(_run(names, options))
    except IntegrationError as error:
        print(error, file=sys.stderr)
        return 1


async def _run(names: Sequence[str], options: argparse.Namespace) -> int:
    # Prefect takes seconds to import, and making a key does not need it.
    from prefect import tags

    from flows.integration_activation.flow import activate_integration, deactivate_integration
    from tasks.activation import ACTIVATION_TAG, is_deployed, known_states, switch_deployments

    inactive = {each.integration for each in await known_states() if not each.is_active}
    if options.all:
        for name in sorted(inactive):
            await switch_deployments.fn(name, on=False)  # a task run would belong to no run
            print(f"{name}: stays switched off")
    bad = 0
    for name in names:
        integration = name.replace("-", "_")
        if options.all and integration in inactive:
            continue
        if options.all and not options.deactivate and not await is_deployed(integration):
            print(f"{integration}: is not deployed: nothing is registered")
            continue
        with tags(integration.replace("_", "-"), ACTIVATION_TAG):
            if options.deactivate:
                state = await deactivate_integration(integration, return_state=True)
            else:
                state = await activate_integration(
                    integration, options.public_url, return_state=True
                )
        print(f"{integration}: {state.name}, {state.message}")
        bad += not state.is_completed()
    return min(bad, 1)


def _make_key() -> int:
    from cryptography.fernet import Fernet

    print(Fernet.generate_key().decode())
    return 0


def _reencrypt() -> int:
    from tasks.core.registry.secrets.store import StoredSecrets
    from tasks.core.state.database import open_database

    engine = open_database()
    try:
        count = StoredSecrets.from_environment(engine, os.environ).reencrypt()
    finally:
        engine.dispose()
    print(f"{count} versions of secrets are encrypted with the first key now")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.activate", description="Activate integrations."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[], metavar="NAME", help="integrations")
    which.add_argument("--all", action="store_true", help="all that are deployed and register")
    which.add_argument("--make-key", action="store_true", help="print a new key for secrets")
    which.add_argument("--reencrypt", action="store_true", help="use the first key for all secrets")
    parser.add_argument(
        "--deactivate", action="store_true", help="remove registrations, and switch off"
    )
    parser.add_argument("--public-url", help="how third parties reach the gateway")
    return parser


if __name__ == "__main__":
    sys.exit(main())
