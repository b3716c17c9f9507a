"""Requests rendered from declared templates: values stay what they are, and nothing gets out."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.errors import BadPayloadError, UpstreamRejectedError
from blocks.http_api import HttpApi
from sandbox.systems.scripted_api import ScriptedReply
from tasks.api import open_api
from tasks.core.connectors.http.templated_request import (
    RequestTemplate,
    compile_request,
    send_request,
)

ORDER = {
    "order_no": "SO 1/2",
    "customer": "Ann",
    "paid": True,
    "total": 3.5,
    "phone": None,
    "lines": [{"sku": "A", "quantity": 2}, {"sku": "B", "quantity": 1}],
    "items": "a field named as a method",
}


def render(values=None, **template):
    request = compile_request(RequestTemplate(**{"path": "x", **template}))
    return request.render({"data": ORDER} if values is None else values, record="SO 1/2")


def body(template, **options):
    return orjson.loads(render(body=template, **options).content)


def test_values_keep_their_kind():
    """A text that is one expression becomes the value itself; others become text."""
    assert body(
        {
            "number": "${data.total}",
            "flag": "${data.paid}",
            "nothing": "${data.phone}",
            "list": "${data.lines}",
            "text": "${data.customer}: ${data.total}, ${data.paid}",
            "constant": 7,
            "sum": "${data.total * 2 + 1}",
            "comparison": "${data.customer == 'Ann'}",
            "named as a method": "${data.items}",
            "filtered": "${data.lines | map(attribute='sku') | join('+')}",
        }
    ) == {
        "number": 3.5,
        "flag": True,
        "nothing": None,
        "list": ORDER["lines"],
        "text": "Ann: 3.5, true",
        "constant": 7,
        "sum": 8.0,
        "comparison": True,
        "named as a method": "a field named as a method",
        "filtered": "A+B",
    }


def test_loop_makes_a_list():
    """`$for` and `$each` map a list, in which the outer values are seen too."""
    template = {
        "$for": "line in data.lines",
        "$each": {"article": "${line.sku}", "pieces": "${line.quantity}", "of": "${data.customer}"},
    }
    assert body({"parcels": template})["parcels"] == [
        {"article": "A", "pieces": 2, "of": "Ann"},
        {"article": "B", "pieces": 1, "of": "Ann"},
    ]


def test_null_is_left_out_on_request():
    """`omit_null` leaves out fields that are null, at every depth."""
    template = {"phone": "${data.phone}", "deep": [{"phone": "${data.phone}", "a": 1}]}
    assert body(template, omit_null=True) == {"deep": [{"a": 1}]}


def test_path_quotes_its_values_and_nothing_else():
    """A business key is one part of the path, whatever characters it has."""
    assert render(path="orders/${data.order_no}/lines").path == "orders/SO%201%2F2/lines"
    assert render({"key": "ä?#%"}, path="a/${key}").path == "a/%C3%A4%3F%23%25"


@pytest.mark.parametrize("key", ["", ".", "..", None])
def test_path_part_that_would_lead_elsewhere_is_refused(key):
    """An empty key or a dot changes no address."""
    with pytest.raises(BadPayloadError, match="request template: render 'SO 1/2': path: "):
        render({"key": key}, path="orders/${key}")


def test_query_and_headers_are_rendered():
    """Query parameters keep null, which is left out of the address; headers are text."""
    rendered = render(
        query={"page": "${data.phone}", "of": "${data.customer}"},
        headers={"X-Order": "no ${data.total}"},
    )
    assert dict(rendered.query) == {"page": None, "of": "Ann"}
    assert dict(rendered.headers) == {"X-Order": "no 3.5"}


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "ä", "\0"])
def test_header_cannot_be_split(value):
    """A value with a line break or what headers cannot carry is refused, not sent."""
    with pytest.raises(BadPayloadError, match="only printable ASCII"):
        render({"v": value}, headers={"X-Name": "${v}"})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("${data.adress}", "body.x: 'dict object' has no attribute 'adress'"),
        ("to ${data.adress.town}", "body.x: 'dict object' has no attribute 'adress'"),
        ("${nothing}", "body.x: 'nothing' is undefined"),
        ("no ${data.phone}", "body.x: null cannot stand in a text"),
        ("${data.customer + 1}", r"body.x: cannot be made of such values \(TypeError\)"),
        ("${data.customer * 1000000000}", r"cannot be made of such values \(TypeError\)"),
        ("${9 ** 9 ** 9}", r"cannot be made of such values \(TypeError\)"),
        ("${data.lines | map(attribute='sku')}", "body holds what JSON has not"),
        ({"$for": "line in data.customer", "$each": 1}, "cannot be made of such values"),
    ],
)
def test_missing_value_is_an_error_that_names_its_place(template, message):
    """What cannot be rendered is said by place and name, never by value, and is never empty."""
    with pytest.raises(BadPayloadError, match=message) as raised:
        render(body={"x": template})
    assert "Ann" not in str(raised.value)


@pytest.mark.parametrize(
    "template",
    [
        "${data.}",
        "${data.x | attr('y')}",
        "${data.x | tojson}",
        "${data.upper()}",
        "${range(3)}",
        "{% for x in data %}a{% endfor %}",
        "{% include 'x' %}",
        {"$for": "data.lines", "$each": 1},
        {"$for": "line in data.lines"},
        {"$each": 1},
        {"$for": "line in data.lines", "$each": 1, "more": 1},
    ],
)
def test_template_that_could_not_be_rendered_is_refused_when_it_is_declared(template):
    """Syntax errors, calls, statements and unknown filters fail the deployment's parameters."""
    with pytest.raises(ValidationError, match=r"body\.x"):
        RequestTemplate(path="x", body={"x": template})


@pytest.mark.parametrize(
    "expression",
    [
        "data.__class__",
        "data['__class__']",
        "data.customer.format",
        "data.lines.append",
        "data.lines.__len__",
        "''.__class__.__mro__",
        "data.lines | map(attribute='__class__') | list",
    ],
)
def test_expression_sees_values_only(expression):
    """No attribute of Python's objects is in reach, by whatever way."""
    with pytest.raises(BadPayloadError, match=r"has no attribute|no element|JSON has not"):
        render(body={"x": f"${{{expression}}}"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_any_value_arrives_unchanged(value):
    """Whatever stands in a record, also template syntax, is a value and never a template."""
    assert orjson.loads(render({"v": value}, body={"x": "${v}"}).content) == {"x": value}


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
def test_any_key_stays_one_part_of_the_path(key):
    """No key adds a part, a query or a fragment to the path."""
    path = render({"v": key}, path="a/${v}/b").path
    assert path.count("/") == 2
    assert not set("?#") & set(path)


def test_request_is_sent_and_its_answer_mapped(scripted_api):
    """The rendered request goes out under its key, and the named fields come back."""
    scripted_api.answer(ScriptedReply({"shipment": {"id": 7}}, status=201))
    template = RequestTemplate(
        method="PUT",
        path="shipments/${data.order_no}",
        body={"to": "${data.customer}"},
        response={"id": "shipment.id"},
    )
    with open_api(HttpApi(base_url=f"{scripted_api.url}/v1")) as api:
        found = send_request(
            api, compile_request(template), {"data": ORDER}, idempotency_key="k", record="SO 1/2"
        )
    assert found == {"id": 7}
    [request] = scripted_api.requests
    assert (request.method, request.path) == ("PUT", "/v1/shipments/SO%201%2F2")
    assert request.headers["idempotency-key"] == "k"
    assert orjson.loads(request.body) == {"to": "Ann"}


def test_refusal_that_is_fine_is_no_error(scripted_api):
    """A declared refusal counts as success without an answer; another one is raised."""
    gone = ScriptedReply(
        {"message": "it is gone"}, status=410, headers={"Content-Type": "application/json"}
    )
    scripted_api.answer(ScriptedReply(status=404), gone)
    template = RequestTemplate(
        method="DELETE", path="x", fine_statuses=[404], response={"id": "id"}
    )
    with open_api(HttpApi(base_url=scripted_api.url)) as api:
        sent = {"values": {}, "idempotency_key": "k", "record": "r"}
        assert send_request(api, compile_request(template), **sent) == {}
        with pytest.raises(UpstreamRejectedError) as raised:
            send_request(api, compile_request(template), **sent)
    assert raised.value.explained.endswith("correct the request; it says: it is gone")


def test_api_without_idempotency_keys_gets_none(scripted_api):
    """A template that says so sends no key."""
    scripted_api.answer(ScriptedReply())
    template = RequestTemplate(path="x", body={}, takes_idempotency_key=False)
    with open_api(HttpApi(base_url=scripted_api.url)) as api:
        send_request(api, compile_request(template), {}, idempotency_key="k", record="r")
    assert "idempotency-key" not in scripted_api.requests[0].headers
