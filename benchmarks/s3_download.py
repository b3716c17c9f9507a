"""Download one object from an S3 service: boto3's managed transfer, and ours.

    python -m benchmarks.s3_download [--megabytes 500] [--rounds 5]

The service is moto in a process of its own. The start of the interpreter and its imports are not
counted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks import downloads
from blocks.s3_bucket import S3Bucket
from tasks.core.connectors.folders.s3 import S3Files

_SERVE = """
import pathlib, sys
from sandbox.systems import s3_server
with s3_server.start(buckets=["exchange"]) as running:
    part = pathlib.Path(sys.argv[1] + ".part")
    part.write_text(running.endpoint_url)
    part.rename(sys.argv[1])
    sys.stdin.read()
"""


def main() -> None:
    """Run all cases against one service."""
    cases = {"boto3": bare_boto3, "ours": ours}
    arguments = downloads.arguments(__doc__, list(cases))
    if arguments.case:
        return downloads.run_case(cases[arguments.case], arguments.work)
    with downloads.work_directory() as name:
        work = Path(name)
        downloads.write_file(work / "large.bin", arguments.megabytes)
        with server(work):
            block(work).get_client().upload_file(str(work / "large.bin"), "exchange", "large.bin")
            downloads.compare(
                "benchmarks.s3_download",
                work,
                list(cases),
                megabytes=arguments.megabytes,
                rounds=arguments.rounds,
            )
    return None


def bare_boto3(work: Path) -> Callable[[], None]:
    """What one writes by hand."""
    client = block(work).get_client()
    return lambda: client.download_file("exchange", "large.bin", str(work / "downloaded"))


def ours(work: Path) -> Callable[[], None]:
    """The block and the folder protocol, as tasks use them."""
    bucket = block(work)
    client = bucket.get_client()

    def download() -> None:
        with closing(S3Files(client, bucket.bucket, system=bucket.system)) as folder:
            downloads.copy(folder, work)

    return download


def block(work: Path) -> S3Bucket:
    """The bucket on the running service."""
    return S3Bucket(
        bucket="exchange",
        endpoint_url=(work / "address").read_text(),
        region="us-east-1",
        access_key_id="sandbox",
        secret_access_key="sandbox",
        addressing_style="path",
    )


@contextmanager
def server(work: Path) -> Iterator[None]:
    """A moto server on a free port of the loopback."""
    command = [sys.executable, "-c", _SERVE, str(work / "address")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        while not (work / "address").exists():
            time.sleep(0.1)
        yield
    finally:
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
