"""The block for HTTP APIs: what it refuses, how it signs, and that it keeps its secrets."""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from textwrap import dedent

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import ValidationError

from blocks.errors import MisconfiguredError
from blocks.http_api import (
    ApiKeyAuth,
    BasicAuth,
    BearerAuth,
    HttpApi,
    NoAuth,
    OAuth2Client,
    OAuth2RefreshToken,
)
from sandbox.systems import scripted_api as scripted
from sandbox.systems.scripted_api import ScriptedReply

OAUTH = {"token_url": "https://id/token", "client_id": "us", "client_secret": "s3cret"}


class TestHttpApiStandards(BlockStandardTestSuite):
    """Prefect's own rules for blocks."""

    @pytest.fixture
    def block(self):
        return HttpApi

    def test_has_a_documentation_url(self, block):
        """The description stands in the block itself; there is no page elsewhere."""

    def test_has_a_valid_image(self, block):
        """A logo would be fetched from the network whenever the UI shows it: there is none."""
        assert block._logo_url is None


@pytest.mark.parametrize(
    "kind",
    [NoAuth, ApiKeyAuth, BasicAuth, BearerAuth, OAuth2Client, OAuth2RefreshToken],
    ids=lambda kind: kind.__name__,
)
def test_fields_of_credentials_are_described(kind):
    """The form explains every field of every kind of credentials in a sentence."""
    for name, field in kind.model_fields.items():
        assert (field.description or "").endswith("."), name


def test_example_of_the_docstring_runs(own_app):
    """The example reads from an API with the credentials of the block."""
    example = re.search(r"```python\n(.*)```", HttpApi.get_code_example(), re.DOTALL)
    api = HttpApi(base_url=f"{own_app.base_url}/api/v1", auth=ApiKeyAuth(key=own_app.api_key))
    program = dedent(example[1]).replace('HttpApi.load("BLOCK_NAME")', "api")
    assert 'HttpApi.load("BLOCK_NAME")' in example[1]
    outcome = {"api": api}
    exec(program, outcome)
    assert outcome["answer"].json() == {"records": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("base_url", "reason"),
    [
        ("https://bob:s3cret@api.example", "must not hold user and password"),
        ("https://s3cret@api.example", "must not hold user and password"),
        ("https://api.example?key=s3cret", "must not have a query"),
        ("https://api.example#s3cret", "must not have a query or fragment"),
        ("api.example", "must begin with http"),
        ("ftp://api.example", "must begin with http"),
        ("https://", "must begin with http"),
        ("https://h:s3cret", "not a URL"),
    ],
)
def test_address_with_more_than_an_address_is_refused(base_url, reason):
    """User, password and query have no place in the address; the error does not repeat them."""
    with pytest.raises(ValidationError, match=reason) as caught:
        HttpApi(base_url=base_url)
    assert "s3cret" not in str(caught.value)


def test_system_is_the_origin():
    """Errors call the API by scheme, host and port."""
    assert HttpApi(base_url="https://api.example:8443/v1/").system == "https://api.example:8443"
    assert HttpApi(base_url="https://api.example:443/v1").system == "https://api.example"


@pytest.mark.parametrize(
    "auth",
    [
        {"kind": "api_key", "key": "s3cret"},
        {"kind": "basic", "username": "bob", "password": "s3cret"},
        {"kind": "bearer", "token": "s3cret"},
        {"kind": "oauth2_client", **OAUTH},
        {"kind": "oauth2_refresh_token", **OAUTH, "refresh_token": "s3cret"},
    ],
    ids=lambda auth: auth["kind"],
)
def test_secrets_are_hidden(auth):
    """No secret shows in the representation, and Prefect knows each as a secret."""
    api = HttpApi(base_url="https://api.example", auth=auth)
    assert api.auth.kind == auth["kind"]
    assert "s3cret" not in repr(api)
    assert "s3cret" not in str(api.model_dump())
    secrets = {f"auth.{name}" for name, value in auth.items() if value == "s3cret"}
    assert secrets <= set(HttpApi.model_json_schema()["secret_fields"])


def test_credentials_are_told_apart_without_their_kind():
    """A form or a YAML file may leave the kind out."""
    for fields, kind in (
        ({}, NoAuth),
        ({"key": "x"}, ApiKeyAuth),
        ({"username": "x", "password": "x"}, BasicAuth),
        ({"token": "x"}, BearerAuth),
        (OAUTH, OAuth2Client),
        ({**OAUTH, "refresh_token": "x"}, OAuth2RefreshToken),
    ):
        assert type(HttpApi(base_url="https://api.example", auth=fields).auth) is kind


def asked(scripted_api, path="orders?a=1", **fields):
    """What arrives when the block's client asks."""
    scripted_api.answer(ScriptedReply())
    api = HttpApi(base_url=f"{scripted_api.url}/v1", **fields)
    with api.get_client() as client:
        client.get(path)
    return scripted_api.requests[-1]


def test_key_goes_into_its_header(scripted_api):
    """An API key is sent in the header of its name."""
    auth = ApiKeyAuth(key="s3cret", name="X-Token")
    assert asked(scripted_api, auth=auth).headers["x-token"] == "s3cret"


def test_key_may_go_into_the_query(scripted_api):
    """An API key in the query is added to what is there, once."""
    auth = ApiKeyAuth(key="s 3", name="key", send_in="query")
    assert asked(scripted_api, auth=auth).path == "/v1/orders?a=1&key=s+3"
    assert asked(scripted_api, "orders?key=old", auth=auth).path == "/v1/orders?key=s+3"


def test_user_and_password_are_basic_credentials(scripted_api):
    """User and password are sent as UTF-8, letters outside ASCII too."""
    request = asked(scripted_api, auth=BasicAuth(username="jörg", password="a:b"))
    kind, _, pair = request.headers["authorization"].partition(" ")
    assert (kind, b64decode(pair).decode()) == ("Basic", "jörg:a:b")


def test_token_is_a_bearer_token(scripted_api):
    """A token is sent as it is."""
    request = asked(scripted_api, auth=BearerAuth(token="t1"))
    assert request.headers["authorization"] == "Bearer t1"


def test_more_headers_go_with_every_request(scripted_api):
    """Headers of the block are sent; without credentials there is no Authorization."""
    request = asked(scripted_api, headers={"X-Version": "7"})
    assert request.headers["x-version"] == "7"
    assert "authorization" not in request.headers


def test_time_outs_are_set():
    """Connecting has its own time-out, every silence another."""
    api = HttpApi(base_url="https://api.example", connect_timeout_s=3, read_timeout_s=7)
    with api.get_client() as client:
        assert client.timeout == httpx.Timeout(7, connect=3)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1: (certificate file, key file)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def tls_api(certificate):
    """An API whose certificate no public authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with scripted.start(context) as running:
        running.answer(ScriptedReply({"a": 1}))
        yield running


def test_certificates_are_verified(tls_api):
    """A certificate of an unknown authority is refused by default."""
    api = HttpApi(base_url=tls_api.url)
    untrusted = pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED")
    with api.get_client() as client, untrusted:
        client.get("/")
    assert tls_api.requests == []


def test_authority_of_the_company_may_be_trusted(tls_api, certificate):
    """With its authority's file the certificate is accepted."""
    with HttpApi(base_url=tls_api.url, ca_file=str(certificate[0])).get_client() as client:
        assert client.get("/").json() == {"a": 1}


def test_verification_may_be_switched_off(tls_api):
    """The explicit switch accepts any certificate."""
    with HttpApi(base_url=tls_api.url, verify_tls=False).get_client() as client:
        assert client.get("/").json() == {"a": 1}


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_unreadable_authority_is_named(tmp_path, content):
    """A ca_file that is missing or no certificate is an error that names it."""
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(MisconfiguredError, match=r"ca\.pem' cannot be read as PEM"):
        HttpApi(base_url="https://api.example", ca_file=str(ca_file)).get_client()
