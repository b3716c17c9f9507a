"""Tasks that talk to HTTP APIs: one call, one page, all records, one batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.concurrency.sync import rate_limit
from pydantic import SecretStr

from blocks.http_api import HttpApi, OAuth2Grant, OAuth2RefreshToken
from tasks.plain.http.auth import OAuth2
from tasks.plain.http.client import ApiClient, ApiLimits
from tasks.plain.http.retrying import RetryPolicy


@contextmanager
def open_api(
    api: HttpApi, *, log: logging.Logger | logging.LoggerAdapter[Any] | None = None
) -> Iterator[ApiClient]:
    """A client for an API with everything its block says: tokens, retries, limits, budget.

    Args:
        api: The block.
        log: Told of retries; give Prefect's run logger to show them in the UI.
    """
    with api.get_client() as http:
        yield ApiClient(
            http,
            system=api.system,
            oauth=_oauth(api),
            retries=RetryPolicy(
                max_attempts=api.max_attempts,
                first_wait_s=api.first_wait_s,
                max_wait_s=api.max_wait_s,
                max_retry_after_s=api.max_retry_after_s,
            ),
            limits=ApiLimits(
                max_response_bytes=api.max_response_bytes, total_timeout_s=api.total_timeout_s
            ),
            before_request=_budget(api),
            log=log or logging.getLogger(__name__),
        )


def _oauth(api: HttpApi) -> OAuth2 | None:
    grant = api.auth
    if not isinstance(grant, OAuth2Grant):
        return None
    refresh_token = None
    if isinstance(grant, OAuth2RefreshToken):
        refresh_token = grant.refresh_token.get_secret_value()
    return OAuth2(
        grant.token_url,
        client_id=grant.client_id,
        client_secret=grant.client_secret.get_secret_value(),
        refresh_token=refresh_token,
        scope=grant.scope,
        parameters=grant.parameters,
        client_auth=grant.client_auth,
        on_refresh_token=lambda token: _keep_refresh_token(api, token),
    )


def _keep_refresh_token(api: HttpApi, token: str) -> None:
    """Save a rotated refresh token in the block document, since the old one may be dead."""
    assert isinstance(api.auth, OAuth2RefreshToken)  # noqa: S101 - only then it is called
    api.auth.refresh_token = SecretStr(token)
    if api._block_document_name is not None:  # noqa: SLF001 - Prefect offers no other way
        api.save(api._block_document_name, overwrite=True)  # noqa: SLF001


def _budget(api: HttpApi) -> Callable[[], None] | None:
    name = api.rate_limit
    if name is None:
        return None
    return lambda: rate_limit(name, strict=True)
