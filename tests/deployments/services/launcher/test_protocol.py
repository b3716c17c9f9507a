"""A request arrives whole, whatever the environment holds."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from deployments.services.launcher.protocol import is_same_user, receive_request, send_request


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_request_arrives_whole(pair, monkeypatch):
    """Values larger than a socket's buffer, empty, with "=", newlines or odd bytes all arrive."""
    ours, theirs = pair
    monkeypatch.setenv("LARGE", "x" * 100_000)
    for number in range(40):
        monkeypatch.setenv(f"LARGE_{number}", "y" * 30_000)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("ODD", os.fsdecode(b"a=b\n\xff"))
    sender = threading.Thread(target=send_request, args=(theirs,))
    sender.start()
    request = receive_request(ours)
    sender.join()
    assert request.variables == dict(os.environb)
    assert request.directory == bytes(Path.cwd())
    assert request.prefix == os.fsencode(sys.prefix)
    assert [os.fstat(d).st_ino for d in request.streams] == [os.fstat(n).st_ino for n in (0, 1, 2)]
    for descriptor in request.streams:
        os.close(descriptor)


@pytest.mark.parametrize("sent", [b"", b"\x00", b"\x00\x00\x00\x09/usr"])
def test_half_a_request_is_none(pair, sent):
    """A client that goes away in the middle has asked for nothing."""
    ours, theirs = pair
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        receive_request(ours)


def test_the_same_user_is_known(pair):
    """Both ends of a connection of our own are ours."""
    assert [is_same_user(end) for end in pair] == [True, True]


def test_a_run_that_ends_at_once_has_been_started(pair):
    """A request that has arrived whole is no error, even when its child has ended already."""
    ours, theirs = pair

    class SlowSocket(socket.socket):
        def sendmsg(self, *message):
            sent = super().sendmsg(*message)
            for descriptor in receive_request(ours).streams:
                os.close(descriptor)
            ours.close()
            return sent

    with SlowSocket(fileno=theirs.detach()) as slow:
        send_request(slow)
