"""XML reports."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from pydantic import ValidationError

from tasks.core.formats.reports.report import Report, ReportColumn
from tasks.core.formats.reports.xml_report import XmlReport, write_xml, xml_schema


@pytest.mark.parametrize(
    "options",
    [XmlReport(), XmlReport(root="Sales", row="Order", namespace="urn:example:sales:1")],
)
def test_a_report_is_valid_against_its_schema(tmp_path, report, rows, options):
    """The declared names, with and without a namespace; and the schema does refuse other files."""
    path = tmp_path / "r.xml"
    write_xml(path, report, rows, options)
    schema = etree.XMLSchema(etree.fromstring(xml_schema(report, options)))
    document = etree.parse(path)
    schema.assertValid(document)
    root = document.getroot()
    assert etree.QName(root).localname == options.root
    assert root.get("start") == "2026-07-16T19:00:00+02:00"
    first = {etree.QName(child).localname: child.text for child in root[0]}
    assert first == {
        "order_no": "SO-1",
        "customer": "Müller & Söhne, GmbH",
        "ordered_at": "2026-07-17T10:30:00+02:00",
        "due": "2026-08-01",
        "lines": "3",
        "weight": "0.5",
        "total": "1234.50",
        "paid": "true",
    }
    assert len(root[2]) == 0
    etree.SubElement(root[0], "unknown")
    assert not schema.validate(document)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_gives_a_valid_file(tmp_path, report, text):
    """Markup, line ends and characters that XML forbids never break the file."""
    one = Report("r", "R", report.period, (ReportColumn(name="a"),))
    write_xml(tmp_path / "r.xml", one, [{"a": text}], XmlReport())
    document = etree.parse(tmp_path / "r.xml")
    etree.XMLSchema(etree.fromstring(xml_schema(one, XmlReport()))).assertValid(document)
    read = document.getroot()[0][0].text or ""
    assert len(read) == len(text)
    assert all(b in (a, "\ufffd") for a, b in zip(text, read, strict=True))


@pytest.mark.parametrize("name", ["", "1st", "a b", "a:b", "<a>"])
def test_names_that_are_none_are_refused(tmp_path, report, name):
    """Root, row and column names are checked before a byte is written."""
    with pytest.raises(ValidationError):
        XmlReport(row=name)
    if name:
        one = Report("r", "R", report.period, (ReportColumn(name=name),))
        with pytest.raises(ValueError, match="no XML name"):
            write_xml(tmp_path / "r.xml", one, [], XmlReport())
        assert not (tmp_path / "r.xml").exists()
