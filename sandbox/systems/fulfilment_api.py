"""A logistics company's API on the loopback: takes shipments by the shop's order number.

PUT    /v1/shipments/{reference}    {"recipient", "value", "currency", "parcels": [{"sku",
                                    "pieces"}]} → 201, later 200 {"id", "reference", "status"}
DELETE /v1/shipments/{reference}    204, or 404
GET    /v1/shipments                {"shipments": […]}
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.systems.partner_api import PartnerApi, invalid, problem, serving

_FIRST_ID = 100_001
_ONE = "/shipments/{reference:path}"


class Parcel(BaseModel):
    """So many pieces of one article."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sku: str = Field(min_length=1)
    pieces: int = Field(gt=0)


class Shipment(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    recipient: str = Field(min_length=1)
    value: str = Field(pattern=r"^[0-9]+(\.[0-9]+)?$")
    currency: Literal["EUR", "GBP", "USD"]
    parcels: list[Parcel] = Field(min_length=1)


class FulfilmentSandbox(PartnerApi):
    """A running API.

    Attributes:
        shipments: What is to be shipped, by reference.
        not_shipped: Articles that are refused.
    """

    name = "fulfilment"
    base_path = "/v1"

    def __init__(self) -> None:
        super().__init__()
        self.shipments: dict[str, dict[str, Any]] = {}
        self.not_shipped = {"lithium-battery"}
        self._ids = count(_FIRST_ID)

    def routes(self) -> list[Route]:
        """As the module says."""
        return [
            self.route("PUT", _ONE, self._put, needs_key=True),
            self.route("DELETE", _ONE, self._delete, needs_key=True),
            self.route("GET", "/shipments", self._list),
        ]

    def _put(self, request: Request, body: bytes) -> Response:
        try:
            shipment = Shipment.model_validate_json(body)
        except ValidationError as exc:
            return invalid(exc, "the shipment is not valid")
        refused = sorted(self.not_shipped & {each.sku for each in shipment.parcels})
        if refused:
            return problem(422, f"{', '.join(refused)} cannot be sent by parcel service")
        reference = request.path_params["reference"]
        known = self.shipments.get(reference)
        id_ = known["id"] if known else f"F-{next(self._ids)}"
        shown = {"id": id_, "reference": reference, "status": "accepted", **shipment.model_dump()}
        self.shipments[reference] = shown
        return JSONResponse(shown, 200 if known else 201)

    def _delete(self, request: Request, _body: bytes) -> Response:
        if self.shipments.pop(request.path_params["reference"], None) is None:
            return problem(404, "there is no such shipment")
        return Response(status_code=204)

    def _list(self, _request: Request, _body: bytes) -> Response:
        return JSONResponse({"shipments": list(self.shipments.values())})


@contextmanager
def start(*, port: int = 0) -> Iterator[FulfilmentSandbox]:
    """Serve until the block ends."""
    sandbox = FulfilmentSandbox()
    with serving(sandbox, port=port):
        yield sandbox
