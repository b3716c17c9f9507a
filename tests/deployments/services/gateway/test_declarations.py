"""Endpoints are declared beside their flows; what is wrong is told so that it can be mended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blocks.errors import MisconfiguredError
from deployments.services.gateway.endpoints import UnusableEndpoint, make_endpoints
from tasks.core.registry.declarations import declaration_files, read_declarations

GOOD = """
integration: shop_orders
endpoints:
  shop:
    path: /webhooks/shop
    scheme: hmac
    options: {header: X-Shop-Signature, encoding: base64}
    secrets: {env: SHOP_SECRET, files: [/run/secrets/shop]}
    feeds: shop-orders
    event_type: field:event
    dedup: [field:id, header:X-Shop-Id]
    ordering_key: field:customer.id
    events: [order.created]
    max_body_bytes: 20000
    allowed_ips: [192.0.2.0/24, "2001:db8::/32"]
    response: receipt
    methods: [POST, PUT]
"""


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def test_every_field_can_be_declared(tmp_path):
    """A declaration that uses everything becomes an endpoint that says the same."""
    declared = read_declarations([write(tmp_path, "integration.yaml", GOOD)])
    (endpoint,) = make_endpoints(declared, {"SHOP_SECRET": "s"})
    assert (endpoint.integration, endpoint.name) == ("shop_orders", "shop")
    assert endpoint.methods == {"POST", "PUT"}
    assert endpoint.events == {"order.created"}
    assert (endpoint.max_body_bytes, endpoint.response) == (20000, "receipt")
    assert [str(network) for network in endpoint.allowed_ips] == ["192.0.2.0/24", "2001:db8::/32"]


def test_endpoints_of_one_integration_can_feed_several_flows(tmp_path):
    """Deliveries of an endpoint with a queue of its own wait there."""
    text = GOOD + "    queue: shop_orders_import\n"
    (endpoint,) = make_endpoints(
        read_declarations([write(tmp_path, "integration.yaml", text)]), {"SHOP_SECRET": "s"}
    )
    assert endpoint.integration == "shop_orders_import"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("scheme: hmac", "scheme: hmca"), "endpoints.shop.scheme.*must be one of github"),
        (("path: /webhooks/shop", "path: webhooks"), "endpoints.shop.path.*must begin with /"),
        (("path: /webhooks/shop", "path: /metrics"), "endpoints.shop.path.*none of /healthz"),
        (("path: /webhooks/shop", "path: '/a?b=c'"), "endpoints.shop.path"),
        (("dedup:", "deduplicate:"), "endpoints.shop.deduplicate.*not permitted"),
        (("20000", "999999999"), "endpoints.shop.max_body_bytes.*less than or equal"),
        (("192.0.2.0/24", "192.0.2.1/24"), "endpoints.shop.allowed_ips"),
        (("receipt", "teapot"), "endpoints.shop.response.*'receipt'"),
        (("shop_orders", "Shop Orders"), "integration.*small letters"),
        (("  shop:", "  Shop!:"), "endpoints.*small letters"),
        (("endpoints:", "endpoint:"), "endpoint: Extra inputs"),
        (
            (
                "integration: shop_orders",
                "integration: [",
            ),
            "while parsing",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_field(tmp_path, change, says):
    """The error names the file, the field and what may stand there."""
    file = write(tmp_path, "integration.yaml", GOOD.replace(*change))
    with pytest.raises(MisconfiguredError, match=f"(?s){file}.*{says}"):
        read_declarations([file])


def test_all_mistakes_are_told_at_once(tmp_path):
    """Nobody has to start the gateway once a mistake."""
    files = [write(tmp_path, f"{n}.integration.yaml", "integration: 1") for n in range(2)]
    with pytest.raises(MisconfiguredError) as caught:
        read_declarations(files)
    assert all(str(file) in str(caught.value) for file in files)


def test_two_integrations_cannot_have_the_same_name_or_path(tmp_path):
    """A clash names both."""
    files = [
        write(tmp_path, "a.yaml", GOOD),
        write(tmp_path, "b.yaml", GOOD.replace("shop_orders", "other")),
    ]
    with pytest.raises(MisconfiguredError, match="shop_orders and by other"):
        read_declarations(files)


def test_each_integration_brings_its_own_file(tmp_path):
    """A package has integration.yaml inside, a module has one beside it named after it."""
    inside = write(tmp_path, "orders/integration.yaml", GOOD)
    beside = write(tmp_path, "stock_updates.integration.yaml", GOOD)
    write(tmp_path, "orders/other.yaml", GOOD)
    assert declaration_files(str(tmp_path)) == [inside, beside]
    assert declaration_files(os.pathsep.join(map(str, (beside, inside)))) == [beside, inside]


def test_a_place_that_does_not_exist_is_misconfigured(tmp_path):
    """A misspelt folder is no empty one."""
    with pytest.raises(MisconfiguredError, match="INTEGRATIONS_ENDPOINTS"):
        declaration_files(str(tmp_path / "nowhere"))


def test_the_shipped_declarations_are_right():
    """Every endpoint that the repository ships can be read and made."""
    environment = dict.fromkeys(["X"], "x")
    for each in make_endpoints(read_declarations(declaration_files("")), environment):
        assert not isinstance(each, UnusableEndpoint) or "set " in each.reason


def made(tmp_path: Path, text: str, environment: dict[str, str]):
    return make_endpoints(read_declarations([write(tmp_path, "e.yaml", text)]), environment)


def test_secrets_come_from_files_one_a_line(tmp_path):
    """A mounted file holds old and new secret; missing files and unset variables are skipped."""
    secrets = write(tmp_path, "secrets", "new\n\n old \n")
    text = GOOD.replace("/run/secrets/shop", f"{secrets}, {tmp_path / 'missing'}")
    (endpoint,) = made(tmp_path, text, {})
    assert not isinstance(endpoint, UnusableEndpoint)


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        (GOOD, {}, "set SHOP_SECRET or /run/secrets/shop"),
        (GOOD, {"SHOP_SECRET": " "}, "a secret is empty"),
        (GOOD.replace("hmac", "github"), {"SHOP_SECRET": "s"}, "option header"),
        (GOOD.replace("field:event", "event"), {"SHOP_SECRET": "s"}, "is not a place"),
        (GOOD.replace("webhooks/shop", "${TOKEN}"), {"SHOP_SECRET": "s"}, "set TOKEN"),
        (
            GOOD.replace("webhooks/shop", "${TOKEN}"),
            {"SHOP_SECRET": "s", "TOKEN": "/"},
            "set TOKEN",
        ),
    ],
)
def test_what_only_the_operator_can_give_makes_one_endpoint_unusable(
    tmp_path, text, environment, says
):
    """A missing secret or an unusable option is told and stops no other endpoint."""
    (endpoint,) = made(tmp_path, text, environment)
    assert isinstance(endpoint, UnusableEndpoint)
    assert says in endpoint.reason


def test_paths_may_hold_a_secret_from_the_environment(tmp_path):
    """Senders that sign nothing get a path that nobody guesses."""
    (endpoint,) = made(
        tmp_path, GOOD.replace("/shop\n", "/${TOKEN}\n"), {"SHOP_SECRET": "s", "TOKEN": "u-1~x"}
    )
    assert endpoint.path == "/webhooks/u-1~x"


def test_two_paths_cannot_become_the_same(tmp_path):
    """A clash that only the environment makes is still one."""
    second = (
        GOOD.partition("endpoints:")[2]
        .replace("  shop:", "  two:")
        .replace("/webhooks/shop", "/webhooks/${TOKEN}")
    )
    with pytest.raises(MisconfiguredError, match="same path"):
        made(tmp_path, GOOD + second, {"SHOP_SECRET": "s", "TOKEN": "shop"})
