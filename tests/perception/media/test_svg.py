import base64
import gzip
import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.media import svg
from lightning_ss2a.perception.media.files import load_image
from lightning_ss2a.perception.media.svg import draw_svg
from tests.perception.media_files import picture_file, plain_picture, result_or_error

RED, BLUE = (255, 0, 0), (0, 0, 255)
NAMES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
BLUE_SQUARE = '<rect width="100" height="100" fill="#00f"/>'


def document(content: str, size: str = 'width="100" height="100"') -> bytes:
    return f"<svg {NAMES} {size}>{content}</svg>".encode()


def drawn(data: bytes, longest_side: int = 100) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_svg(data, longest_side))).convert("RGBA"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ('width="100" height="50"', (256, 512)),
        ('width="20mm" height="40mm"', (512, 256)),
        ('width="1000000" height="500000"', (256, 512)),  # a canvas of 2 TB at its own size
        ('width="1" height="1"', (512, 512)),
        ('viewBox="0 0 30 60"', (512, 256)),
        ('width="512" height="512"', (512, 512)),
    ],
)
def test_the_longer_side_has_the_size_asked_for_whatever_its_own(size, expected):
    image = drawn(document('<rect width="100%" height="100%"/>', size), 512)
    np.testing.assert_allclose(image.shape[:2], expected, rtol=0.01)
    assert (image[3:-3, 3:-3, 3] == 255).all()


def test_shapes_scale_with_the_picture():
    image = drawn(document('<rect x="25" y="50" width="50" height="25" fill="#f00"/>'), 400)
    filled = np.zeros((400, 400), bool)
    filled[200:300, 100:300] = True
    assert ((image[..., 3] == 255) == filled).all()
    assert (image[filled][:, :3] == RED).all()


def test_load_image_crops_the_drawing():
    image = load_image(document('<rect x="25" y="25" width="50" height="25" fill="#f00"/>'), "cat.SVG")
    assert image.shape == (256, 256, 3)
    assert (image[70:186] == RED).all()
    assert (image[:60] == 255).all()


def test_a_gzipped_picture():
    data = document(BLUE_SQUARE)
    assert (drawn(gzip.compress(data)) == drawn(data)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_embedded_picture_is_drawn(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    embedded = base64.b64encode(picture_file(plain_picture(RED, 16), kind, **options)).decode()
    link = f'<image width="100" height="100" xlink:href="data:image/{kind.lower()};base64,{embedded}"/>'
    image = drawn(document(BLUE_SQUARE + link))
    assert np.abs(image[50, 50, :3].astype(int) - RED).max() <= 3


def secret_files(folder: Path) -> Path:
    (folder / "secret.png").write_bytes(picture_file(plain_picture(RED, 16)))
    (folder / "secret.svg").write_bytes(document('<rect id="s" width="100" height="100" fill="#f00"/>'))
    (folder / "secret.css").write_text("rect { fill: #f00 !important }")
    return folder


OUTSIDE = [
    '<image width="100" height="100" xlink:href="{folder}/secret.png"/>',
    '<image width="100" height="100" xlink:href="file://{folder}/secret.png"/>',
    '<image width="100" height="100" href="secret.png"/>',
    '<image width="100" height="100" xlink:href="secret.svg"/>',
    '<use xlink:href="file://{folder}/secret.svg#s"/>',
    '<use xlink:href="secret.svg#s"/>',
    '<style>@import url("file://{folder}/secret.css");</style>',
    '<style>@import "secret.css";</style>',
    '<g xml:base="file://{folder}/"><image width="100" height="100" xlink:href="secret.png"/></g>',
    '<image width="100" height="100" xlink:href="http://127.0.0.1:9/secret.png"/>',
    '<image width="100" height="100" xlink:href="ftp://127.0.0.1:9/secret.png"/>',
    '<rect width="100" height="100" fill="url(secret.svg#s)"/>',
    '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{folder}/secret.svg"/>',
]


@pytest.mark.parametrize("content", OUTSIDE)
def test_nothing_outside_the_file_is_seen(tmp_path, monkeypatch, content):
    opened = []
    real = svg.urlopen
    monkeypatch.setattr(svg, "urlopen", lambda url: opened.append(url) or real(url))
    monkeypatch.setattr("cairosvg.url.urlopen", lambda *arguments: pytest.fail("cairosvg opened an address itself"))
    monkeypatch.chdir(secret_files(tmp_path))
    image, error = result_or_error(drawn, document(BLUE_SQUARE + content.format(folder=tmp_path)))
    if not error:  # refused is as good
        assert (image[..., 0] == 0).all()
        assert (image[50, 50] == (*BLUE, 255)).all() or "fill" in content
    assert not opened


def test_nothing_outside_is_seen_through_an_embedded_svg(tmp_path):
    inner = document(f'<image width="100" height="100" xlink:href="file://{secret_files(tmp_path)}/secret.png"/>')
    link = (
        f'<image width="100" height="100" xlink:href="data:image/svg+xml;base64,{base64.b64encode(inner).decode()}"/>'
    )
    assert (drawn(document(BLUE_SQUARE + link))[..., 0] == 0).all()


@pytest.mark.parametrize(
    "prologue",
    [
        '<!DOCTYPE svg [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE svg [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    ],
)
def test_entities_are_refused(prologue):
    with pytest.raises(InputError, match="not an SVG picture that can be drawn"):
        draw_svg(prologue.encode() + document(BLUE_SQUARE + "<text>&e;</text>"), 100)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", ""),
        (document(BLUE_SQUARE)[:-20], ""),
        (document(BLUE_SQUARE, ""), "undefined or zero"),
        (document(BLUE_SQUARE, 'width="0" height="10"'), "undefined or zero"),
        (document(BLUE_SQUARE, 'width="-5" height="10"'), ""),
        (document(BLUE_SQUARE, 'width="inf" height="10"'), ""),
        (document(BLUE_SQUARE, 'width="nan" height="nan"'), ""),
        (document("<g>" * 3000 + "</g>" * 3000), "recursion"),
        (document('<use xlink:href="#a" id="a"/>'), "recursion"),
        (b"\x1f\x8b" + bytes(30), ""),
    ],
    ids=["empty", "text", "cut off", "no size", "zero", "negative", "inf", "nan", "deep", "circle", "damaged gzip"],
)
def test_what_cannot_be_drawn_is_one_line(data, reason):
    with pytest.raises(InputError, match=rf"^not an SVG picture that can be drawn \(.*{reason}.*\)$") as caught:
        draw_svg(data, 100)
    assert "\n" not in str(caught.value)


def test_load_image_names_the_file():
    with pytest.raises(InputError, match=r"^zoo/cat\.svg: not an SVG picture"):
        load_image(b"<hello", "zoo/cat.svg")


def test_a_picture_that_unpacks_to_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(svg, "LARGEST_TEXT", 10_000)
    with pytest.raises(InputError, match="unpacked, it is larger than 10000 bytes"):
        draw_svg(gzip.compress(document(BLUE_SQUARE + " " * 10_000)), 100)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (picture_file(plain_picture(RED, 20)), "png", "embeds a picture of 20 x 20 pixels"),
        (gzip.compress(document(BLUE_SQUARE)), "svg+xml", "embeds something gzipped"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
            "png",
            "embeds a picture of no known type",
        ),
    ],
    ids=["picture", "gzip", "PostScript"],
)
def test_embedded_bombs_and_programs_are_refused(monkeypatch, content, kind, message):
    monkeypatch.setattr(svg, "MOST_PIXELS", 399)
    link = f'<image width="9" height="9" xlink:href="data:image/{kind};base64,{base64.b64encode(content).decode()}"/>'
    with pytest.raises(InputError, match=message):
        draw_svg(document(link), 100)


@pytest.mark.parametrize(
    "content",
    [
        '<rect width="1e9" height="1e9" stroke="black" stroke-dasharray="0.00001"/>',
        '<pattern id="p" width="0.0001" height="0.0001" patternUnits="userSpaceOnUse"><rect width="1" height="1"/>'
        '</pattern><rect width="100" height="100" fill="url(#p)"/>',
        '<pattern id="p" width="1e6" height="1e6" patternUnits="userSpaceOnUse"><rect width="1" height="1"/>'
        '</pattern><rect width="100" height="100" fill="url(#p)"/>',
    ],
)
def test_hostile_numbers_end_soon(content):
    start = time.process_time()
    picture, error = result_or_error(draw_svg, document(content), 100)
    assert error or picture.startswith(b"\x89PNG")
    assert time.process_time() - start < 20  # seconds of this process, whatever else the machine does


@pytest.mark.slow
def test_references_that_multiply_end():
    content = '<g id="a0"><rect width="1" height="1"/></g>'
    for i in range(1, 8):
        content += f'<g id="a{i}">' + f'<use xlink:href="#a{i - 1}"/>' * 10 + "</g>"
    with pytest.raises(InputError, match="referenced elements"):
        draw_svg(document(content), 100)
