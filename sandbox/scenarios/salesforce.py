"""A Salesforce organisation, whose sales people win opportunities and meet people."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.scenarios import Sandbox
from sandbox.systems import salesforce

_SELL_EVERY_S = 120
_COMPANIES = ("Northwind", "Blue Harbour", "Kestrel & Sons", "Zephyr", "Ostrava Steel")
_PEOPLE = (("Ada", "Okafor"), ("Bruno", "Marques"), ("Chloé", "Lefèvre"), ("Haruka", "Satō"))


@contextmanager
def run(sandbox: Sandbox) -> Iterator[None]:
    """Serve; whoever has registered outbound messages hears of what is sold."""
    with salesforce.start(port=sandbox.port("salesforce"), first_wait_s=2) as organization:
        sandbox.blocks["http-api/salesforce"] = organization.block()

        def sell() -> None:
            records = organization.records
            company = random.choice(_COMPANIES)
            first, last = random.choice(_PEOPLE)
            records.create(
                "Contact",
                FirstName=first,
                LastName=last,
                Email=f"{last.lower()}@{company.split()[0].lower()}.example",
                Phone="+49 221 4711",
            )
            opportunity = records.create(
                "Opportunity",
                Name=f"{company}: {random.randint(2, 40)} widgets",
                StageName="Prospecting",
                Amount=random.randint(10, 900) * 10,
                CurrencyIsoCode="EUR",
                IsWon=False,
                IsClosed=False,
            )
            records.update(
                "Opportunity", opportunity, StageName="Closed Won", IsWon=True, IsClosed=True
            )

        sandbox.every(_SELL_EVERY_S, sell)
        yield
