"""What botocore and S3 services report, mapped to the project's error tree, with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import botocore.exceptions as boto

from blocks.errors import (
    IntegrationError,
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError

_CREDENTIALS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_PERMISSIONS = {
    "list": "s3:ListBucket",
    "look up": "s3:GetObject and s3:ListBucket",
    "read": "s3:GetObject",
    "put": "s3:PutObject",
    "move": "s3:GetObject, s3:PutObject and s3:DeleteObject",
    "delete": "s3:DeleteObject",
}


@contextmanager
def s3_errors(system: str, operation: str, path: str) -> Iterator[None]:
    """Map third-party errors to the tree of `blocks.errors`.

    Source: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    try:
        yield
    except boto.ClientError as exc:
        raise _answer(exc, system, operation, path) from exc
    except boto.BotoCoreError as exc:
        kind, message = _before_an_answer(exc)
        raise kind(message, system=system, operation=operation, record=path) from exc


def status_of(exc: boto.ClientError) -> int:
    """Return the HTTP status of a response."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _before_an_answer(exc: boto.BotoCoreError) -> tuple[type[IntegrationError], str]:
    match exc:
        case boto.NoCredentialsError() | boto.PartialCredentialsError():
            return MisconfiguredError, (
                "no credentials; put an access key into the block, or give this machine a role"
            )
        case boto.CredentialRetrievalError() | boto.TokenRetrievalError() | boto.ProfileNotFound():
            return MisconfiguredError, "the credentials of this machine cannot be read"
        case boto.ParamValidationError() | boto.NoRegionError() | boto.InvalidRegionError():
            return MisconfiguredError, "the block's bucket or region is not one; correct it"
        case boto.SSLError():
            return MisconfiguredError, (
                "the server's certificate is not trusted; is the endpoint right?"
            )
        case boto.ReadTimeoutError() | boto.ConnectTimeoutError():
            return UnreachableError, "no answer in time; is the endpoint right, and reachable?"
        case (
            boto.ResponseStreamingError()
            | boto.IncompleteReadError()
            | boto.ConnectionClosedError()
        ):
            return UnreachableError, "the connection was cut in the middle; try again"
        case boto.HTTPClientError() | boto.ConnectionError():
            return UnreachableError, "no connection; is the endpoint right, and reachable?"
    return PermanentError, f"the request failed ({type(exc).__name__})"


def _answer(exc: boto.ClientError, system: str, operation: str, path: str) -> IntegrationError:
    error: Any = exc.response.get("Error", {})
    status, code = status_of(exc), str(error.get("Code", ""))
    where: dict[str, Any] = {"system": system, "operation": operation, "record": path}
    ours_to_mend = _misconfiguration(status, code, operation)
    if ours_to_mend:
        return MisconfiguredError(ours_to_mend, **where)
    source_changed = operation == "read" or "source" in str(error.get("Condition", "")).lower()
    source_gone = status == 404 and operation in ("read", "move")
    if source_gone or (status == 412 and source_changed):
        what = "vanished" if status == 404 else "changed"
        return FileChangedError(
            f"it {what} since it was listed; the next listing shows it as it is now", **where
        )
    if status == 412:
        return TargetExistsError("there is a file of that name already", **where)
    if status in (409, 429, 503):
        return UpstreamBusyError(
            f"the service is busy ({code})", retry_after_s=_retry_after_s(exc), **where
        )
    if status == 507 or "QuotaExceeded" in code:
        return PermanentError(f"no room ({code}); have the service's owner make room", **where)
    if status >= 500:
        return UpstreamFailedError(f"the service failed with {status} ({code})", **where)
    return UpstreamRejectedError(
        f"the service refused with {status} ({code})", status=status, **where
    )


def _misconfiguration(status: int, code: str, operation: str) -> str | None:
    if code == "NoSuchBucket":
        return "there is no such bucket; correct the block"
    if code in _CREDENTIALS:
        return f"the service refused the credentials ({code}); renew the access key in the block"
    if code in _REGION or status == 301:
        return "the bucket is in another region; correct the block's region"
    if status == 403:
        return (
            "permission denied; check the access key in the block, and let its policy allow "
            f"{_PERMISSIONS[operation]}"
        )
    return None


def _retry_after_s(exc: boto.ClientError) -> float | None:
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    with suppress(KeyError, ValueError):
        return float(headers["retry-after"])
    return None
