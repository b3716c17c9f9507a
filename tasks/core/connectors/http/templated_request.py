"""Declared requests: path, query, headers and body as templates.

    method: PUT
    path: shipments/${data.order_no}
    body:
      recipient: ${data.customer}
      express: ${data.priority == "high"}
      parcels:
        $for: line in data.lines
        $each: {sku: "${line.sku}", pieces: "${line.quantity}"}
    response: {shipment_id: id}

`${` and `}` enclose a Jinja expression over the given values. A text that is a single expression
becomes its value, so a number stays a number; any other text stays a text. In the path, each value
is quoted as one segment. Expressions see only the values and call only the filters below; an
unknown name is an error, never an empty text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jinja2
import orjson
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, model_validator

from blocks.errors import BadPayloadError, PermanentError, UpstreamRejectedError
from tasks.core.connectors.http import response_fields
from tasks.core.connectors.http.client import ApiClient, path_segment
from tasks.core.connectors.http.errors import Where

_FILTERS = (
    "abs", "capitalize", "default", "first", "float", "int", "join", "last", "length", "list",
    "lower", "map", "replace", "round", "sort", "string", "sum", "title", "trim", "truncate",
    "unique", "upper",
)  # fmt: skip
_ONE_EXPRESSION = re.compile(r"\$\{([^{}]*)\}", re.DOTALL)
_LOOP = re.compile(r"([A-Za-z_]\w*) in (.+)", re.DOTALL)
_LARGEST_BODY_BYTES = 4 * 1024 * 1024

Values = Mapping[str, Any]
Render = Callable[[Values], Any]


class RequestTemplate(BaseModel):
    """A request as a deployment declares it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(
        "POST", description="The HTTP method."
    )
    path: str = Field(description="Relative to the block's base URL, e.g. orders/${data.order_no}.")
    query: dict[str, str] = Field({}, description="Query parameters; null values are left out.")
    headers: dict[str, str] = Field({}, description="Extra headers; credentials go in the block.")
    body: Any = Field(
        None,
        description="JSON with templates as texts; {$for: x in list, $each: …} makes a list.",
    )
    omit_null: bool = Field(False, description="Leave out the body's fields that are null.")
    takes_idempotency_key: bool = Field(
        True,
        description="Whether the API honours the Idempotency-Key. If not, a POST that may have "
        "been carried out is not repeated.",
    )
    fine_statuses: list[int] = Field(
        [], description="Refusals that count as success, e.g. 404 for a deletion."
    )
    response: dict[str, str] = Field(
        {}, description="What to take from the response: name to dotted path, e.g. {id: data.id}."
    )

    @model_validator(mode="after")
    def _can_be_rendered(self) -> RequestTemplate:
        compile_request(self)
        return self


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request ready to be sent.

    Attributes:
        content: The body as JSON; None for none.
    """

    method: str
    path: str
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    content: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class CompiledRequest:
    """A compiled template that can be rendered many times; threads may share it."""

    template: RequestTemplate
    _path: Render
    _query: Mapping[str, Render]
    _headers: Mapping[str, Render]
    _body: Render

    def render(self, values: Values, *, record: str | None = None) -> RenderedRequest:
        """Fill in the values.

        Args:
            values: Name to JSON value, as the expressions name them.
            record: The record concerned, for errors.

        Raises:
            BadPayloadError: A value is missing or of the wrong kind; the message shows no values.
        """
        where = Where(system="request template", operation="render", record=record)
        query = {
            name: _rendered(f"query.{name}", render, values, where)
            for name, render in self._query.items()
        }
        headers = {
            name: _header(name, _rendered(f"headers.{name}", render, values, where), where)
            for name, render in self._headers.items()
        }
        content = None
        if self.template.body is not None:
            body = _rendered("body", self._body, values, where)
            content = _encoded(_without_null(body) if self.template.omit_null else body, where)
            if len(content) > _LARGEST_BODY_BYTES:
                raise BadPayloadError(f"body is larger than {_LARGEST_BODY_BYTES} bytes", **where)
        path = _rendered("path", self._path, values, where)
        return RenderedRequest(self.template.method, path, query, headers, content)


def compile_request(template: RequestTemplate) -> CompiledRequest:
    """Compile a template.

    Raises:
        ValueError: An expression cannot be parsed, uses an unknown filter, or the like.
    """
    return CompiledRequest(
        template,
        _path=_text("path", template.path, _PATH_ENVIRONMENT),
        _query={name: _value(f"query.{name}", text) for name, text in template.query.items()},
        _headers={
            name: _text(f"headers.{name}", text, _ENVIRONMENT)
            for name, text in template.headers.items()
        },
        _body=_document("body", template.body),
    )


def send_request(
    api: ApiClient,
    request: CompiledRequest,
    values: Values,
    *,
    idempotency_key: str,
    record: str,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Render a request, send it, and take from the response what the template names.

    Args:
        api: Where to send it.
        request: From `compile_request`.
        values: Name to JSON value, as the expressions name them.
        idempotency_key: The same for the same effect.
        record: The record concerned, for errors.
        headers: Extra headers, which override the template's.

    Returns:
        Name to value, as `response` of the template says; empty if the request is refused with
        one of `fine_statuses`.

    Raises:
        BadPayloadError: A value is missing, or the response lacks what the template takes.
        UpstreamRejectedError: It is refused; `said` has the reason.
        IntegrationError: As in `ApiClient.call`.
    """
    rendered = request.render(values, record=record)
    template = request.template
    try:
        answer = api.call(
            rendered.method,
            rendered.path,
            params=rendered.query,
            content=rendered.content,
            headers={**rendered.headers, **(headers or {})},
            idempotency_key=idempotency_key if template.takes_idempotency_key else None,
            record=record,
        )
    except UpstreamRejectedError as error:
        if error.status in template.fine_statuses:
            return {}
        raise
    if not template.response:
        return {}
    body = answer.json()
    return {
        name: response_fields.field(body, path, answer.where)
        for name, path in template.response.items()
    }


class _Environment(ImmutableSandboxedEnvironment):
    """Evaluates expressions over plain values, in bounded memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply numbers only: a text times a number may fill the memory."""
        if operator == "**" or not all(isinstance(each, (int, float)) for each in (left, right)):
            raise TypeError("* is for numbers, and ** is not offered")
        return super().call_binop(context, operator, left, right)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return a field of an object or an item of a list; methods are out of reach."""
        if isinstance(obj, jinja2.Undefined):
            str(obj)  # a strict one tells its own name in an error
        if isinstance(obj, (dict, list)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        return self.undefined(obj=obj, name=argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As `getitem`: "a.b" and "a['b']" are the same."""
        return self.getitem(obj, attribute)


def _environment(finalize: Callable[[Any], Any] | None) -> _Environment:
    made = _Environment(
        variable_start_string="${",
        variable_end_string="}",
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    made.globals.clear()
    made.filters = {name: made.filters[name] for name in _FILTERS}
    return made


def _shown(value: Any) -> Any:
    """Return a value for use inside a text: booleans as in JSON; null is an error."""
    if value is None:
        raise jinja2.UndefinedError("null cannot stand in a text; write ${… | default('', true)}")
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


_ENVIRONMENT = _environment(_shown)
_PATH_ENVIRONMENT = _environment(lambda value: path_segment(str(_shown(value))))


def _document(place: str, template: Any) -> Render:
    if isinstance(template, str):
        return _value(place, template)
    if isinstance(template, list):
        parts = [_document(f"{place}.{number}", each) for number, each in enumerate(template)]
        return lambda values: [render(values) for render in parts]
    if isinstance(template, Mapping):
        if "$for" in template or "$each" in template:
            return _loop(place, template)
        fields = {name: _document(f"{place}.{name}", each) for name, each in template.items()}
        return lambda values: {
            name: _at(f"{place}.{name}", render, values) for name, render in fields.items()
        }
    return lambda _values: template


def _loop(place: str, template: Mapping[str, Any]) -> Render:
    named = _LOOP.fullmatch(str(template.get("$for", "")))
    if set(template) != {"$for", "$each"} or named is None:
        raise ValueError(f"{place}: a loop is written {{$for: name in list, $each: …}}")
    name, render_list = named[1], _expression(place, named[2])
    render_each = _document(f"{place}.$each", template["$each"])

    def render(values: Values) -> list[Any]:
        found = render_list(values)
        if not isinstance(found, list):
            raise TypeError(f"{named[2]} is no list")
        return [render_each({**values, name: each}) for each in found]

    return render


def _value(place: str, template: str) -> Render:
    """Return a text's value if it is a single expression, else the text."""
    alone = _ONE_EXPRESSION.fullmatch(template.strip())
    return _expression(place, alone[1]) if alone else _text(place, template, _ENVIRONMENT)


def _expression(place: str, source: str) -> Render:
    _check(place, f"${{{source}}}", _ENVIRONMENT)
    evaluate = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)

    def render(values: Values) -> Any:
        value = evaluate(**values)
        if isinstance(value, jinja2.Undefined):
            str(value)  # a strict one tells its name in an error
        return value

    return render


def _text(place: str, source: str, environment: _Environment) -> Render:
    _check(place, source, environment)
    template = environment.from_string(source)
    return lambda values: template.render(**values)


def _check(place: str, source: str, environment: _Environment) -> None:
    try:
        parsed = environment.parse(source)
        environment.compile(source)
    except jinja2.TemplateSyntaxError as exc:
        raise ValueError(f"{place}: {exc.message}") from exc
    if not all(isinstance(node, nodes.Output) for node in parsed.body):
        raise ValueError(f"{place}: only expressions are offered, no statements")
    if next(parsed.find_all(nodes.Call), None) is not None:
        raise ValueError(f"{place}: calls are not offered; filters are: {', '.join(_FILTERS)}")


def _rendered(place: str, render: Render, values: Values, where: Where) -> Any:
    try:
        return _at(place, render, values)
    except _RenderError as exc:
        raise BadPayloadError(
            f"{exc}; correct the template in the deployment's parameters, or the record", **where
        ) from None


class _RenderError(Exception):
    """Says where in the template something is wrong, and what."""


def _at(place: str, render: Render, values: Values) -> Any:
    try:
        return render(values)
    except _RenderError:
        raise
    except (jinja2.UndefinedError, PermanentError) as exc:
        message = exc.message
    except Exception as exc:  # noqa: BLE001 - whatever a filter makes of a value it is not for
        message = f"cannot be made of such values ({type(exc).__name__})"
    raise _RenderError(f"{place}: {message}")


def _encoded(body: Any, where: Where) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as exc:
        raise BadPayloadError(
            "body holds what JSON has not; end expressions that make lists with | list", **where
        ) from exc


def _header(name: str, value: str, where: Where) -> str:
    if value.isascii() and value.isprintable():
        return value
    raise BadPayloadError(f"headers.{name}: only printable ASCII can be sent in a header", **where)


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value
