"""Runs the gateway: `python -m deployments.gateway [--host …] [--port …] [--check]`.

With `--metrics-port` health, readiness and metrics are served on a port of their own, by default
of this machine only, and no longer beside the endpoints.

Environment:
    INTEGRATIONS_ENDPOINTS        files and folders with endpoint declarations; else flows/
    INTEGRATIONS_DATABASE_URL     where the inbox is; else a SQLite file in the user's home
    INTEGRATIONS_SECRETS_KEY      decrypts the secrets that activation has stored
    INTEGRATIONS_PUBLIC_URL       how senders reach the gateway, e.g. https://hooks.example
    INTEGRATIONS_TRUSTED_PROXIES  whose X-Forwarded-* headers are believed, CIDR, by comma
    INTEGRATIONS_CALLBACK_NETWORKS  private networks that results may go to, CIDR, by comma
    PREFECT_API_URL               which server is notified
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from types import FrameType

import uvicorn
from sqlalchemy import Engine
from starlette.types import ASGIApp, Receive, Scope, Send

from blocks.errors import IntegrationError, MisconfiguredError
from deployments.services.gateway import responses
from deployments.services.gateway.access_log import AccessLog
from deployments.services.gateway.app import Gateway
from deployments.services.gateway.bounded_http import BoundedHttp
from deployments.services.gateway.endpoints import Endpoint, UnusableEndpoint
from deployments.services.gateway.forwarding import Forwarding
from deployments.services.gateway.request_reply import RequestReply
from deployments.services.gateway.run_starting import PrefectRuns, replying_deployments
from deployments.services.gateway.secret_renewal import StoredSecretsWatch
from deployments.state_commands import tell_default_database
from tasks.core.intake.inbox.consumer_registry import ConsumerRegistry
from tasks.core.intake.inbox.writer import InboxWriter
from tasks.core.registry.declarations import (
    IntegrationDeclaration,
    declaration_files,
    read_declarations,
)
from tasks.core.registry.secrets.store import StoredSecrets
from tasks.core.state.database import open_database

_PUBLIC_URL = "INTEGRATIONS_PUBLIC_URL"
_TRUSTED_PROXIES = "INTEGRATIONS_TRUSTED_PROXIES"
_CALLBACK_NETWORKS = "INTEGRATIONS_CALLBACK_NETWORKS"
_BACKLOG = 2048
_KEEP_ALIVE_S = 75  # longer than usual load balancers keep a connection that they may reuse
_SHUTDOWN_S = 20  # for requests; what follows takes 8 s at most
_STOPS_WITHIN_S = 30
_GC_THRESHOLD = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then finish what was accepted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        declared = read_declarations(declaration_files())
        tell_default_database()
        engine = open_database()
        secrets = StoredSecrets.from_environment(engine, os.environ)
        watch = StoredSecretsWatch(declared, os.environ, secrets)
        endpoints = watch.changed() or []
        _show(endpoints)
        if options.check:
            return int(any(isinstance(each, UnusableEndpoint) for each in endpoints))
        return _serve(options, declared, endpoints, engine, watch, os.environ)
    except IntegrationError as exc:
        print(exc, file=sys.stderr)
        return 1


def _serve(
    options: argparse.Namespace,
    declared: Sequence[IntegrationDeclaration],
    endpoints: Sequence[Endpoint | UnusableEndpoint],
    engine: Engine,
    watch: StoredSecretsWatch,
    environment: Mapping[str, str],
) -> int:
    request_reply = RequestReply(engine, callback_networks=_callback_networks(environment))
    forwarding = _forwarding(environment)
    listeners = [_listen(options.host, options.port)]
    operation_port = None
    if options.metrics_port is not None:
        listeners.append(_listen(options.metrics_host, options.metrics_port))
        operation_port = listeners[1].getsockname()[1]
    gateway = Gateway(
        endpoints,
        writer=InboxWriter(engine, in_own_process=True),
        post_event=PrefectRuns(environment, replying_deployments(declared)).post,
        count_runs=ConsumerRegistry(engine).at_work,
        forwarding=forwarding,
        access_log=AccessLog(sys.stdout.buffer),
        changed_endpoints=watch.changed,
        request_reply=request_reply,
        operation_port=operation_port,
    )
    server = _AnnouncedServer(
        uvicorn.Config(
            _with_cut_off_answered(gateway),
            loop="uvloop" if sys.platform != "win32" else "asyncio",
            http=BoundedHttp,
            ws="none",
            lifespan="on",
            backlog=_BACKLOG,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        ),
        at_stop=request_reply.stop_waiting,
    )
    # uvicorn ends the process by the signal that stopped it, which Python would turn into an
    # exception for SIGINT: then threads are waited for that may wait for a silent database.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server.run(sockets=listeners)
    return 0 if server.started else 1


def _with_cut_off_answered(app: ASGIApp) -> ASGIApp:
    """Answer 503 where the server cancels a request that its stop has waited for long enough."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            await responses.not_stored().send(send)

    return serve


class _AnnouncedServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, at_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._at_stop = at_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded by now stays; looking through it for garbage again and again would
        # take a tenth of the time. Requests leave next to no cycles behind.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        told = ("gateway listens on", "gateway tells its health and metrics on")
        for words, listener in reversed(list(zip(told, sockets or [], strict=False))):
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"{words} http://{shown}:{port}", file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called with the signal to stop; the kernel sees to it that the process does."""
        if not self.should_exit:
            faulthandler.dump_traceback_later(_STOPS_WITHIN_S - 1)
            signal.alarm(_STOPS_WITHIN_S)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._at_stop()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise _misconfigured(f"cannot listen on {host} port {port} ({exc.strerror})") from exc
    return listener


def _forwarding(environment: Mapping[str, str]) -> Forwarding:
    proxies = [part.strip() for part in environment.get(_TRUSTED_PROXIES, "").split(",")]
    try:
        networks = [ip_network(part) for part in proxies if part]
    except ValueError as exc:
        raise _misconfigured(f"{_TRUSTED_PROXIES} lists no addresses or ranges: {exc}") from exc
    public_url = environment.get(_PUBLIC_URL)
    if public_url and not public_url.startswith(("http://", "https://")):
        raise _misconfigured(f"{_PUBLIC_URL} must begin with https:// or http://")
    return Forwarding(trusted_proxies=networks, public_url=public_url)


def _callback_networks(environment: Mapping[str, str]) -> list[str]:
    parts = [part.strip() for part in environment.get(_CALLBACK_NETWORKS, "").split(",")]
    try:
        return [str(ip_network(part)) for part in parts if part]
    except ValueError as exc:
        raise _misconfigured(f"{_CALLBACK_NETWORKS} lists no ranges: {exc}") from exc


def _show(endpoints: Sequence[Endpoint | UnusableEndpoint]) -> None:
    log = logging.getLogger("deployments.services.gateway")
    if not endpoints:
        log.warning("no endpoint is declared; declare one in an integration.yaml beside a flow")
    for each in endpoints:
        if isinstance(each, UnusableEndpoint):
            log.warning("%s answers 503: %s", each.name, each.reason)
        else:
            log.info("%s: %s, for %s", each.name, each.verifier.name, each.integration)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.gateway", description="Receives webhooks."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="0 for any free one")
    parser.add_argument(
        "--metrics-port",
        type=int,
        help="serve /healthz, /readyz and /metrics on this port and not on the other",
    )
    parser.add_argument("--metrics-host", default="127.0.0.1", help="address of the metrics port")
    parser.add_argument("--check", action="store_true", help="check the declarations and stop")
    return parser


def _misconfigured(message: str) -> MisconfiguredError:
    return MisconfiguredError(message, system="gateway", operation="start")


if __name__ == "__main__":
    sys.exit(main())
