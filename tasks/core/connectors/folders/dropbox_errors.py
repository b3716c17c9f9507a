"""What the Dropbox SDK reports, mapped to the project's error tree, with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
import urllib3.exceptions
from dropbox import exceptions as sdk

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

_NO_ROOM = {"insufficient_space", "insufficient_quota"}
_NO_PERMISSION = {"access_error", "no_permission", "no_write_permission", "restricted_content"}
_VANISHING = ("read", "move")


@contextmanager
def dropbox_errors(system: str, operation: str, path: str) -> Iterator[None]:
    """Map third-party errors to the tree of `blocks.errors`."""
    try:
        yield
    except sdk.RateLimitError as exc:
        raise UpstreamBusyError(
            "Dropbox is busy: too many requests at once",
            system=system,
            operation=operation,
            record=path,
            retry_after_s=exc.backoff,
        ) from exc
    except (
        sdk.DropboxException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
    ) as exc:
        kind, message = _mapped(exc, operation)
        raise kind(message, system=system, operation=operation, record=path) from exc


def tags_of(error: Any) -> list[str]:
    """Return the nested tags of an API error, outermost first."""
    tags = []
    while error is not None:
        tag = getattr(error, "_tag", None)  # the SDK has no public name for it
        if tag is None:
            error = getattr(error, "reason", None)
            continue
        tags.append(tag)
        error = getattr(error, "_value", None)
    return tags


def _mapped(exc: Exception, operation: str) -> tuple[type[IntegrationError], str]:
    match exc:
        case sdk.AuthError():
            return MisconfiguredError, _log_in(exc)
        case sdk.PathRootError() | sdk.BadInputError():
            return MisconfiguredError, (
                "Dropbox does not understand the request; check app key, app secret and root "
                "folder in the block"
            )
        case sdk.InternalServerError():
            return UpstreamFailedError, f"Dropbox failed with {exc.status_code}"
        case sdk.ApiError():
            return _answer(set(tags_of(exc.error)), operation)
        case requests.exceptions.SSLError():
            return MisconfiguredError, "the server's certificate is not trusted"
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return UnreachableError, "no answer in time; is Dropbox reachable from this machine?"
        case urllib3.exceptions.ProtocolError() | requests.exceptions.ChunkedEncodingError():
            return UnreachableError, "the connection was cut in the middle; try again"
        case requests.ConnectionError():
            return UnreachableError, "no connection; is Dropbox reachable from this machine?"
    return PermanentError, f"Dropbox refused ({type(exc).__name__})"


def _log_in(exc: sdk.AuthError) -> str:
    tags = tags_of(exc.error)
    if "missing_scope" in tags:
        scope = exc.error.get_missing_scope().required_scope
        return (
            f"the app lacks the scope {scope}; add it in the Dropbox app console, and let the "
            "owner authorise the app again"
        )
    return (
        f"Dropbox refused the log-in ({', '.join(tags)}); let the account's owner authorise the "
        "app again, and put the new refresh token into the block"
    )


def _answer(tags: set[str], operation: str) -> tuple[type[IntegrationError], str]:
    if tags & {"not_found", "not_folder", "not_file"}:
        if operation in _VANISHING:
            return FileChangedError, (
                "it vanished since it was listed; the next listing shows it as it is now"
            )
        return MisconfiguredError, "there is no such folder; make it, or correct its name"
    if "conflict" in tags and operation == "delete":
        return FileChangedError, "it changed while it was to be deleted, so it was left there"
    if "conflict" in tags:
        return TargetExistsError, "there is a file of that name already"
    if tags & _NO_ROOM:
        return PermanentError, "no room in the account; have its owner make room"
    if tags & _NO_PERMISSION:
        return MisconfiguredError, (
            "Dropbox denies permission; have the folder's owner let this account write there"
        )
    if tags & {"too_many_write_operations", "too_many_requests"}:
        return UpstreamBusyError, "Dropbox is busy: too many changes at once"
    if "content_hash_mismatch" in tags:
        return UpstreamFailedError, "the content was damaged on its way; try again"
    if "reset" in tags:
        return UpstreamFailedError, "Dropbox lost its place in the listing; try again"
    return UpstreamRejectedError, f"Dropbox refused ({', '.join(sorted(tags))})"
