"""Contacts as each side shows them and tells of them, and what both sides share of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from tasks.two_way import ConflictRule, Side, Snapshot, changed_at_of

KIND = "crm_contacts"
CRM: Side = "left"
OWN_APP: Side = "right"
# what both sides have of a contact: our name to the CRM's, which own app's fields are called by too
PROPERTIES = {
    "name": "display_name",
    "email": "email_address",
    "phone": "phone_number",
    "company": "organisation",
}

Party = Literal["crm", "own_app"]
SharedField = Literal["name", "email", "phone", "company"]
_SIDE: dict[Party, Side] = {"crm": CRM, "own_app": OWN_APP}


class ContactRule(BaseModel):
    """What prevails when both sides have changed a contact since they were last in step."""

    owners: dict[SharedField, Party] = Field(
        default_factory=dict,
        description="Field to who owns it: the other side's changes of it are set back. Of other "
        "fields the newest change counts.",
    )
    at_same_time: Party = Field("crm", description="Whose change counts at equal instants.")
    deletion: Literal["loses", "wins"] = Field(
        "loses",
        description="Whether a deletion loses against a change since then, or wins.",
    )

    def as_conflict_rule(self) -> ConflictRule:
        """The same for any two sides."""
        owners: dict[str, Side] = {name: _SIDE[party] for name, party in self.owners.items()}
        return ConflictRule(owners, _SIDE[self.at_same_time], self.deletion)


class CrmContact(BaseModel):
    """A contact as the CRM shows it."""

    id: str
    properties: dict[str, str | None]
    modified: dict[str, AwareDatetime]
    updated_at: AwareDatetime
    version: int
    external_id: str | None = None

    def snapshot(self) -> Snapshot:
        """What both sides share; the CRM knows when each property was changed."""
        return Snapshot(
            {ours: _shared(ours, self.properties.get(its)) for ours, its in PROPERTIES.items()},
            {ours: self.modified.get(its, self.updated_at) for ours, its in PROPERTIES.items()},
        )


class OwnContact(BaseModel):
    """A contact as the application shows it."""

    contact_id: str
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    company: str | None = None
    changed_at: AwareDatetime
    version: int

    def snapshot(self, earlier: Snapshot | None = None) -> Snapshot:
        """What both sides share; the application knows when the contact was changed, no more.

        Args:
            earlier: How it was when an event told of it: what is still the same was not changed
                later than that.
        """
        values = {name: _shared(name, getattr(self, name)) for name in PROPERTIES}
        changed_at = changed_at_of(PROPERTIES, self.changed_at)
        for name, value in (earlier.values if earlier else {}).items():
            if earlier is not None and value == values[name]:
                changed_at[name] = min(changed_at[name], earlier.changed_at[name])
        return Snapshot(values, changed_at)


class CrmEvent(BaseModel):
    """What the CRM's webhooks say.

    Attributes:
        contact: As it is after the change, or was before it was deleted.
        merged_id: The contact that was merged into it.
    """

    type: str
    contact: CrmContact
    merged_id: str | None = None


class OwnEvent(BaseModel):
    """What the application's webhooks say; `data` is the contact as in `CrmEvent`."""

    type: str
    data: OwnContact


def crm_properties(values: Mapping[str, Any]) -> dict[str, Any]:
    """Shared values by the CRM's names."""
    return {PROPERTIES[name]: value for name, value in values.items()}


def _shared(name: str, value: str | None) -> str | None:
    """A value in the form in which equal ones are equal: e-mail addresses in small letters."""
    text = " ".join((value or "").split())
    return (text.lower() if name == "email" else text) or None
