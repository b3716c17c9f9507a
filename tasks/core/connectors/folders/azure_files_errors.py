"""Every failure of Azure Files becomes one of `blocks.errors`, here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    IncompleteReadError,
    ResourceModifiedError,
    ServiceRequestError,
    ServiceResponseError,
)

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
)
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError
from tasks.core.connectors.http.errors import Where, from_status

EXISTS = "there is a file of that name already; allow overwriting, or use another name"
_IN_USE = {"SharingViolation", "FileLockConflict", "LeaseIdMissing", "CannotDeleteFileOrDirectory"}
_FULL = {"ShareSizeLimitReached", "ContainerQuotaExceeded", "DiskFull"}
_KEY_REFUSED = {"AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo"}

# It warns about every refusal without a body, with a traceback that keeps the connection alive.
logging.getLogger("azure.storage.fileshare._generated").setLevel(logging.ERROR)


@contextmanager
def azure_errors(system: str, operation: str, record: str | None) -> Iterator[None]:
    """Map what the client library raises."""
    try:
        yield
    except AzureError as exc:
        where = Where(system=system, operation=operation, record=record)
        raise _mapped(exc, where) from exc


def code_of(exc: AzureError) -> str:
    """Return the service's error code, e.g. "ParentNotFound"; "" if it gave none.

    Source: learn.microsoft.com/rest/api/storageservices/file-service-error-codes.
    """
    return str(getattr(getattr(exc, "error_code", None), "value", None) or "") or str(
        getattr(exc, "error_code", None) or ""
    )


def _mapped(exc: AzureError, where: Where) -> IntegrationError:
    if isinstance(exc, ServiceRequestError | ServiceResponseError | IncompleteReadError):
        return UnreachableError(
            "no connection, or it was cut; is the account's name right?", **where
        )
    code = code_of(exc)
    if isinstance(exc, ResourceModifiedError):
        return FileChangedError(
            "it changed since it was listed; the next listing shows it as it is now", **where
        )
    if code == "ResourceAlreadyExists":
        return TargetExistsError(EXISTS, **where)
    if code == "ShareNotFound":
        return MisconfiguredError("there is no such share; make it, or correct its name", **where)
    if code in _KEY_REFUSED:
        return MisconfiguredError(
            f"it refuses the key or signature ({code}); fix it in the block", **where
        )
    if code in _IN_USE:
        return UpstreamBusyError(f"another program has it open ({code})", **where)
    if code in _FULL:
        return PermanentError(f"there is no room ({code}); make the share larger", **where)
    if isinstance(exc, HttpResponseError) and exc.response is not None:
        response: Any = exc.response
        error = from_status(
            int(exc.status_code or 0), response.headers, b"", where, now=datetime.now(UTC)
        )
        if error:
            return error
    return PermanentError(f"it failed ({type(exc).__name__} {code})".rstrip(), **where)
