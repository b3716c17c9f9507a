"""The proxy passes everything on until it is told to do otherwise."""

from __future__ import annotations

import socket
import threading

import pytest


@pytest.fixture
def echo():
    """A service that sends back what it gets; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        while piece := connection.recv(65536):
                            connection.sendall(piece)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.fixture
def proxy(echo, fault_proxy):
    return fault_proxy(echo)


@pytest.fixture
def connection(proxy):
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as connection:
        yield connection


def said(connection, text):
    connection.sendall(text)
    return connection.recv(100)


def test_it_passes_everything_on(connection, proxy):
    """Both ways, to the end."""
    assert said(connection, b"hello") == b"hello"
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(100) == b""
    assert proxy.connections == 1


def test_it_cuts(connection, proxy):
    """Once the agreed bytes went through, the connection is reset."""
    assert said(connection, b"hello") == b"hello"
    proxy.cut_after_bytes = 0
    with pytest.raises(ConnectionResetError):
        said(connection, b"hello")


def test_it_swallows(connection, proxy):
    """What is sent meanwhile arrives later."""
    proxy.swallow = True
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        said(connection, b"hello")
    proxy.swallow = False
    connection.settimeout(5)
    assert connection.recv(100) == b"hello"


def test_it_refuses(proxy):
    """New connections are reset."""
    proxy.refuse = True
    with pytest.raises(ConnectionResetError):
        heard_by_a_new_connection(proxy)


def heard_by_a_new_connection(proxy):
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as connection:
        return connection.recv(100)


def test_it_swallows_from_a_piece_on(connection, proxy):
    """What was said before is answered; the piece is held back, and all that follow."""
    proxy.swallow_from = b"SELECT"
    assert said(connection, b"hello") == b"hello"
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        said(connection, b"SELECT 1")
    assert proxy.swallow
