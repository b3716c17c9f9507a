"""The table of senders: how each is authenticated, how to read it, and how to respond."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tasks.core.intake.webhooks import credentials, salesforce, sns
from tasks.core.intake.webhooks.form_fields import query_fields
from tasks.core.intake.webhooks.options import (
    ApiKeyOptions,
    HmacOptions,
    HubspotOptions,
    NoOptions,
    SalesforceOptions,
    SnsOptions,
    ToleranceOptions,
)
from tasks.core.intake.webhooks.reading import SIGNED_ID, ReadEvents, Reading, dropbox_events
from tasks.core.intake.webhooks.request import (
    Acknowledgement,
    Authenticate,
    Handshake,
    Proof,
    WebhookRequest,
    misconfigured,
    unauthentic,
)
from tasks.core.intake.webhooks.signature_spec import (
    SignatureAuthenticator,
    SignatureSpec,
    choose_by_header,
    first_that_accepts,
)
from tasks.core.intake.webhooks.signed_urls import as_hubspot_signs_it, with_and_without_port

_MAX_CHALLENGE_LENGTH = 1000
_OK = Acknowledgement()
_NO_MESSAGES = Acknowledgement(b"<Response/>", "text/xml; charset=utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The specifics of one kind of sender.

    Attributes:
        options: The model of its options.
        authenticator: Builds the check from the scheme's name, secrets and options.
        reading: Where the events are in a body, or a function that reads them.
        needs_secrets: Whether it requires secrets.
        acknowledgement: The response the sender requires; None for any 2xx.
        handshake: Recognises requests that are not deliveries.
        kept_body: Removes from the body what must not be stored.
        methods: HTTP methods the sender uses.
        may_block: Whether verifying may wait for the network.
    """

    options: type[NoOptions] = NoOptions
    authenticator: Callable[[str, Sequence[str], Any], Authenticate]
    reading: Reading | ReadEvents
    needs_secrets: bool = True
    acknowledgement: Acknowledgement | None = None
    handshake: Callable[[WebhookRequest, Proof], Handshake | None] | None = None
    kept_body: Callable[[WebhookRequest, Proof], bytes] | None = None
    methods: tuple[str, ...] = ("POST",)
    may_block: bool = False


def _signed(spec: SignatureSpec) -> Callable[[str, Sequence[str], Any], Authenticate]:
    def make(scheme: str, secrets: Sequence[str], options: Any) -> Authenticate:
        tolerance_s = getattr(options, "tolerance_s", None)
        return SignatureAuthenticator(scheme, replace(spec, tolerance_s=tolerance_s), secrets)

    return make


_GITHUB = SignatureSpec(header=("x-hub-signature-256",), prefix="sha256=")
_SLACK = SignatureSpec(
    header=("x-slack-signature",),
    message="v0:{timestamp}:{body}",
    prefix="v0=",
    timestamp_header=("x-slack-request-timestamp",),
)
_STRIPE = SignatureSpec(
    header=("stripe-signature",),
    message="{timestamp}.{body}",
    prefix="v1=",
    separator=",",
    timestamp_prefix="t=",
    accepts_future=True,
)
_SHOPIFY = SignatureSpec(header=("x-shopify-hmac-sha256", "shopify-hmac-sha256"), encoding="base64")
_SQUARE = SignatureSpec(
    header=("x-square-hmacsha256-signature",), message="{url}{body}", encoding="base64"
)
_DROPBOX = SignatureSpec(header=("x-dropbox-signature",))
_STANDARD = SignatureSpec(
    header=("webhook-signature", "svix-signature"),
    message="{id}.{timestamp}.{body}",
    encoding="base64",
    prefix="v1,",
    separator=" ",
    key_encoding="base64",
    key_prefix="whsec_",
    timestamp_header=("webhook-timestamp", "svix-timestamp"),
    id_header=("webhook-id", "svix-id"),
)
_STANDARD_ED25519 = replace(_STANDARD, algorithm="ed25519", prefix="v1a,", key_prefix="whpk_")
_TWILIO = SignatureSpec(
    header=("x-twilio-signature",),
    message="{url}{form}",
    algorithm="sha1",
    encoding="base64",
    url_forms=with_and_without_port,
)
_TWILIO_SHARED_KEY = replace(
    _TWILIO,
    algorithm="sha256",
    applies_if=("x-twilio-webhooks-signature-settings", "algorithm=HMAC_SHA256"),
)
_HUBSPOT_OLD = SignatureSpec(header=("x-hubspot-signature",), keyed="prepended")
_HUBSPOT = {
    "v3": SignatureSpec(
        header=("x-hubspot-signature-v3",),
        message="{method}{url}{body}{timestamp}",
        encoding="base64",
        timestamp_header=("x-hubspot-request-timestamp",),
        timestamp_units_per_s=1000,
        url_forms=as_hubspot_signs_it,
        applies_if=("x-hubspot-signature-v3", ""),
    ),
    "v2": replace(
        _HUBSPOT_OLD,
        message="{method}{url}{body}",
        applies_if=("x-hubspot-signature-version", "v2"),
    ),
    "v1": replace(_HUBSPOT_OLD, applies_if=("x-hubspot-signature-version", "v1")),
}


def _hubspot(scheme: str, secrets: Sequence[str], options: HubspotOptions) -> Authenticate:
    accepted = [spec for version, spec in _HUBSPOT.items() if version in options.versions]
    specs = [replace(spec, tolerance_s=options.tolerance_s) for spec in accepted]
    return choose_by_header(
        scheme, [(spec, SignatureAuthenticator(scheme, spec, secrets)) for spec in specs]
    )


def _twilio(scheme: str, secrets: Sequence[str], _options: NoOptions) -> Authenticate:
    specs = (_TWILIO_SHARED_KEY, _TWILIO)
    return choose_by_header(
        scheme, [(spec, SignatureAuthenticator(scheme, spec, secrets)) for spec in specs]
    )


def _standard(scheme: str, secrets: Sequence[str], options: ToleranceOptions) -> Authenticate:
    if any(secret.startswith("whsk_") for secret in secrets):
        raise misconfigured(scheme, "whsk_… is the sender's private key; give its whpk_… instead")
    shared = [secret for secret in secrets if not secret.startswith("whpk_")]
    public = [secret for secret in secrets if secret.startswith("whpk_")]
    made = [
        _signed(spec)(scheme, keys, options)
        for spec, keys in ((_STANDARD, shared), (_STANDARD_ED25519, public))
        if keys
    ]
    return first_that_accepts(made)


def _hmac(scheme: str, secrets: Sequence[str], options: HmacOptions) -> Authenticate:
    spec = SignatureSpec(
        header=(options.header.lower(),),
        message=options.message,
        algorithm=options.algorithm,
        encoding=options.encoding,
        prefix=options.prefix,
        separator=options.separator,
        key_encoding=options.key_encoding,
        timestamp_header=(options.timestamp_header.lower(),) if options.timestamp_header else (),
        timestamp_units_per_s=1000 if options.timestamp_unit == "ms" else 1,
        tolerance_s=options.tolerance_s,
        id_header=(options.id_header.lower(),) if options.id_header else (),
    )
    return SignatureAuthenticator(scheme, spec, secrets)


def _dropbox(scheme: str, secrets: Sequence[str], options: NoOptions) -> Authenticate:
    signed = _signed(_DROPBOX)(scheme, secrets, options)

    def authenticate(request: WebhookRequest) -> Proof:
        if request.method != "GET":
            return signed(request)
        # The only unsigned request: it checks that we are there, and has no effect.
        try:
            challenge = dict(reversed(query_fields(request.url))).get("challenge", "")
        except ValueError:
            challenge = ""
        if not 0 < len(challenge) <= _MAX_CHALLENGE_LENGTH:
            raise unauthentic(scheme, "a GET must carry a challenge")
        return Proof(document=challenge)

    return authenticate


def _dropbox_handshake(_request: WebhookRequest, proof: Proof) -> Handshake | None:
    if proof.document is None:
        return None
    return Handshake(Acknowledgement(proof.document.encode("utf-8", "replace")))


def _slack_handshake(request: WebhookRequest, _proof: Proof) -> Handshake | None:
    if b"url_verification" not in request.body:
        return None
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or document.get("type") != "url_verification":
        return None
    return Handshake(Acknowledgement(str(document.get("challenge", "")).encode()))


def _allowed(scheme: str, listed: Sequence[str], option: str) -> Sequence[str]:
    if not listed:
        raise misconfigured(scheme, f"nothing is allowed; list at least one in {option}")
    return listed


SCHEMES: dict[str, Scheme] = {
    "github": Scheme(
        authenticator=_signed(_GITHUB),
        reading=Reading(event_type=["header:x-github-event"], content="json-or-form"),
    ),
    "slack": Scheme(
        options=ToleranceOptions,
        authenticator=_signed(_SLACK),
        reading=Reading(
            event_type=["field:event.type", "field:command", "field:type"],
            dedup=["field:event_id", "field:trigger_id"],
            content="json-or-form",
        ),
        acknowledgement=_OK,
        handshake=_slack_handshake,
    ),
    "stripe": Scheme(
        options=ToleranceOptions,
        authenticator=_signed(_STRIPE),
        reading=Reading(event_type=["field:type"], dedup=["field:id"], content="json"),
    ),
    "shopify": Scheme(
        authenticator=_signed(_SHOPIFY),
        reading=Reading(
            event_type=["header:x-shopify-topic", "header:shopify-topic"],
            content="json",
            # An order that is created and paid at once arrives twice with the same body.
            digest_covers_type=True,
        ),
        acknowledgement=_OK,
    ),
    "standard-webhooks": Scheme(
        options=ToleranceOptions,
        authenticator=_standard,
        reading=Reading(event_type=["field:type"], dedup=[SIGNED_ID]),
    ),
    "twilio": Scheme(
        authenticator=_twilio,
        reading=Reading(event_type=["field:SmsStatus", "field:MessageStatus", "field:CallStatus"]),
        acknowledgement=_NO_MESSAGES,
        methods=("POST", "GET"),
    ),
    "hubspot": Scheme(
        options=HubspotOptions,
        authenticator=_hubspot,
        reading=Reading(
            event_type=["field:subscriptionType"],
            dedup=["field:portalId+subscriptionId+eventId+occurredAt"],
            content="json",
            is_batch=True,
        ),
    ),
    "square": Scheme(
        authenticator=_signed(_SQUARE),
        reading=Reading(event_type=["field:type"], dedup=["field:event_id"], content="json"),
    ),
    "dropbox": Scheme(
        authenticator=_dropbox,
        reading=dropbox_events,
        acknowledgement=_OK,
        handshake=_dropbox_handshake,
        methods=("POST", "GET"),
    ),
    "salesforce": Scheme(
        options=SalesforceOptions,
        authenticator=lambda scheme, secrets, options: salesforce.OrganizationAuthenticator(
            scheme, _allowed(scheme, [*secrets, *options.organization_ids], "organization_ids")
        ),
        reading=salesforce.events,
        needs_secrets=False,
        acknowledgement=salesforce.ACKNOWLEDGED,
        kept_body=salesforce.without_session,
    ),
    "sns": Scheme(
        options=SnsOptions,
        authenticator=lambda scheme, secrets, options: sns.SnsAuthenticator(
            scheme,
            _allowed(scheme, [*secrets, *options.topic_arns], "topic_arns"),
            options.fetch_certificate,
        ),
        reading=sns.events,
        needs_secrets=False,
        acknowledgement=_OK,
        handshake=sns.handshake,
        may_block=True,
    ),
    "hmac": Scheme(
        options=HmacOptions,
        authenticator=_hmac,
        reading=Reading(dedup=[SIGNED_ID]),
    ),
    "basic": Scheme(
        authenticator=lambda scheme, secrets, _options: credentials.basic(scheme, secrets),
        reading=Reading(),
    ),
    "bearer": Scheme(
        authenticator=lambda scheme, secrets, _options: credentials.bearer(scheme, secrets),
        reading=Reading(),
    ),
    "api-key": Scheme(
        options=ApiKeyOptions,
        authenticator=lambda scheme, secrets, options: credentials.api_key(
            scheme, secrets, options.header
        ),
        reading=Reading(),
    ),
    "none": Scheme(
        authenticator=lambda _scheme, _secrets, _options: credentials.anyone,
        reading=Reading(),
        needs_secrets=False,
    ),
}
