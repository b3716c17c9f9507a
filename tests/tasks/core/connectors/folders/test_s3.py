"""What only S3 can do wrong, and what the operator then reads."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session

from blocks.errors import (
    MisconfiguredError,
    PermanentError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)
from tasks.core.connectors.folders.protocol import FileChangedError, TargetExistsError
from tasks.core.connectors.folders.s3 import S3Files


def put(folder, path, content=b"content", **options):
    return folder.put(path, io.BytesIO(content), size=len(content), **options)


def objects(s3_server, **options):
    found = s3_server.client.list_objects_v2(Bucket="exchange", **options).get("Contents", [])
    return {item["Key"] for item in found}


def test_unknown_credentials(s3_folder, s3_server):
    """The message says which key to renew, and does not show it."""
    folder = s3_folder(access_key_id="AKIASTRANGER", secret_access_key="guessed")
    s3_server.check_credentials(on=True)
    with pytest.raises(MisconfiguredError) as caught:
        list(folder.list_files(""))
    assert str(caught.value) == (
        f"{folder.system}: list '.': the service refused the credentials (InvalidAccessKeyId); "
        "renew the access key in the block"
    )


def test_no_credentials_at_all(s3_folder, monkeypatch):
    """The message names both ways to give some."""
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    folder = s3_folder(access_key_id=None, secret_access_key=None)
    with pytest.raises(MisconfiguredError, match="no credentials; put an access key into the bl"):
        list(folder.list_files(""))


def test_a_missing_bucket(s3_folder):
    """Every operation says that the bucket is missing, where S3 tells it."""
    folder = s3_folder(bucket="elsewhere")
    for operation in (lambda: list(folder.list_files("")), lambda: put(folder, "a")):
        with pytest.raises(MisconfiguredError, match="there is no such bucket; correct the block"):
            operation()


def test_nobody_listens(s3_folder):
    """A refused connection is worth trying again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder = s3_folder(endpoint_url=f"http://127.0.0.1:{port}")
    with pytest.raises(UnreachableError, match="no connection; is the endpoint right, and reach"):
        list(folder.list_files(""))


def test_a_service_that_falls_silent(s3_folder, s3_server, fault_proxy):
    """A request is given up after the read time-out."""
    proxy = fault_proxy(s3_server.port)
    folder = s3_folder(endpoint_url=f"http://127.0.0.1:{proxy.port}", read_timeout_s=0.2)
    proxy.swallow = True
    with pytest.raises(UnreachableError, match="no answer in time; is the endpoint right"):
        folder.stat("a")


def test_a_connection_cut_in_the_middle_of_a_download(s3_folder, s3_server, fault_proxy):
    """The read fails as worth trying again, and trying again works."""
    proxy = fault_proxy(s3_server.port)
    folder = s3_folder(endpoint_url=f"http://127.0.0.1:{proxy.port}")
    file = put(folder, "large.csv", bytes(30_000_000))
    proxy.cut_after_bytes = 12_000_000
    with pytest.raises(UnreachableError) as caught, folder.open(file) as stream:
        stream.read()
    assert caught.value.message in (
        "the connection was cut in the middle; try again",
        "no connection; is the endpoint right, and reachable?",  # what a range ahead may see
    )
    proxy.cut_after_bytes = None
    with folder.open(file) as stream:
        assert len(stream.read()) == 30_000_000


@pytest.mark.parametrize("size", [10, 9_000_000])
def test_two_writers_of_one_name(s3_folder, s3_server, size):
    """Who comes second is told so, even when both started before either was there."""
    folder = s3_folder()

    class Racing(io.BytesIO):
        def read(self, count=-1):
            s3_server.client.put_object(Bucket="exchange", Key="in/a", Body=b"first")
            return super().read(count)

    with pytest.raises(TargetExistsError, match="put 'in/a': there is a file of that name already"):
        folder.put("in/a", Racing(bytes(size)), size=size)
    assert folder.stat("in/a").size == 5


@pytest.mark.parametrize("size", [10, 9_000_000])
def test_an_upload_whose_answer_was_lost_is_known_when_it_is_repeated(s3_server, monkeypatch, size):
    """The client repeats the request by itself; it is not told that a file is in its way."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _seconds: None))
    block = s3_server.block("exchange", attempts=2)
    client = block.get_client()
    folder = S3Files(client, "exchange", system=block.system)
    answers = []

    def lose_the_first_answer(request, **_):
        if not answers:
            answers.append(URLLib3Session().send(request))
            raise ConnectionClosedError(endpoint_url=request.url)

    for operation in ("PutObject", "CompleteMultipartUpload"):
        client.meta.events.register(f"before-send.s3.{operation}", lose_the_first_answer)
    assert put(folder, "in/a", bytes(size)).size == size
    assert [answer.status_code for answer in answers] == [200]
    with pytest.raises(TargetExistsError):
        put(folder, "in/a", bytes(size))
    folder.close()


def test_a_failed_upload_leaves_no_parts(s3_folder, s3_server):
    """Parts of an upload that fails are not left to be billed."""
    folder = s3_folder()
    with pytest.raises(PermanentError, match="ended before its announced"):
        folder.put("a", io.BytesIO(bytes(20_000_000)), size=30_000_000)
    left = s3_server.client.list_multipart_uploads(Bucket="exchange")
    assert "Uploads" not in left


def test_a_move_that_was_interrupted_is_completed(s3_folder, s3_server):
    """With the copy made and the source still there, moving again only deletes the source."""
    folder = s3_folder()
    put(folder, "a", b"content")
    s3_server.client.copy_object(
        Bucket="exchange", Key="b", CopySource={"Bucket": "exchange", "Key": "a"}
    )
    folder.move("a", "b")
    assert objects(s3_server) == {"b"}


@pytest.mark.parametrize("other_end", [b"", b"x"])
def test_a_move_of_a_file_stored_in_parts_is_completed(s3_folder, s3_server, other_end):
    """Its copy has another digest at the service: then the content says whether it is the copy."""
    folder = s3_folder()
    content = bytes(9_000_000)
    put(folder, "a", content)
    copy = content[: len(content) - len(other_end)] + other_end
    s3_server.client.put_object(Bucket="exchange", Key="b", Body=copy)
    assert folder.stat("a").version.split("-")[0] != folder.stat("b").version.split("-")[0]
    if other_end:
        with pytest.raises(TargetExistsError):
            folder.move("a", "b")
        assert objects(s3_server) == {"a", "b"}
    else:
        folder.move("a", "b")
        assert objects(s3_server) == {"b"}


def test_a_new_upload_during_a_move_is_not_lost(s3_folder, s3_server):
    """What a partner stores between copy and deletion stays for the next listing."""
    block = s3_server.block("exchange", attempts=1)
    client = block.get_client()
    folder = S3Files(client, "exchange", system=block.system)
    put(folder, "a", b"old")

    def partner_stores_another(**_):
        s3_server.client.put_object(Bucket="exchange", Key="a", Body=b"new")

    client.meta.events.register("before-call.s3.DeleteObject", partner_stores_another)
    folder.move("a", "b")
    folder.close()
    read = {
        key: s3_server.client.get_object(Bucket="exchange", Key=key)["Body"].read()
        for key in ("a", "b")
    }
    assert read == {"a": b"new", "b": b"old"}


def test_keys_that_no_path_can_express_are_left_out(s3_folder, s3_server, caplog):
    """Doubled slashes and ".." in keys are warned of; markers of empty folders are not files."""
    folder = s3_folder()
    for key in ("in/a", "in/", "in//b", "in/../c", "in/deep/"):
        s3_server.client.put_object(Bucket="exchange", Key=key, Body=b"")
    assert [file.path for file in folder.list_files("in", recursive=True)] == ["in/a"]
    assert len(caplog.messages) == 2
    assert "left out the name b'..', which no path can express" in caplog.text


def test_a_listing_asks_once_a_page(s3_server):
    """Seven files on pages of three cost three requests."""
    block = s3_server.block("exchange", attempts=1)
    client = block.get_client()
    folder = S3Files(client, "exchange", system=block.system)
    for number in range(7):
        put(folder, f"in/{number}")
    asked = []
    events = client.meta.events
    events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=3)
    )
    events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    assert len(list(folder.list_files("in"))) == 7
    assert asked == ["ListObjectsV2"] * 3
    folder.close()


def test_the_prefix_is_where_paths_start(s3_folder, s3_server):
    """What is outside the prefix is neither seen nor reached."""
    put(s3_folder(), "other/a")
    folder = s3_folder(prefix="/partners/acme/")
    put(folder, "in/b")
    assert [file.path for file in folder.list_files("", recursive=True)] == ["in/b"]
    assert objects(s3_server) == {"other/a", "partners/acme/in/b"}


@dataclass
class RequestReply:
    """A service that gives one answer to everything."""

    status: int = 200
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def answering(**answer) -> Iterator[RequestReply]:
    service = RequestReply(**answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # else boto3 waits a second for "100 Continue"

        def do_GET(self):
            service.lines.append(self.requestline)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = f"<Error><Code>{service.code}</Code><Message>m</Message></Error>".encode()
            self.send_response(service.status)
            self.send_header("content-length", str(len(body)))
            for name, value in service.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815  # the base class calls it so

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield service
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (503, "SlowDown", UpstreamBusyError, "the service is busy (SlowDown)"),
        (409, "ConditionalRequestConflict", UpstreamBusyError, "the service is busy"),
        (500, "InternalError", UpstreamFailedError, "the service failed with 500 (InternalError)"),
        (507, "XMinioStorageFull", PermanentError, "no room (XMinioStorageFull); have the serv"),
        (301, "PermanentRedirect", MisconfiguredError, "the bucket is in another region; correct"),
        (403, "AccessDenied", MisconfiguredError, "its policy allow s3:PutObject"),
        (400, "EntityTooLarge", UpstreamRejectedError, "refused with 400 (EntityTooLarge)"),
        (403, "ExpiredToken", MisconfiguredError, "refused the credentials (ExpiredToken); renew"),
    ],
)
def test_answers_and_what_they_mean(s3_folder, status, code, kind, message):
    """Each kind of answer becomes the error that says whether to wait, to mend or to give up."""
    with answering(status=status, code=code, headers={"retry-after": "7"}) as service:
        folder = s3_folder(endpoint_url=service.url)
        with pytest.raises(kind) as caught:
            put(folder, "a")
    assert message in caught.value.message
    if kind is UpstreamBusyError:
        assert caught.value.retry_after_s == 7


def test_a_newline_in_a_key_reaches_the_service(s3_folder):
    """The stand-in has no route for it, so here is what goes over the wire."""
    with answering(status=500, code="InternalError") as service:
        folder = s3_folder(endpoint_url=service.url)
        with pytest.raises(UpstreamFailedError):
            put(folder, "in/new\nline.csv")
    assert service.lines == ["PUT /exchange/in/new%0Aline.csv HTTP/1.1"]


def test_a_file_replaced_while_it_is_read(s3_folder, s3_server):
    """Ranges of two different objects are never mixed."""
    folder = s3_folder()
    file = put(folder, "a", bytes(60_000_000))
    with folder.open(file) as stream:
        stream.read(10)
        put(folder, "a", b"1" * 60_000_000, overwrite=True)
        with pytest.raises(FileChangedError, match="read 'a': it changed since it was listed"):
            stream.read()
