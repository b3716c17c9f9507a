"""One prefix of an S3 bucket as a place that holds files."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from tasks.core.connectors.folders.contents import have_same_content
from tasks.core.connectors.folders.moves import leads_nowhere
from tasks.core.connectors.folders.paths import clean_path, join, listed_path
from tasks.core.connectors.folders.protocol import FileChangedError, RemoteFile, TargetExistsError
from tasks.core.connectors.folders.s3_errors import s3_errors, status_of
from tasks.core.connectors.folders.streams import ExactContent, ReadAhead, buffered, read_fully
from tasks.core.threads import DaemonThreadPoolExecutor, result_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WINDOW_BYTES = 8 * 1024 * 1024
_WINDOWS_AHEAD = 6
_PART_BYTES = 8 * 1024 * 1024
_PARTS_UNDER_WAY = 4
_MOST_PARTS = 10_000
_MOST_COPIED_AT_ONCE_BYTES = 5 * 1024**3
_UPLOAD = "upload"  # metadata by which an upload recognises its own object


class S3Files:
    """The objects below one prefix; "/" in keys makes folders.

    S3 has no folders: a missing one lists as empty. A move is a copy and a deletion: in between,
    both files exist.
    """

    def __init__(self, client: S3Client, bucket: str, *, system: str, prefix: str = "") -> None:
        """Use a client.

        Args:
            client: Closed by `close`.
            bucket: Its name.
            system: Name of this place in errors.
            prefix: The folder in the bucket that all paths start from; "" is the whole bucket.
        """
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._system = system
        self._threads = DaemonThreadPoolExecutor(_WINDOWS_AHEAD, "s3")

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "s3://acme-exchange/incoming"."""
        return self._system

    def list_files(self, folder: str, *, recursive: bool = False) -> Iterator[RemoteFile]:
        """Yield the objects of a folder; see `RemoteFolder.list_files`."""
        folder = clean_path(folder, system=self._system, operation="list", may_be_root=True)
        prefix = self._key(folder)
        if prefix:
            prefix += "/"
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="" if recursive else "/"
        )
        with s3_errors(self._system, "list", folder or "."):
            for page in pages:
                for item in page.get("Contents", ()):
                    path = self._listed(folder, item["Key"][len(prefix) :])
                    if path is not None:
                        yield RemoteFile(path, item["Size"], item["LastModified"], _version(item))

    def stat(self, path: str) -> RemoteFile | None:
        """Return the file as it is now, or None if there is none."""
        path = self._clean(path, "look up")
        with s3_errors(self._system, "look up", path):
            return self._head(path)

    @contextmanager
    def open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open for reading, several ranges ahead; see `RemoteFolder.open`."""
        path = self._clean(file.path, "read")

        def window(start: int) -> list[bytes]:
            with s3_errors(self._system, "read", path):
                answer = self._client.get_object(
                    **self._object(path),
                    Range=f"bytes={start}-{start + _WINDOW_BYTES - 1}",
                    IfMatch=_etag(file),
                )
                with closing(answer["Body"]) as body:
                    data = body.read()
            if _version(answer) != file.version:
                raise self._changed("read", path)
            return [data]

        if file.size == 0:
            now = self.stat(path)
            if now is None or now.version != file.version:
                raise self._changed("read", path)
        windows = (
            self._threads.submit(window, start) for start in range(0, file.size, _WINDOW_BYTES)
        )
        with buffered(ReadAhead(windows, ahead=_WINDOWS_AHEAD)) as content:
            content.peek(1)  # so that a file that vanished is noticed here
            yield content

    def put(
        self, path: str, content: BinaryIO, *, size: int, overwrite: bool = False
    ) -> RemoteFile:
        """Store a file whole or not at all; see `RemoteFolder.put`.

        A killed process can leave invisible parts that are billed: let the bucket's lifecycle
        abort incomplete uploads.
        """
        path = self._clean(path, "put")
        exact = ExactContent(content, size, system=self._system, operation="put", record=path)
        target = self._object(path)
        condition: dict[str, Any] = {} if overwrite else {"IfNoneMatch": "*"}
        metadata = {_UPLOAD: uuid.uuid4().hex}
        with s3_errors(self._system, "put", path):
            if size <= _PART_BYTES:
                body = read_fully(exact, size + 1)
                exact.check_ended()
                with self._known_when_repeated(target, metadata):
                    self._client.put_object(**target, **condition, Body=body, Metadata=metadata)
            else:
                self._put_in_parts(target, condition, metadata, exact, size)
            stored = self._head(path)
        if stored is None:
            raise self._changed("put", path)
        return stored

    def move(self, path: str, target: str, *, overwrite: bool = False) -> None:
        """Copy, then delete; see `RemoteFolder.move`.

        Moving again completes a move that was interrupted in between: a target that equals the
        file at `path` is its copy.
        """
        path, target = self._clean(path, "move"), self._clean(target, "move")
        if leads_nowhere(self, path, target):
            return
        with s3_errors(self._system, "move", path):
            source = self._head(path)
            if source is None:
                raise FileChangedError(
                    "it vanished since it was listed; the next listing shows it as it is now",
                    system=self._system,
                    operation="move",
                    record=path,
                )
            there = None if overwrite else self._head(target)
            if there is None:
                self._copy(source, target, overwrite=overwrite)
            elif not self._is_copy(there, source):
                raise TargetExistsError(
                    f"there is a file at {target!r} already",
                    system=self._system,
                    operation="move",
                    record=path,
                )
            self._delete_if_still(source)

    def delete(self, path: str) -> None:
        """Remove a file; do nothing if it is already gone."""
        path = self._clean(path, "delete")
        with s3_errors(self._system, "delete", path):
            self._client.delete_object(**self._object(path))

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    @contextmanager
    def _known_when_repeated(
        self, target: dict[str, Any], metadata: dict[str, str]
    ) -> Iterator[None]:
        """Ignore a refusal if a request whose response was lost has stored the object.

        The client repeats a request without a response; the second one then finds what the
        first has stored.
        """
        try:
            yield
        except ClientError as exc:
            if status_of(exc) not in (404, 412) or not self._is_marked(target, metadata):
                raise

    def _is_marked(self, target: dict[str, Any], metadata: dict[str, str]) -> bool:
        try:
            found = self._client.head_object(**target)["Metadata"]
        except ClientError as exc:
            if status_of(exc) == 404:
                return False
            raise
        return found.get(_UPLOAD) == metadata[_UPLOAD]

    def _put_in_parts(
        self,
        target: dict[str, Any],
        condition: dict[str, Any],
        metadata: dict[str, str],
        content: ExactContent,
        size: int,
    ) -> None:
        part_bytes = max(_PART_BYTES, -(-size // _MOST_PARTS))
        begun = self._client.create_multipart_upload(**target, Metadata=metadata)
        upload = {**target, "UploadId": begun["UploadId"]}

        def put_part(number: int, body: bytes) -> dict[str, Any]:
            answer = self._client.upload_part(**upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": answer["ETag"]}

        under_way: deque[Future[dict[str, Any]]] = deque()
        parts: list[Any] = []
        try:
            while body := read_fully(content, part_bytes):
                number = len(parts) + len(under_way) + 1
                under_way.append(self._threads.submit(put_part, number, body))
                if len(under_way) == _PARTS_UNDER_WAY:
                    parts.append(result_of(under_way.popleft()))
            parts.extend(map(result_of, under_way))
            with self._known_when_repeated(target, metadata):
                self._client.complete_multipart_upload(
                    **upload, **condition, MultipartUpload={"Parts": parts}
                )
        except BaseException:
            for future in under_way:
                future.cancel()
            with suppress(ClientError, BotoCoreError):  # the first failure is raised
                self._client.abort_multipart_upload(**upload)
            raise

    def _is_copy(self, there: RemoteFile, source: RemoteFile) -> bool:
        if (there.size, _etag(there)) == (source.size, _etag(source)):
            return True
        # Copies of multipart uploads and of objects encrypted with a key have another ETag.
        return have_same_content(self, source, there)

    def _copy(self, source: RemoteFile, target: str, *, overwrite: bool) -> None:
        only_this: dict[str, Any] = {"CopySourceIfMatch": _etag(source)}
        copied: Any = self._object(source.path)
        if source.size > _MOST_COPIED_AT_ONCE_BYTES:
            self._client.copy(copied, self._bucket, self._key(target), ExtraArgs=only_this)
            return
        if not overwrite:
            only_this["IfNoneMatch"] = "*"
        self._client.copy_object(CopySource=copied, **self._object(target), **only_this)

    def _delete_if_still(self, file: RemoteFile) -> None:
        """Delete the copied object, unless somebody has replaced it meanwhile."""
        target = self._object(file.path)
        try:
            self._client.delete_object(**target, IfMatch=_etag(file))
        except ClientError as exc:
            if status_of(exc) == 501:  # a service that does not know the condition
                self._client.delete_object(**target)
            elif status_of(exc) not in (404, 412):
                raise

    def _head(self, path: str) -> RemoteFile | None:
        try:
            answer = self._client.head_object(**self._object(path))
        except ClientError as exc:
            if status_of(exc) == 404:
                return None
            raise
        return _described(path, answer["ContentLength"], answer)

    def _listed(self, folder: str, rest: str) -> str | None:
        if not rest or rest.endswith("/"):
            return None  # a marker that keeps an empty folder visible in consoles
        return listed_path(folder, *rest.split("/"), system=self._system)

    def _changed(self, operation: str, path: str) -> FileChangedError:
        return FileChangedError(
            "it changed since it was listed; the next listing shows it as it is now",
            system=self._system,
            operation=operation,
            record=path,
        )

    def _clean(self, path: str, operation: str) -> str:
        return clean_path(path, system=self._system, operation=operation)

    def _object(self, path: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._key(path)}

    def _key(self, path: str) -> str:
        return join(self._prefix, path) if path else self._prefix


def _described(path: str, size: int, answer: Any) -> RemoteFile:
    return RemoteFile(path, size, answer["LastModified"].astimezone(UTC), _version(answer))


def _version(answer: Any) -> str:
    # Listings and single responses report the time with different precision.
    return f"{answer['ETag']}-{int(answer['LastModified'].timestamp())}"


def _etag(file: RemoteFile) -> str:
    return file.version.rpartition("-")[0]
