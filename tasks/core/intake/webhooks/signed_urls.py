"""The spellings of a public URL that senders may have signed."""

from __future__ import annotations

import re

_ORIGIN = re.compile(r"(https?)://([^/?#:\[\]]+|\[[^/?#\[\]]*\])(:[0-9]+)?(?=[/?#]|$)", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

# HubSpot signs the URL with these escapes decoded, and no others.
_HUBSPOT_ESCAPES = {f"%{ord(character):02X}": character for character in ":/?@!$'()*,;"}
_HUBSPOT_ESCAPE = re.compile("|".join(_HUBSPOT_ESCAPES), re.IGNORECASE)


def with_and_without_port(url: str) -> tuple[str, ...]:
    """Return the URL with and without its port: Twilio signs either.

    Source: twilio-python, RequestValidator.
    """
    origin = _ORIGIN.match(url)
    if origin is None:
        return (url,)
    scheme, host, port = origin.groups()
    rest = url[origin.end() :]
    return (
        f"{scheme}://{host}{rest}",
        f"{scheme}://{host}{port or _DEFAULT_PORTS[scheme]}{rest}",
    )


def as_hubspot_signs_it(url: str) -> tuple[str, ...]:
    """Return the URL as HubSpot signs it: some escapes decoded, without the fragment.

    Source: developers.hubspot.com, "Validating requests", v3.
    """
    url = url.partition("#")[0]
    decoded = _HUBSPOT_ESCAPE.sub(lambda found: _HUBSPOT_ESCAPES[found[0].upper()], url)
    return (url,) if decoded == url else (decoded, url)
