"""The protocol between client and parent: the socket's place, who may use it, and its messages.

One connection is one flow run. A child is forked and says `hello VERSION PID`; the client sends
its request; the child says `started`, or `refused REASON` if it cannot fulfil the request.
At the end the client reads `exit CODE`, from the child if it exits by itself, from the
parent if it was killed. CODE is that of `os.waitstatus_to_exitcode`: negative for a signal.
"""

from __future__ import annotations

import os
import runpy
import socket
import struct
import sys
from typing import NamedTuple

VERSION = "1"
SOCKET_VARIABLE = "INTEGRATIONS_LAUNCHER_SOCKET"
CLIENT_COMMAND = "python -m deployments.launcher.client"
ENGINE = "prefect.engine"
WORKER_STOPS_WITHIN_S = 10.0
"""A worker that takes longer is killed: it would take minutes if Prefect's server is silent."""


class Request(NamedTuple):
    """The process that a client requests.

    Attributes:
        prefix: Where the client's Python and its packages are installed.
        directory: Absolute working directory.
        variables: The whole environment.
        streams: Descriptors of standard input, output and error.
    """

    prefix: bytes
    directory: bytes
    variables: dict[bytes, bytes]
    streams: list[int]


def send_request(connection: socket.socket) -> None:
    """Request a child with this process's Python, directory, environment and streams.

    Raises:
        OSError: The child ended before the whole request was sent, so no run was started.
    """
    variables = [name + b"=" + value for name, value in os.environb.items()]
    directory = os.getcwdb()  # noqa: PTH109 - pathlib takes longer to import than all the rest
    body = b"\0".join([os.fsencode(sys.prefix), directory, *variables])
    message = struct.pack("!I", len(body)) + body
    sent = socket.send_fds(connection, [message], [0, 1, 2])
    if sent < len(message):  # otherwise the child may have finished already
        connection.sendall(message[sent:])


def receive_request(connection: socket.socket) -> Request:
    """Read what `send_request` sends.

    Raises:
        EOFError: The client went away first.
    """
    data, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while len(data) < 4 or len(data) < 4 + struct.unpack("!I", data[:4])[0]:
        more = connection.recv(1 << 20)
        if not more:
            raise EOFError
        data += more
    prefix, directory, *pairs = data[4:].split(b"\0")
    variables = dict(pair.split(b"=", 1) for pair in pairs)
    return Request(prefix, directory, variables, streams)


def is_same_user(connection: socket.socket) -> bool:
    """Return whether the process at the other end runs as this user.

    Source: unix(7) of Linux, unix(4) of macOS.
    """
    if sys.platform == "linux":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, user, _ = struct.unpack("=iII", credentials)
    else:
        sol_local, local_peercred, xucred_bytes = 0, 1, 76
        credentials = connection.getsockopt(sol_local, local_peercred, xucred_bytes)
        _, user = struct.unpack_from("=II", credentials)
    return bool(user == os.geteuid())


def run_engine(module: str = ENGINE) -> None:
    """Run the flow run named in the environment, like `python -m prefect.engine`."""
    sys.argv[:] = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
