"""Parses XML that strangers send: bounded, without entities, document types or anything fetched."""

from __future__ import annotations

from lxml import etree

from fedkit.topology.errors import BadDescription, Problem

SIZE_LIMIT = 16 * 1024 * 1024  # octets; 10,000 computers take about 8 MB


def parse(data: bytes, file: str) -> etree._Element:
    """The root element; raises `BadDescription` for what is no XML, is too large or too deep, or has a document type."""
    if len(data) > SIZE_LIMIT:
        raise _fatal(file, None, "topology.too_large", f"A description has at most {SIZE_LIMIT} octets.")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise _fatal(file, error.lineno, "topology.not_xml", f"Not XML: {error.msg}") from error
    if root.getroottree().docinfo.doctype:
        raise _fatal(file, None, "topology.document_type", "A description has no document type (<!DOCTYPE …>).")
    return root


def _fatal(file: str, line: int | None, code: str, message: str) -> BadDescription:
    return BadDescription([Problem(file, line, code, message)])
