"""PNG files made without a codec."""

import struct
import zlib

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps, of the passes of interlacing (ISO/IEC 15948, 8.2)."""


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bytes(pixels, *, interlaced=False, before=(), after=()):
    """(H, W, C) of 8 or 16 bits; chunks, (kind, body), may come before and after the pixels."""
    height, width, bands = pixels.shape
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(
        b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes()
        for top, left, down, right in passes
        for row in pixels[top::down, left::right]
    )
    colour = {3: 2, 4: 6, 2: 4}[bands]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)
