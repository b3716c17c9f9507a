"""Reads XML of any size in constant memory; refuses documents with a DTD or entities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from lxml import etree

from tasks.core.formats.records.budget import ByteStream, RecordBudget
from tasks.core.formats.records.formats import XmlFormat
from tasks.core.formats.records.record import Record, Reject
from tasks.core.formats.records.source import Source
from tasks.core.formats.records.table import Table

_INSTANCE_NAMESPACE = "{http://www.w3.org/2001/XMLSchema-instance}"
_ANY = "{*}*"
_MAX_REASON_LENGTH = 200


def read_xml(stream: ByteStream, options: XmlFormat, source: Source) -> Table:
    """Read the elements at the record path, one at a time.

    Values are the unchanged texts of elements and attributes, keyed by path; "." is the record's
    own text, and an element with xsi:nil is None. An element that occurs twice without being
    listed as repeated makes its record a `Reject`.

    Raises:
        BadPayloadError: While reading: the file is empty, is not well-formed XML, declares a
            DTD, has nothing at the record path's parent, or a record is too large.

    Source: https://www.w3.org/TR/xml, https://www.w3.org/TR/xml-names
    """
    budget = RecordBudget(
        stream,
        options.max_record_bytes,
        source,
        likely_cause="a missing closing tag or another record_path",
    )
    return Table(None, lambda _keys: _records(budget, options, source))


def _records(budget: RecordBudget, options: XmlFormat, source: Source) -> Iterator[Record | Reject]:
    path = _matchers(options)
    fields = _Fields(options)
    found = False
    events = etree.iterparse(
        budget,
        tag=path[-1],
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        for _, element in events:
            if not found:
                _refuse_dtd(element, source)
            if _is_at(element, path):
                found = True
                line = _line(element)
                budget.begin_record(line)
                yield fields.record(element, line)
                _release(element)
    except etree.XMLSyntaxError as exc:
        raise _not_well_formed(exc, events.error_log, source) from exc
    if not found:
        _refuse_dtd(events.root, source)
        _expect_parent(events.root, path, options, source)


class _RepeatedError(Exception):
    """An element occurs more than once unexpectedly; holds its path."""


class _Fields:
    """Converts an element into a record."""

    def __init__(self, options: XmlFormat) -> None:
        self._prefixes = {uri: prefix for prefix, uri in options.namespaces.items()}
        self._repeated = frozenset(options.repeated)
        self._names: dict[str, str] = {}

    def record(self, element: etree._Element, line: int) -> Record | Reject:
        values: dict[str, Any] = {}
        try:
            self._fill(values, element, "", "")
        except _RepeatedError as exc:
            reason = (
                "occurs more than once; list it, or an element around it, in repeated if that "
                "is meant"
            )
            return Reject(line, str(exc), reason, values)
        return Record(line, values)

    def _fill(self, values: dict[str, Any], element: etree._Element, base: str, path: str) -> None:
        """Add an element's values; keys are its path, from below `base` on."""
        for attribute, text in element.attrib.items():
            if not str(attribute).startswith(_INSTANCE_NAMESPACE):
                self._put(values, f"{path}@{self._name(attribute)}", base, str(text))
        if not len(element):
            if path != base:
                self._put(values, path[:-1], base, _text(element))
            elif element.text:
                values["."] = element.text
            return
        for child in element:
            child_path = path + self._name(child.tag)
            if child_path in self._repeated:
                values.setdefault(child_path[len(base) :], []).append(self._item(child, child_path))
            else:
                self._fill(values, child, base, child_path + "/")

    def _put(self, values: dict[str, Any], path: str, base: str, value: str | None) -> None:
        key = path[len(base) :]
        if key in values:
            raise _RepeatedError(path)
        values[key] = value

    def _item(self, element: etree._Element, path: str) -> Any:
        values: dict[str, Any] = {}
        self._fill(values, element, path + "/", path + "/")
        return values if values.keys() - {"."} else _text(element)

    def _name(self, tag: Any) -> str:
        """Return a tag's local name, with the prefix of its namespace if it has one."""
        name = self._names.get(tag)
        if name is None:
            qualified = etree.QName(tag)
            prefix = self._prefixes.get(qualified.namespace or "")
            name = f"{prefix}:{qualified.localname}" if prefix else qualified.localname
            self._names[tag] = name
        return name


def _text(element: etree._Element) -> str | None:
    if element.get(f"{_INSTANCE_NAMESPACE}nil") in {"true", "1"}:
        return None
    return element.text or ""


def _matchers(options: XmlFormat) -> Sequence[str]:
    """Return the record path as lxml tags: "{uri}name", or "{*}name" for any namespace."""
    if not options.record_path:
        return (_ANY, _ANY)
    return [_matcher(segment, options.namespaces) for segment in options.record_path.split("/")]


def _matcher(segment: str, namespaces: Mapping[str, str]) -> str:
    prefix, colon, name = segment.partition(":")
    return f"{{{namespaces[prefix]}}}{name}" if colon else f"{{*}}{segment}"


def _is_at(element: etree._Element, path: Sequence[str]) -> bool:
    node: etree._Element | None = element
    for matcher in reversed(path):
        if node is None or not _matches(node, matcher):
            return False
        node = node.getparent()
    return node is None


def _matches(node: etree._Element, matcher: str) -> bool:
    if matcher == _ANY:
        return True
    uri, _, name = matcher.rpartition("}")
    tag_uri, _, tag_name = str(node.tag).rpartition("}")
    return name == tag_name and uri in {"{*", tag_uri}


def _line(element: etree._Element) -> int:
    return cast("int | None", element.sourceline) or 1


def _release(element: etree._Element) -> None:
    """Free the memory of a record and of everything before it."""
    element.clear()
    node: etree._Element | None = element
    while node is not None:
        parent = node.getparent()
        while parent is not None and node.getprevious() is not None:
            del parent[0]
        node = parent


def _refuse_dtd(element: etree._Element, source: Source) -> None:
    if element.getroottree().docinfo.internalDTD is not None:
        raise _dtd_refused(source)


def _dtd_refused(source: Source) -> Exception:
    return source.bad(
        "declares a document type (DTD) or entities, which are refused because they can read "
        "files and exhaust the memory; have the sender write plain XML without <!DOCTYPE>"
    )


def _not_well_formed(
    exc: etree.XMLSyntaxError, log: etree._ListErrorLog, source: Source
) -> Exception:
    entry = log.last_error  # says more than the exception
    reason = str(entry.message if entry is not None else exc.msg)[:_MAX_REASON_LENGTH]
    line = entry.line if entry is not None else exc.lineno
    if "entity amplification" in reason:  # only a DTD can define an entity that grows
        return _dtd_refused(source)
    return source.bad(
        f"is not well-formed XML ({reason}); if it ends too early the transfer was cut: have "
        "the sender write it again",
        line=line or None,
    )


def _expect_parent(
    root: etree._Element, path: Sequence[str], options: XmlFormat, source: Source
) -> None:
    """Raise if the record path does not fit the document, rather than find no records."""
    nodes = [root] if _matches(root, path[0]) else []
    for matcher in path[1:-1]:
        nodes = [child for node in nodes for child in node if _matches(child, matcher)]
    if not nodes or len(path) == 1:
        raise source.bad(
            f"has no element at {options.record_path!r}; its root is {root.tag!r}; set "
            "record_path to the path of the elements that are records, with the root first",
            line=_line(root),
        )
