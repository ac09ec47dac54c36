"""Text in tables that spreadsheets open."""

from __future__ import annotations


def as_text(cell: str) -> str:
    """Return a text cell that no spreadsheet takes for a formula.

    Examples
    --------
    >>> as_text("=HYPERLINK(...)"), as_text("UD-017")
    ("'=HYPERLINK(...)", 'UD-017')
    """
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
