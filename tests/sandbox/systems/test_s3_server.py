"""The S3 stand-in starts with its buckets and forgets on demand."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError


def bucket_names(s3_server):
    return [bucket["Name"] for bucket in s3_server.client.list_buckets()["Buckets"]]


def test_it_starts_anew_for_each_test(s3_server):
    """One empty bucket is there, whatever was there before."""
    s3_server.client.put_object(Bucket="exchange", Key="a", Body=b"1")
    s3_server.reset(buckets=["one", "two"])
    assert bucket_names(s3_server) == ["one", "two"]
    assert "Contents" not in s3_server.client.list_objects_v2(Bucket="one")


def test_it_checks_credentials_when_told_to(s3_server):
    """Then all are refused."""
    s3_server.check_credentials(on=True)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        s3_server.client.list_buckets()
    s3_server.check_credentials(on=False)
    assert bucket_names(s3_server) == ["exchange"]
