import csv
import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.errors import InputError
from tests.perception.media_files import result_or_error


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "pairs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_all_columns(tmp_path):
    (pair,) = read_pairs(
        write(tmp_path, "image,sound,name,class,group,pair_origin\na.png,b.wav,a cat,animal,g7,curated\n")
    )
    assert (pair.image, pair.sound, pair.name, pair.class_name) == ("a.png", "b.wav", "a cat", "animal")
    assert (pair.group, pair.pair_origin) == ("g7", "curated")
    assert pair.place == f"{tmp_path}/pairs.csv row 2"


@pytest.mark.parametrize(
    "text",
    ["image,sound\nzoo/cat.v2.png,b.wav\n", "sound,image,name,class,group,pair_origin\nb.wav,zoo/cat.v2.png,,,,\n"],
)
def test_defaults_of_columns_and_cells_that_are_missing(tmp_path, text):
    (pair,) = read_pairs(write(tmp_path, text))
    assert (pair.name, pair.class_name, pair.group, pair.pair_origin) == ("cat.v2", "cat.v2", None, "annotated")


def test_the_class_is_by_default_the_name(tmp_path):
    (pair,) = read_pairs(write(tmp_path, "image,sound,name\na.png,b.wav,owl\n"))
    assert (pair.name, pair.class_name) == ("owl", "owl")


def test_the_default_name_of_a_file_inside_a_resource_file(tmp_path):
    (pair,) = read_pairs(write(tmp_path, "image,sound\nx.rcc!zoo/owl.svg,b.wav\n"))
    assert pair.name == "owl"


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfimage,sound,name\r\na.png,b.wav,\xc3\xb6wl\r\n",  # as Excel writes it
        b'image , sound ,"name"\n a.png , b.wav ,"\xc3\xb6wl"',
        b"sound,note,name,image,note\nb.wav,?,\xc3\xb6wl,a.png,!\n\n\n",
        b"image,sound,name,,\na.png,b.wav,\xc3\xb6wl,,\n,,,,\n",
    ],
)
def test_how_programs_write_tables(tmp_path, text):
    (pair,) = read_pairs(write(tmp_path, text))
    assert (pair.image, pair.sound, pair.name) == ("a.png", "b.wav", "öwl")


def test_keys_name_the_pair_and_do_not_depend_on_order(tmp_path):
    rows = ["a.png,b.wav,big cat", "c.png,b.wav,../x\ty"[:-2], "d.png,b.wav,***"]
    keys = [pair.key for pair in read_pairs(write(tmp_path, "\n".join(["image,sound,name", *rows])))]
    again = [pair.key for pair in read_pairs(write(tmp_path, "\n".join(["image,sound,name", *rows[::-1]])))]
    assert keys == again[::-1]
    assert len(set(keys)) == 3
    assert keys[0].startswith("big_cat-")
    assert keys[2].startswith("pair-")
    assert all(part.isalnum() for key in keys for part in key.replace("-", "_").split("_"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'image' in the header, which is ''"),
        ("image;sound\na.png;b.wav\n", "no column 'image' in the header, which is 'image;sound'.*with commas"),
        (
            "image,audio\na.png,b.wav\n",
            "no column 'sound'.*needs image, sound and may have name, class, group, pair_origin",
        ),
        ("image,sound,image\na.png,b.wav,c.png\n", "the header has 2 columns 'image'; keep one"),
        ("image,sound,class,class\na.png,b.wav,x,y\n", "the header has 2 columns 'class'"),
        ("image,sound\n", "holds no pairs"),
        ("image,sound\n\n,\n", "holds no pairs"),
        ("image,sound\na.png,b.wav\n,b.wav\n", "row 3: column image is empty"),
        ("image,sound\na.png,  \n", "row 2: column sound is empty"),
        ("image,sound\na.png\n", "row 2: column sound is empty"),
        ("image,sound\n\n\na.png,\n", "row 4: column sound is empty"),  # empty lines count, as in an editor
        (
            "image,sound,pair_origin\na.png,b.wav,found\n",
            "row 2: pair_origin 'found' is not one of annotated, curated, tr",
        ),
        ("image,sound\na.png,b.wav\na.png,b.wav\n", "row 3: the same picture and sound as .*row 2; remove one"),
        ("image,sound,name\na.png,b.wav,x\na.png,b.wav,y\n", "row 3: the same picture and sound as .*row 2"),
        ("image,sound\nred, blue.png,b.wav\n", "row 2: 3 cells under 2 columns; put a cell with a comma in double q"),
        ('image,sound\n"a\nb.png",c.wav\n', "row 2: column image holds a line break"),
        ('image,sound,name\na.png,b.wav,"tab\there"\n', "row 2: column name holds a line break or another control"),
        ('image,sound\n"a.png,b.wav\n', "line 2: not a CSV file"),
        ('image,sound\n"a"x,b.wav\n', "line 2: not a CSV file"),
        (b"image,sound\n\xff.png,b.wav\n", "cannot be read as a CSV file in UTF-8"),
        ("image,sound\na.png,b.wav\n".encode("utf-16"), "cannot be read as a CSV file in UTF-8"),
        ("image,sound\n" + "x" * 200_000 + ",b.wav\n", "line 2: not a CSV file"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"pairs\.csv:? ?{message}") as caught:
        read_pairs(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_nul_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"pairs\.csv"):
        read_pairs(write(tmp_path, "image,sound\na\0.png,b.wav\n"))


def test_no_list(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file or folder"):
        read_pairs(tmp_path / "none.csv")


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text == text.strip() and text
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6, unique_by=lambda row: row[:2]))
def test_whatever_a_csv_writer_writes_is_read_back(tmp_path_factory, rows):
    file = io.StringIO()
    csv.writer(file).writerows([("image", "sound", "class"), *rows])
    pairs = read_pairs(write(tmp_path_factory.mktemp("csv"), file.getvalue()))
    assert [(pair.image, pair.sound, pair.class_name) for pair in pairs] == rows


@settings(max_examples=150, deadline=None)
@given(text=st.binary(max_size=80))
def test_any_bytes_are_pairs_or_an_input_error(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("csv"), b"image,sound,pair_origin\n" + text)
    pairs, error = result_or_error(read_pairs, path)
    if error:
        assert str(path) in error
    else:
        assert all(pair.image and pair.sound and pair.key for pair in pairs)


def make_folder(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return folder


def test_files_of_the_same_name_in_a_folder_are_pairs(tmp_path):
    folder = make_folder(
        tmp_path / "zoo",
        "bird/owl.png", "bird/owl.WAV", "bird/owl.jpg", "bird/alone.png",
        "beast/cat.v2.svg", "beast/cat.v2.ogg", "beast/cat.ogg", "beast/notes.txt",
        "crow.gif", "crow.mp3", "crow.flac", "bird/crow.png",
    )  # fmt: skip
    found = {(pair.image, pair.sound, pair.name, pair.class_name) for pair in read_pairs(folder)}
    assert found == {
        ("bird/owl.png", "bird/owl.WAV", "owl", "bird"),
        ("bird/owl.jpg", "bird/owl.WAV", "owl", "bird"),
        ("beast/cat.v2.svg", "beast/cat.v2.ogg", "cat.v2", "beast"),
        ("crow.gif", "crow.mp3", "crow", "zoo"),
        ("crow.gif", "crow.flac", "crow", "zoo"),
    }
    assert all(pair.group is None for pair in read_pairs(folder))


def test_the_class_of_a_folder_named_by_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(make_folder(tmp_path / "zoo", "owl.png", "owl.wav"))
    (pair,) = read_pairs(Path("."))
    assert pair.class_name == "zoo"


def test_hidden_files_are_not_looked_at(tmp_path):
    folder = make_folder(
        tmp_path, "a/owl.png", "a/owl.wav", "a/._owl.png", "a/._owl.wav", ".trash/x.png", ".trash/x.wav"
    )
    assert [pair.image for pair in read_pairs(folder)] == ["a/owl.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_linked_folders_are_looked_into(tmp_path):
    make_folder(tmp_path, "disk/owl.png", "disk/owl.wav", "set/cat.png", "set/cat.wav")
    (tmp_path / "set" / "owls").symlink_to(tmp_path / "disk")
    assert [(pair.image, pair.class_name) for pair in read_pairs(tmp_path / "set")] == [
        ("cat.png", "set"),
        ("owls/owl.png", "owls"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let such a file be made")
@pytest.mark.parametrize("name", [b"\xff", b"line\nbreak"])
def test_file_names_that_are_no_text(tmp_path, name):
    for suffix in (b".png", b".wav"):
        with open(os.fsencode(tmp_path) + b"/" + name + suffix, "wb"):
            pass
    with pytest.raises(InputError, match="its name is not readable text"):
        read_pairs(tmp_path)


def test_a_folder_without_pairs(tmp_path):
    with pytest.raises(InputError, match="holds no pairs of a picture and a sound"):
        read_pairs(make_folder(tmp_path, "a.png", "b.wav"))
