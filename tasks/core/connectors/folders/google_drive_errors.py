"""Every failure of the Drive API becomes one of `blocks.errors`, here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx

from blocks.errors import IntegrationError, PermanentError, UpstreamBusyError
from tasks.core.connectors.http.errors import Where, from_httpx, from_status
from tasks.core.connectors.http.rate_limits import wait_asked_for

_BUSY = {"rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"}
_SPENT = "dailyLimitExceeded"
_FULL = {"storageQuotaExceeded", "teamDriveFileLimitExceeded"}


@contextmanager
def drive_errors(system: str, operation: str, record: str | None) -> Iterator[None]:
    """Map what httpx raises."""
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError) as exc:
        raise from_httpx(exc, Where(system=system, operation=operation, record=record)) from exc


def drive_refusal(
    response: httpx.Response, system: str, operation: str, record: str | None
) -> IntegrationError | None:
    """Return the error for a response, or None if it is a success.

    Source: developers.google.com/drive/api/guides/handle-errors.
    """
    where = Where(system=system, operation=operation, record=record)
    now = datetime.now(UTC)
    reasons = _reasons(response)
    if response.status_code == 403 and reasons & _BUSY:
        return UpstreamBusyError(
            "it asks for fewer requests",
            retry_after_s=wait_asked_for(response.headers, now=now),
            **where,
        )
    if response.status_code == 403 and _SPENT in reasons:
        return UpstreamBusyError(
            "the daily quota is used up; ask Google for more in the Cloud console, or "
            "continue tomorrow",
            **where,
        )
    if response.status_code == 403 and reasons & _FULL:
        return PermanentError(
            f"there is no room ({', '.join(sorted(reasons & _FULL))}); service accounts have none "
            "of their own: use a folder of a shared drive",
            **where,
        )
    return from_status(response.status_code, response.headers, response.content, where, now=now)


def _reasons(response: httpx.Response) -> set[str]:
    if response.is_success:
        return set()
    try:
        return {str(error.get("reason")) for error in response.json()["error"]["errors"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()
