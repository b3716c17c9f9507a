"""HTTP as uvicorn speaks it, with a limit to what a request holds beside its body."""

from __future__ import annotations

from itertools import chain

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024

HEAD_TOO_LARGE = "integrations.head_too_large"
"""The extension in the ASGI scope of a request that is to be refused for its head."""

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


class BoundedHttp(HttpToolsProtocol):
    """Lets no head, and no trailer, be larger than `MAX_HEAD_BYTES`.

    The parser keeps either until it is complete, whatever its size, and the application hears of
    a request only then. So one that does not end is refused here, one that came whole there.
    """

    _kept_bytes = 0  # at most; since the parser last gave something away

    def data_received(self, data: bytes) -> None:
        """Called with each read of the socket."""
        self._kept_bytes += len(data)
        super().data_received(data)
        if self._kept_bytes > MAX_HEAD_BYTES:
            self._give_up()

    def on_headers_complete(self) -> None:
        """Called by the parser before it reads the body."""
        # The bytes of the last read may be of the body, so a usual head costs nothing here.
        if self._kept_bytes > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self.scope["extensions"] = {HEAD_TOO_LARGE: {}}
        self._kept_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by the parser with each part of a body."""
        self._kept_bytes = 0
        super().on_body(body)

    def _head_bytes(self) -> int:
        texts = chain((self.url,), chain.from_iterable(self.headers))
        return sum(map(len, texts)) + len(self.headers) * len(": \r\n")

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        # Where an earlier request still waits for its answer, this must not be taken for it.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_REFUSAL)
        self.transport.close()
