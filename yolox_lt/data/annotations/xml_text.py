"""Xml files -> elements, with nothing in them that could grow."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree  # nosec B405

from yolox_lt.errors import UserError


class _TreeBuilder(ElementTree.TreeBuilder):
    """Refuses a document type before anything of it is read: entities may expand to any size."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise UserError("has a DOCTYPE, which annotation files need not have and entities can abuse; remove it")


def parse_xml(path: Path) -> ElementTree.Element:
    """The outermost element of a file.

    Raises:
        UserError: not well-formed xml, a DOCTYPE, an unknown encoding.
    """
    try:
        # Entities, by which a small file grows, need a DOCTYPE, and the builder refuses one.
        parser = ElementTree.XMLParser(target=_TreeBuilder())  # nosec B314
        return ElementTree.parse(path, parser).getroot()  # nosec B314
    except ElementTree.ParseError as error:
        line, column = error.position
        raise UserError(
            f"{path}, line {line}, column {column + 1}: not well-formed xml ({str(error).partition(':')[0]}); "
            "write the file again"
        ) from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise UserError(f"{path}: not readable as xml ({error}); write the file again") from error
