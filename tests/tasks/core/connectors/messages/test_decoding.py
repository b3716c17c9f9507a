"""Bodies framed for a schema registry, against a registry on a real socket."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import fastavro
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from blocks.errors import BadPayloadError, UnreachableError, UpstreamBusyError
from sandbox.systems.web_server import WebServer
from tasks.core.connectors.messages.decoding import SchemaRegistryDecoder

ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "no", "type": "string"},
        {
            "name": "total",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
    ],
}


def framed(schema_id, data):
    return b"\0" + schema_id.to_bytes(4) + data


def avro(record):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(ORDER), record)
    return out.getvalue()


@pytest.fixture
async def registry():
    """A registry with an Avro schema (1), a JSON one (2), and one of another kind (3)."""
    asked = []
    schemas = {
        1: {"schema": json.dumps(ORDER)},
        2: {"schema": "{}", "schemaType": "JSON"},
        3: {"schema": "", "schemaType": "PROTOBUF"},
    }

    async def schema(request):
        number = int(request.path_params["id"])
        asked.append(number)
        if number == 9:
            return JSONResponse({}, status_code=503)
        found = schemas.get(number)
        return JSONResponse(found or {"error_code": 40403}, status_code=200 if found else 404)

    app = Starlette(routes=[Route("/schemas/ids/{id}", schema)])
    server = WebServer(app, port=0, name="registry")
    async with httpx.AsyncClient(base_url=server.url) as client:
        yield SchemaRegistryDecoder(client), asked
    server.stop()


async def test_avro_becomes_json_and_each_schema_is_fetched_once(registry):
    """Avro's decimals keep their digits, and a known schema is not asked for again."""
    decoder, asked = registry
    for _ in range(3):
        decoded = await decoder.decode(framed(1, avro({"no": "A-1", "total": Decimal("12.50")})))
    assert json.loads(decoded) == {"no": "A-1", "total": "12.50"}
    assert asked == [1]


async def test_framed_json_loses_its_frame(registry):
    """JSON with a schema id in front is the JSON behind it."""
    assert await registry[0].decode(framed(2, b'{"a": 1}')) == b'{"a": 1}'


@pytest.mark.parametrize(
    "body",
    [b"", b'{"a":1}', framed(1, b"\xff"), framed(2, b"{"), framed(3, b""), framed(4, b"")],
)
async def test_what_no_schema_fits_is_a_bad_payload(registry, body):
    """Unframed, misfitting and unknown data are dead-lettered, not retried."""
    with pytest.raises(BadPayloadError):
        await registry[0].decode(body)


async def test_a_registry_that_is_away_dead_letters_nothing(registry):
    """Without the registry a message waits; it is not taken for a bad one."""
    with pytest.raises(UpstreamBusyError):
        await registry[0].decode(framed(9, b""))
    async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as client:
        with pytest.raises(UnreachableError):
            await SchemaRegistryDecoder(client).decode(framed(1, b""))
