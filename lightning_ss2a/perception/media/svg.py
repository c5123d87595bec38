"""Draws SVG pictures as bitmaps, at a size of our choice. Nothing outside the file is read; no size can be a bomb."""

import io
import zlib
from typing import Any
from urllib.request import urlopen

from lightning_ss2a.errors import InputError, one_line
from lightning_ss2a.perception.packages import media_package

BITMAP_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""What Pillow may open: some of its other formats run programs (EPS: Ghostscript)."""
MOST_PIXELS = 1 << 27
"""Of a bitmap: more than any camera's, and 512 MB once unpacked."""
LARGEST_TEXT = 1 << 26
"""Bytes of an SVG once unpacked."""

_GZIP = b"\x1f\x8b"
_BEFORE_TEXT = b"\xef\xbb\xbf\xfe\xff\0 \t\r\n"
"""Marks of the text's encoding, and white space."""
_NOTHING = b'<svg width="1" height="1"></svg>'


def is_svg(data: bytes) -> bool:
    """Tells an SVG from a bitmap: it is text that begins with a tag, or gzipped, which bitmaps never are."""
    return data.startswith(_GZIP) or data[:1024].lstrip(_BEFORE_TEXT).startswith(b"<")


def draw_svg(data: bytes, longest_side: int) -> bytes:
    """Draws an SVG so that its longer side has about this many pixels, up to the rounding of its own size.

    Args:
        data: the file, plain or gzipped.
        longest_side: pixels, whatever unit the picture's own size is in.

    Returns:
        a PNG file; pictures that the SVG only refers to are left out, embedded ones are drawn.

    Raises:
        InputError: it cannot be drawn; says why.
    """
    surface = media_package("cairosvg.surface").PNGSurface
    try:
        text = _unpack(data) if data.startswith(_GZIP) else data
        if not text:
            raise ValueError("it is empty")
        scale = longest_side / max(_own_size(text, surface))
        if abs(scale - 1) <= 0.01:
            scale = 1
        return surface.convert(bytestring=text, scale=scale, url_fetcher=_embedded)
    except Exception as error:  # cairosvg passes on whatever its parser, cairo or the file's numbers raise
        raise InputError(f"not an SVG picture that can be drawn ({one_line(error)})") from error


def is_too_large(image: Any) -> bool:
    """Tells whether a picture that Pillow has opened has too many pixels to be unpacked."""
    return image.width * image.height > MOST_PIXELS


def _own_size(text: bytes, surface: Any) -> tuple[int, int]:
    """Finds the picture's own size in pixels without drawing it: at that size it may not fit in memory."""

    class Ruler(surface):
        def _create_surface(self, width: float, height: float) -> None:
            raise _Measured(round(width), round(height))

    try:
        Ruler.convert(bytestring=text, url_fetcher=_embedded)
    except _Measured as measured:
        width, height = measured.args
    if min(width, height) < 1:
        raise ValueError("its size is undefined or zero")
    return width, height


class _Measured(Exception):  # noqa: N818 (carries a result, tells of no error)
    """Carries the size out of the drawing program, which then stops."""


def _unpack(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(data, LARGEST_TEXT)
    if unpacker.unconsumed_tail:
        raise ValueError(f"unpacked, it is larger than {LARGEST_TEXT} bytes")
    return text


def _embedded(url: str, resource_type: str) -> bytes:
    """Reads the content of a ``data:`` URL; an empty picture for any other URL."""
    if not url.startswith("data:"):
        return _NOTHING
    content = urlopen(url).read()
    if content.startswith(_GZIP):
        raise ValueError("it embeds something gzipped")
    if resource_type == "image/*" and b"<svg" not in content:
        pillow = media_package("PIL.Image")
        try:
            with pillow.open(io.BytesIO(content), formats=BITMAP_FORMATS) as image:
                if is_too_large(image):
                    raise ValueError(f"it embeds a picture of {image.width} x {image.height} pixels")
        except pillow.UnidentifiedImageError:
            raise ValueError("it embeds a picture of no known type") from None
    return content
