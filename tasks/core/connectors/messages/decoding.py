"""Decodes a message's bytes into the JSON that flows read, or says why it cannot."""

from __future__ import annotations

from typing import Any, Protocol

import httpx
import orjson

from blocks.errors import (
    BadPayloadError,
    MisconfiguredError,
    UnreachableError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamRejectedError,
)

_MAGIC = b"\x00"
_TIMEOUT_S = 10.0


class Decoder(Protocol):
    """A way to decode the bodies of a source."""

    async def decode(self, body: bytes) -> bytes | None:
        """Return the event as JSON, or None if the body itself is the event.

        Raises:
            BadPayloadError: The body cannot be decoded, now or later.
            TransientError: Something that decoding needs is unavailable right now.
        """
        ...


class AnyBytes:
    """Bodies that only the flow understands."""

    async def decode(self, body: bytes) -> bytes | None:
        """Accept any body."""
        return None


class JsonDecoder:
    """Bodies that are JSON."""

    async def decode(self, body: bytes) -> bytes | None:
        """See `Decoder.decode`."""
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise _undecodable(f"it is not JSON: {exc.msg} at character {exc.pos}") from exc
        return None


class SchemaRegistryDecoder:
    """Bodies framed by Confluent's serializers: a zero byte, the schema's id, the data.

    Avro and JSON schemas are supported. The schema of an id never changes, so each is fetched
    once.

    Args:
        client: Client with the registry's base URL, and credentials if needed.

    Source: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._schemas: dict[int, tuple[str, Any]] = {}

    async def decode(self, body: bytes) -> bytes | None:
        """See `Decoder.decode`."""
        if len(body) < 5 or body[:1] != _MAGIC:
            raise _undecodable("it does not start with a schema id; is it plain JSON?")
        schema_id = int.from_bytes(body[1:5])
        kind, schema = self._schemas.get(schema_id) or await self._fetch(schema_id)
        if kind == "JSON":
            await JsonDecoder().decode(body[5:])
            return body[5:]
        return _avro_as_json(body[5:], schema)

    async def _fetch(self, schema_id: int) -> tuple[str, Any]:
        where: dict[str, Any] = {
            "system": str(self._client.base_url).rstrip("/"),
            "operation": "fetch schema",
            "record": str(schema_id),
        }
        try:
            answer = await self._client.get(f"schemas/ids/{schema_id}", timeout=_TIMEOUT_S)
        except httpx.TransportError as exc:
            raise UnreachableError(f"no answer ({type(exc).__name__})", **where) from exc
        if answer.status_code == 404:
            raise _undecodable(f"the schema registry knows no schema {schema_id}")
        if answer.status_code in (401, 403):
            raise MisconfiguredError("the registry refused the login; check it", **where)
        if answer.status_code in (429, 503):
            raise UpstreamBusyError("the registry is busy", **where)
        if answer.status_code >= 500:
            raise UpstreamFailedError(f"the registry failed ({answer.status_code})", **where)
        try:
            document = answer.raise_for_status().json()
            kind, text = document.get("schemaType", "AVRO"), document["schema"]
        except (httpx.HTTPStatusError, ValueError, KeyError, AttributeError) as exc:
            raise UpstreamRejectedError(
                "the response is not a schema registry's", status=answer.status_code, **where
            ) from exc
        if kind == "JSON":
            found = (kind, None)
        elif kind == "AVRO":
            found = (kind, _parsed_schema(text, where))
        else:
            raise _undecodable(f"schema {schema_id} is of the kind {kind}; Avro and JSON are read")
        self._schemas[schema_id] = found
        return found


def _parsed_schema(text: str, where: dict[str, Any]) -> Any:
    try:
        from fastavro.schema import parse_schema
    except ImportError as exc:
        raise MisconfiguredError(
            "fastavro is not installed; install it: make install EXTRAS=kafka", **where
        ) from exc
    return parse_schema(orjson.loads(text))


def _avro_as_json(data: bytes, schema: Any) -> bytes:
    import io

    from fastavro import schemaless_reader

    try:
        record = schemaless_reader(io.BytesIO(data), schema, None)
        return orjson.dumps(record, default=_as_text)
    except Exception as exc:  # fastavro has no base class for what is wrong with data
        raise _undecodable(f"it does not match its Avro schema ({type(exc).__name__})") from exc


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # as Avro's own JSON encoding writes bytes
    return str(value)  # decimals keep their digits


def _undecodable(reason: str) -> BadPayloadError:
    return BadPayloadError(reason, system="message", operation="decode")
