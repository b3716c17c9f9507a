"""Every sender's signature is recognised, checked against other implementations; no other is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import Clock, SignatureVerifier
from standardwebhooks import Webhook
from twilio.request_validator import RequestValidator

from blocks.errors import MisconfiguredError, SignatureInvalidError
from tasks.core.intake.webhooks.verifier import SCHEMES, verify

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
URL = "https://hooks.example/in"
# How each was made stands beside it: by the sender's own library or documentation.
VECTORS = json.loads((Path(__file__).parent / "vectors/requests.json").read_text())
SECRETS = {
    "standard-webhooks": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "basic": "user:pass:word",
    "sns": "arn:aws:sns:eu-central-1:123456789012:orders",
    "salesforce": "00D000000000062EAA",
}
SIGNED = [name for name in SCHEMES if name != "none"]


def secret_of(scheme: str) -> str:
    return SECRETS.get(scheme, "s3cret")


def check(
    scheme, *, secrets=None, method="POST", url=URL, headers=(), body=b"", now=NOW, **options
):
    return verify(
        scheme,
        secrets=[secret_of(scheme)] if secrets is None else secrets,
        method=method,
        url=url,
        headers=dict(headers),
        body=body,
        now=now,
        **options,
    )


def of_vector(vector, **changes):
    body = vector["body"].encode() if "body" in vector else base64.b64decode(vector["body_base64"])
    return check(
        vector["scheme"],
        **{
            "secrets": vector["secrets"],
            "method": vector["method"],
            "url": vector["url"],
            "headers": vector["headers"],
            "body": body,
            "now": datetime.fromtimestamp(vector["now"], UTC),
            **vector.get("options", {}),
            **changes,
        },
    )


vectors = pytest.mark.parametrize(
    "vector", VECTORS, ids=[f"{v['scheme']}-{v['made_by'][:30]}" for v in VECTORS]
)


@vectors
def test_accepts_what_others_signed(vector):
    """A request signed by the sender's library, or printed in its documentation, is accepted."""
    assert of_vector(vector).scheme == vector["scheme"]


@vectors
def test_header_names_are_case_insensitive(vector):
    """Header names may come in any case."""
    of_vector(vector, headers={name.upper(): value for name, value in vector["headers"].items()})
    of_vector(vector, headers={name.title(): value for name, value in vector["headers"].items()})


@vectors
def test_refuses_another_body_secret_or_signature(vector):
    """One changed byte of the body, another secret or a shortened signature is refused."""
    body = vector["body"].encode() if "body" in vector else base64.b64decode(vector["body_base64"])
    signature = next(
        name for name in vector["headers"] if "sig" in name.lower() or "hmac" in name.lower()
    )
    other_secret = "whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    for changes in (
        {"body": body + b" "},
        {"secrets": [other_secret]},
        {"headers": {**vector["headers"], signature: vector["headers"][signature][:-1]}},
        {"headers": {**vector["headers"], signature: ""}},
        {"headers": {}},
    ):
        with pytest.raises(SignatureInvalidError):
            of_vector(vector, **changes)


@vectors
def test_accepts_any_of_several_secrets(vector):
    """While a secret is being changed, requests signed with the old and the new one pass."""
    spare = "whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    of_vector(vector, secrets=[spare, *vector["secrets"]])
    of_vector(vector, secrets=[*vector["secrets"], spare])


quickly = settings(max_examples=50, deadline=None)


@quickly
@given(body=st.text(), secret=st.text(min_size=1).filter(str.strip))
def test_agrees_with_stripe(body, secret):
    """What Stripe's library signs is accepted, with the whole secret as key."""
    header = stripe.WebhookSignature.generate_signature_header(body, secret, int(STAMP))
    check("stripe", secrets=[secret], headers={"Stripe-Signature": header}, body=body.encode())
    check(
        "stripe",
        secrets=[secret],
        headers={"Stripe-Signature": f"v0=x,{header},v1=bad"},
        body=body.encode(),
    )


@pytest.mark.parametrize(
    ("offset_s", "tolerance_s", "accepted"),
    [
        (-299, 300, True),
        (-301, 300, False),
        (10_000, 300, True),
        (-15, 10, False),
        (-9e8, None, True),
    ],
)
def test_judges_stripes_time_stamp_as_stripe_does(offset_s, tolerance_s, accepted):
    """Only too old a time stamp is refused, and none is without a tolerance."""
    stamp = int(NOW.timestamp() + offset_s)
    header = stripe.WebhookSignature.generate_signature_header("{}", "whsec_x", stamp)
    arguments = {
        "secrets": ["whsec_x"],
        "headers": {"stripe-signature": header},
        "body": b"{}",
        "tolerance_s": tolerance_s,
    }
    if accepted:
        check("stripe", **arguments)
    else:
        with pytest.raises(SignatureInvalidError, match="off by more than"):
            check("stripe", **arguments)


@pytest.mark.parametrize(
    "header",
    ["", "v1=abc", "t=,v1=abc", "t=now,v1=abc", "t=1,t=2", f"t={STAMP},v0=abc", "t" * 9, ",,=,=="],
)
def test_refuses_malformed_stripe_headers(header):
    """A header without a time stamp, or without a v1 signature, is a refusal and no crash."""
    with pytest.raises(SignatureInvalidError):
        check("stripe", headers={"Stripe-Signature": header}, body=b"{}")


class AtNow(Clock):
    """Slack's clock, stopped."""

    def now(self) -> float:
        return NOW.timestamp()


@quickly
@given(body=st.text(), offset_s=st.sampled_from([-301, -300, 0, 300, 301]))
def test_agrees_with_slack(body, offset_s):
    """Slack's own verifier and this one accept and refuse the same."""
    oracle = SignatureVerifier("s3cret", clock=AtNow())
    stamp = str(int(STAMP) + offset_s)
    headers = {
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": oracle.generate_signature(timestamp=stamp, body=body) or "",
    }
    assert oracle.is_valid_request(body, headers) == accepts("slack", headers, body.encode())


def accepts(scheme, headers, body, **arguments) -> bool:
    try:
        check(scheme, headers=headers, body=body, **arguments)
    except SignatureInvalidError:
        return False
    return True


@quickly
@given(body=st.text(), message_id=st.from_regex(r"\Amsg_[A-Za-z0-9]{1,40}\Z"))
def test_agrees_with_standard_webhooks(body, message_id):
    """What the reference library signs is accepted, with padded and unpadded secrets."""
    for secret in ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"):
        signature = Webhook(secret).sign(message_id, NOW, body)
        found = check(
            "standard-webhooks",
            secrets=[secret],
            headers={
                "webhook-id": message_id,
                "webhook-timestamp": STAMP,
                "webhook-signature": f"v1, v2,x , {signature}",
            },
            body=body.encode(),
        )
        assert found.signed_id == message_id


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "hello"},
        {"webhook-timestamp": str(int(STAMP) + 1)},
        {"webhook-timestamp": str(int(STAMP) - 400)},
        {"webhook-timestamp": str(int(STAMP) + 400)},
        {"webhook-timestamp": "9" * 5000},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,a,b"},
    ],
    ids=str,
)
def test_refuses_broken_standard_webhooks(changes):
    """A missing, changed, old or malformed header is a refusal and no crash."""
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": STAMP,
        "webhook-signature": Webhook(secret_of("standard-webhooks")).sign("msg_1", NOW, "{}"),
    }
    check("standard-webhooks", headers=headers, body=b"{}")
    with pytest.raises(SignatureInvalidError):
        check("standard-webhooks", headers={**headers, **changes}, body=b"{}")


FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


@quickly
@given(
    fields=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5),
    url=st.sampled_from(
        [URL, "http://a.example/x?y=1&z=%20", "https://a.example:8443/x", "https://a.example:443/"]
    ),
    algorithm=st.sampled_from(["HMAC_SHA1", "HMAC_SHA256"]),
)
def test_agrees_with_twilio_on_forms(fields, url, algorithm):
    """What Twilio's library signs is accepted, with either of its two hashes."""
    headers = {
        **FORM,
        "X-Twilio-Signature": RequestValidator("token").compute_signature(url, fields, algorithm),
    }
    if algorithm != "HMAC_SHA1":
        headers["X-Twilio-Webhooks-Signature-Settings"] = f"key=k,algorithm={algorithm}"
    body = urlencode(fields, errors="surrogatepass").encode()
    assert accepts("twilio", headers, body, secrets=["token"], url=url)
    assert not accepts("twilio", headers, body + b"&x=1", secrets=["token"], url=url)


class Repeated:
    """Fields of which one comes twice, as Django hands them to Twilio's library."""

    def __iter__(self):
        return iter(("b", "a"))

    def getlist(self, name):
        return {"a": ["2", "1", "2"], "b": [""]}[name]


def test_twilio_signs_repeated_fields_once_and_sorted():
    """Of a field that comes several times each value counts once."""
    signature = RequestValidator("token").compute_signature(URL, Repeated())
    headers = {**FORM, "X-Twilio-Signature": signature}
    assert accepts("twilio", headers, b"a=2&b=&a=1&a=2", secrets=["token"])


def test_a_form_has_a_limit():
    """More fields than any sender sends are refused and not sorted."""
    headers = {**FORM, "X-Twilio-Signature": "x"}
    with pytest.raises(SignatureInvalidError, match="too many fields"):
        check("twilio", headers=headers, body=b"&a=1" * 1001)


@pytest.mark.parametrize("signed", ["https://a.example/x", "https://a.example:443/x"])
@pytest.mark.parametrize("seen", ["https://a.example/x", "https://a.example:443/x"])
def test_twilio_may_sign_with_or_without_the_port(signed, seen):
    """Twilio is inconsistent about the port; both ways are accepted, as in its own library."""
    signature = RequestValidator("token").compute_signature(signed, {})
    assert accepts("twilio", {"X-Twilio-Signature": signature}, b"", secrets=["token"], url=seen)


def test_twilio_signs_only_the_hash_of_a_json_body():
    """A JSON body is accepted when its hash stands in the signed URL, and only then."""
    body = b'{"a":1}'
    url = f"{URL}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    oracle = RequestValidator("token")
    for signed_url, sent in ((url, body), (url, b"{}"), (URL, body)):
        headers = {
            "Content-Type": "application/json",
            "X-Twilio-Signature": oracle.compute_signature(signed_url, {}),
        }
        expected = signed_url == url and sent == body
        assert accepts("twilio", headers, sent, secrets=["token"], url=signed_url) is expected


def test_hubspot_versions_can_be_narrowed_to_the_one_that_stops_replays():
    """With `versions=["v3"]` an older signature is refused although it fits."""
    old = next(v for v in VECTORS if v["scheme"] == "hubspot" and "'v1" in v["made_by"])
    of_vector(old, versions=["v1"])
    with pytest.raises(SignatureInvalidError):
        of_vector(old, versions=["v3"])


def test_hubspot_never_falls_back_from_a_wrong_v3_signature():
    """A request that shows a v3 signature stands or falls with it."""
    old = next(v for v in VECTORS if v["scheme"] == "hubspot" and "'v1" in v["made_by"])
    headers = {
        **old["headers"],
        "X-HubSpot-Signature-v3": "bad",
        "X-HubSpot-Request-Timestamp": str(old["now"] * 1000),
    }
    with pytest.raises(SignatureInvalidError):
        of_vector(old, headers=headers)


def authorization(kind: str, credential: str) -> dict[str, str]:
    if kind == "basic":
        credential = base64.b64encode(credential.encode()).decode()
    return {"Authorization": f"{kind.title()} {credential}"}


@pytest.mark.parametrize(
    ("scheme", "secret", "headers"),
    [
        ("basic", "user:pass:word", authorization("basic", "user:pass:word")),
        ("basic", "ü:ß", authorization("basic", "ü:ß")),
        ("basic", "password", authorization("basic", "whoever:password")),
        ("bearer", "tok-en", authorization("bearer", "tok-en")),
        ("bearer", "tok-en", {"authorization": "bearer  tok-en "}),
        ("api-key", "key", {"X-Api-Key": "key"}),
    ],
)
def test_accepts_credentials(scheme, secret, headers):
    """The right credential passes, also with a colon in the password."""
    assert accepts(scheme, headers, b"any", secrets=["other", secret])


@pytest.mark.parametrize(
    ("scheme", "headers"),
    [
        ("basic", authorization("basic", "user:pass")),
        ("basic", authorization("basic", "user")),
        ("basic", {"Authorization": "Basic !!!"}),
        ("basic", {"Authorization": "Basic"}),
        ("basic", authorization("bearer", "user:pass:word")),
        ("bearer", authorization("bearer", "")),
        ("bearer", authorization("basic", "s3cret")),
        ("api-key", {"X-API-Key": ""}),
        ("api-key", {"X-API-Key": "s3cre"}),
        ("api-key", {"X-Other": "s3cret"}),
    ],
)
def test_refuses_wrong_credentials(scheme, headers):
    """A wrong, missing or malformed credential is refused."""
    with pytest.raises(SignatureInvalidError):
        check(scheme, headers=headers)


def test_hmac_can_sign_time_and_id_too():
    """A declared message with time stamp and id makes both part of what is verified."""
    message = b"7|1795489200000|hello"
    options = {
        "header": "X-Sig",
        "message": "{id}|{timestamp}|{body}",
        "timestamp_header": "X-Time",
        "timestamp_unit": "ms",
        "id_header": "X-Id",
    }
    headers = {
        "x-sig": hmac.new(b"s3cret", message, "sha256").hexdigest().upper(),
        "x-time": "1795489200000",
        "x-id": "7",
    }
    now = datetime.fromtimestamp(1795489200, UTC)
    found = check("hmac", headers=headers, body=b"hello", now=now, **options)
    assert found.signed_id == "7"
    for late, changed in ((301, {}), (0, {"x-id": "8"}), (0, {"x-time": "1795489200001"})):
        with pytest.raises(SignatureInvalidError):
            check(
                "hmac",
                headers={**headers, **changed},
                body=b"hello",
                now=now + timedelta(seconds=late),
                **options,
            )


@pytest.mark.parametrize(
    ("scheme", "arguments", "says"),
    [
        ("nosuch", {}, "take one of github"),
        ("github", {"secrets": []}, "no secret"),
        ("github", {"secrets": [" "]}, "is empty"),
        ("github", {"secrets": "s3cret"}, "list of one"),
        ("github", {"tolerance_s": 1}, "tolerance_s"),
        ("slack", {"tolerance_s": -1}, "greater than 0"),
        ("hmac", {"algorithm": "md5"}, "sha512"),
        ("hmac", {"message": "{id}"}, "both or neither"),
        ("hmac", {"message": "{secret}{body}"}, "may hold"),
        ("hmac", {"message": "{body"}, "may hold"),
        ("hmac", {"message": "{timestamp}", "timestamp_header": "x"}, "leaves the body out"),
        ("hmac", {"timestamp_header": "x"}, "both or neither"),
        ("standard-webhooks", {"secrets": ["whsec_%%"]}, "base64"),
        ("standard-webhooks", {"secrets": ["whsk_AAAA"]}, "private key"),
        ("standard-webhooks", {"secrets": ["whpk_AAAA"]}, "32 bytes"),
        ("sns", {"secrets": []}, "topic_arns"),
        ("salesforce", {"secrets": []}, "organization_ids"),
        ("hubspot", {"versions": []}, "versions"),
    ],
)
def test_names_what_is_misconfigured(scheme, arguments, says):
    """With secrets or options that cannot work the error is ours, and says what to do."""
    with pytest.raises(MisconfiguredError, match=says):
        check(scheme, **arguments)


def test_refuses_a_naive_now():
    """An instant without a zone is a bug of the caller."""
    with pytest.raises(ValueError, match="aware"):
        check("github", now=NOW.replace(tzinfo=None))


def test_errors_tell_no_secrets():
    """Neither the secret nor the body nor the URL's query stands in the error, pickled or not."""
    with pytest.raises(SignatureInvalidError) as caught:
        check(
            "square",
            url=f"{URL}?token=q",
            headers={"x-square-hmacsha256-signature": "x"},
            body=b"bbb",
        )
    text = str(pickle.loads(pickle.dumps(caught.value)))
    assert "s3cret" not in text
    assert "bbb" not in text
    assert "token" not in text


HEADER_NAMES = [
    "x-hub-signature-256", "x-slack-signature", "x-slack-request-timestamp", "stripe-signature",
    "x-shopify-hmac-sha256", "webhook-id", "webhook-timestamp", "webhook-signature",
    "svix-signature", "x-twilio-signature", "x-twilio-webhooks-signature-settings",
    "x-hubspot-signature-v3", "x-hubspot-request-timestamp", "x-hubspot-signature",
    "x-hubspot-signature-version", "x-square-hmacsha256-signature", "x-dropbox-signature",
    "x-signature", "authorization", "x-api-key", "content-type", "x-other",
]  # fmt: skip
HEADER_VALUES = st.one_of(
    st.text(),
    st.sampled_from(
        [
            STAMP, STAMP + "000", "v1", "v2", "sha256=", "v0=", f"t={STAMP},v1=", "v1,AA", "v1a,AA",
            "Basic Og==", "Basic", "Bearer ", "application/x-www-form-urlencoded", "٣", "-1",
            "1e9", "algorithm=HMAC_SHA256", "\ud800", "sha256=\ud800", "a" * 64,
        ]
    ),
)  # fmt: skip
ALMOST_SNS = (
    b'{"Type":"Notification","Message":"","MessageId":"","Timestamp":"","TopicArn":'
    b'"arn:aws:sns:eu-central-1:123456789012:orders","SignatureVersion":"1",'
    b'"Signature":"%%","SigningCertURL":"https://evil.example/x.pem"}'
)
ALMOST_SALESFORCE = (
    b'<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><notifications '
    b'xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>00D</OrganizationId>'
    b"</notifications></Body></Envelope>"
)
BODIES = st.one_of(
    st.binary(),
    st.sampled_from(
        [
            ALMOST_SNS, ALMOST_SALESFORCE, b"{}", b"[]", b"null", b'{"Type":[]}', b"payload=%7B",
            b'{"Type":"Notification"}', b"<a/>", b"\xff\xfe<\0a\0", b"<!DOCTYPE a>", b"&" * 2000,
        ]
    ),
)  # fmt: skip
URLS = st.one_of(
    st.text(),
    st.sampled_from(
        [URL, "http://[", "https://a:99999999/", f"{URL}?challenge=", "?bodySHA256=\ud800"]
    ),
)


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("scheme", SIGNED)
@given(
    method=st.sampled_from(["POST", "GET", "put", ""]),
    url=URLS,
    headers=st.dictionaries(st.sampled_from(HEADER_NAMES) | st.text(), HEADER_VALUES),
    body=BODIES,
)
def test_whatever_is_not_authentic_raises_one_error(scheme, method, url, headers, body):
    """Arbitrary methods, URLs, headers and bodies end in `SignatureInvalidError`, nothing else."""
    if scheme == "dropbox" and method == "GET":
        method = "POST"  # its challenge is unsigned by design
    with pytest.raises(SignatureInvalidError):
        check(scheme, method=method, url=url, headers=headers, body=body)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("?challenge=abc", b"abc"),
        ("?x=1&challenge=a%20%C3%BC&challenge=b", "a ü".encode()),
        ("?challenge=\ud800", b"?"),
        ("?challenge=", None),
        ("?challenge=" + "a" * 1001, None),
        ("?other=1", None),
        ("", None),
        ("?challenge=a" + "&a" * 1001, None),
    ],
)
def test_dropbox_challenges_are_answered_or_refused(query, answer):
    """A GET is answered with its challenge as plain text when it has one, and refused otherwise."""
    if answer is None:
        with pytest.raises(SignatureInvalidError):
            check("dropbox", method="GET", url=URL + query)
        return
    found = check("dropbox", method="GET", url=URL + query)
    assert found.handshake is not None
    assert found.handshake.acknowledgement.body == answer
    assert found.handshake.acknowledgement.content_type.startswith("text/plain")
    assert found.read_events() == ()
