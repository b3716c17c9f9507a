"""Writes XML with configurable names, and the schema against which it is valid."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from lxml import etree
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.core.formats.reports.report import Kind, Report, ReportColumn, Summary, summing
from tasks.core.formats.reports.rows import Rows, column_chunks

_NAME = re.compile(r"[^\W\d][\w.-]*", re.UNICODE)
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XSD = "http://www.w3.org/2001/XMLSchema"
_TYPES = {
    Kind.TEXT: "xs:string",
    Kind.INTEGER: "xs:integer",
    Kind.NUMBER: "xs:double",
    Kind.MONEY: "xs:decimal",
    Kind.DATE: "xs:date",
    Kind.INSTANT: "xs:dateTime",
    Kind.YES_NO: "xs:boolean",
}


class XmlReport(BaseModel):
    """How an XML report is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["xml"] = "xml"
    root: str = Field(default="report", description="Name of the root element.")
    row: str = Field(default="row", description="Name of the element for each row.")
    namespace: str | None = Field(
        default=None, description="Target namespace of all elements; empty for none."
    )

    @field_validator("root", "row")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return _checked(value)

    @property
    def extension(self) -> str:
        """The extension of the file's name."""
        return ".xml"

    @property
    def media_type(self) -> str:
        """Source: RFC 7303."""
        return "application/xml"


def write_xml(path: Path, report: Report, rows: Rows, options: XmlReport) -> Summary:
    """Write one element per row, its columns as child elements, in constant memory.

    A missing value has no element. The root names the report and its period. Characters that XML
    does not allow become U+FFFD.

    Raises:
        ValueError: A column's name is not an XML name.
        BadPayloadError: As `column_chunks`.
    """
    names = [_checked(column.name) for column in report.columns]
    qualify = f"{{{options.namespace}}}" if options.namespace else ""
    summary = Summary()
    with path.open("wb") as file, etree.xmlfile(file, encoding="utf-8") as xml:
        xml.write_declaration()
        head = {
            "name": report.name,
            "start": report.period.start.isoformat(),
            "end": report.period.end.isoformat(),
        }
        tags = [f"{qualify}{name}" for name in names]
        with xml.element(
            f"{qualify}{options.root}", head, nsmap={None: options.namespace} if qualify else None
        ):
            for chunk in summing(column_chunks(rows, report), report, summary):
                for values in zip(*chunk, strict=True):
                    row = etree.Element(f"{qualify}{options.row}")
                    for tag, value in zip(tags, values, strict=True):
                        if value is not None:
                            etree.SubElement(row, tag).text = _text(value)
                    xml.write("\n", row)
            xml.write("\n")
    return summary


def xml_schema(report: Report, options: XmlReport) -> bytes:
    """Return the XML Schema (XSD 1.0) of the files that `write_xml` writes, for receivers."""
    qualified = {"targetNamespace": options.namespace} if options.namespace else {}
    schema = etree.Element(
        f"{{{_XSD}}}schema", {"elementFormDefault": "qualified", **qualified}, nsmap={"xs": _XSD}
    )
    root = _sequence(schema, options.root)
    row = _sequence(root[0], options.row)
    row.getparent().set("minOccurs", "0")
    row.getparent().set("maxOccurs", "unbounded")
    for column in report.columns:
        _element(row[0], column)
    for name, kind in (("name", "xs:string"), ("start", "xs:dateTime"), ("end", "xs:dateTime")):
        etree.SubElement(root, f"{{{_XSD}}}attribute", name=name, type=kind, use="required")
    return etree.tostring(schema, xml_declaration=True, encoding="utf-8", pretty_print=True)


def _sequence(parent: Any, name: str) -> Any:
    element = etree.SubElement(parent, f"{{{_XSD}}}element", name=name)
    content = etree.SubElement(element, f"{{{_XSD}}}complexType")
    etree.SubElement(content, f"{{{_XSD}}}sequence")
    return content


def _element(parent: Any, column: ReportColumn) -> None:
    etree.SubElement(
        parent,
        f"{{{_XSD}}}element",
        name=_checked(column.name),
        type=_TYPES[column.kind],
        minOccurs="0",
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _UNWRITABLE.sub("\ufffd", value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int | float):
        return repr(value)
    return str(value.isoformat())


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no XML name: letters, digits, '.', '-' and '_' only")
    return name
