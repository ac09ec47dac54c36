"""The chunks of a PNG file, checked before a decoder trusts their lengths."""

from __future__ import annotations

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def has_whole_chunks(content: bytes) -> bool:
    """Tell whether a PNG file is a row of whole, undamaged chunks up to its end mark.

    OpenCV 5 reserves as much memory as a chunk claims to be long: a file of 4 kB with one
    flipped bit takes 4 GB and ten seconds. Pillow stops reading before the last chunk.

    Parameters
    ----------
    content : bytes
        Of the whole file; what follows the end mark is ignored.

    Examples
    --------
    >>> has_whole_chunks(_SIGNATURE + bytes(4) + b"IEND" + bytes.fromhex("ae426082"))
    True
    >>> has_whole_chunks(_SIGNATURE + bytes(4) + b"IEND")
    False
    """
    if not content.startswith(_SIGNATURE):
        return False
    view, at = memoryview(content), len(_SIGNATURE)
    while at + 12 <= len(view):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        checksum = int.from_bytes(view[end : end + 4], "big")
        if end + 4 > len(view) or zlib.crc32(view[at + 4 : end]) != checksum:
            return False
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False
