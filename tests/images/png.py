"""PNG files made without a codec."""

import struct
import zlib


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png(pixels):
    """16 bits a channel, written without a codec."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6, 2: 4}[pixels.shape[2]], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
