import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ss2a.builders.listing import CsvItems, PairItems, list_items
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.errors import InputError
from tests.perception.media_files import result_or_error


def read(tmp_path, text: str | bytes, reader: CsvItems):
    path = tmp_path / "x.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(reader.read(path, tmp_path))


def test_every_option_is_a_template_over_the_columns(tmp_path):
    reader = CsvItems(
        video="clips/{id}_{start:06d}.mp4", sound="{wav}", key="{id}-{start}", name="a {label}", class_name="{label}",
        group="{id}", split="{part}", pair_origin="{origin}", start="{start}", seconds="10", sources="{n}",
    )  # fmt: skip
    text = "id,start,label,part,origin,n,wav,more\nabc,7,dog,train,curated,2,x.wav,?\nabc,12.0,cat,,annotated,1.0,,\n"
    first, second = read(tmp_path, text, reader)
    assert (first.video, first.sound, first.key, first.name) == ("clips/abc_000007.mp4", "x.wav", "abc-7", "a dog")
    assert (first.class_name, first.group, first.split, first.pair_origin) == ("dog", "abc", "train", "curated")
    assert (first.window, first.sources) == ((7.0, 17.0), 2)
    assert first.place == f"{tmp_path}/x.csv row 2"
    assert (second.video, second.sound, second.key) == ("clips/abc_000012.mp4", None, "abc-12.0")
    assert (second.split, second.window, second.sources) == (None, (12.0, 22.0), 1)


def test_defaults(tmp_path):
    (item,) = read(tmp_path, "file\nzoo/owl.v2.mp4\n", CsvItems(video="{file}"))
    assert (item.key, item.name, item.class_name) == ("zoo/owl.v2.mp4", "owl.v2", "owl.v2")
    assert (item.window, item.group, item.split, item.sources) == (None, None, None, None)
    assert item.pair_origin == "annotated"
    (item,) = read(tmp_path, "t,s\na dog barks,d/1.wav\n", CsvItems(text="{t}", sound="{s}"))
    assert (item.key, item.name, item.class_name, item.pair_origin) == (
        "d/1.wav", "a dog barks", "a dog barks", "translated"
    )  # fmt: skip


def test_a_file_without_a_header(tmp_path):
    (item,) = read(
        tmp_path, "a.png,b.wav,dog\n", CsvItems("{p}", sound="{s}", class_name="{c}", columns=["p", "s", "c"])
    )
    assert (item.picture, item.sound, item.class_name) == ("a.png", "b.wav", "dog")
    assert item.place.endswith("row 1")


def test_a_row_has_the_media_that_it_has_cells_for(tmp_path):
    reader = CsvItems(picture="{p}", text="{t}", sound="{s}.wav")
    items = read(tmp_path, "p,t,s\na.png,,1\n,a dog,2\nb.png,,\n", reader)
    assert [item.seen for item in items] == ["picture", "text", "picture"]
    assert [item.sound for item in items] == ["1.wav", "2.wav", None]
    with pytest.raises(InputError, match="row 2: both picture and text are given"):
        read(tmp_path, "p,t,s\na.png,a dog,1\n", reader)
    with pytest.raises(InputError, match="row 2: the cells of picture and text and sound are empty"):
        read(tmp_path, "p,t,s,x\n,,,1\n", reader)


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"video": "{file}"}, "path\na\n", "no column 'file' in the header, which is 'path'; needs file"),
        ({"video": "{a}", "class_name": "{b}"}, "a,c\n1,2\n", "no column 'b' in the header"),
        ({"video": "{a}"}, "a,b\n,1\n", "row 2: column a is empty"),
        ({"video": "{a}"}, "a\nx,y\n", "row 2: 2 cells under 1 columns"),
        ({"video": "{a}", "start": "{b}"}, "a,b\nx,1\n", "row 2: has a start, but neither end nor seconds"),
        ({"video": "{a}", "end": "{b}"}, "a,b\nx,soon\n", "row 2: end 'soon' is no number"),
        ({"video": "{a}", "start": "{b}", "end": "1"}, "a,b\nx,2\n", "row 2: the clip from 2 s to 1 s is none"),
        ({"video": "{a}", "sources": "{b}"}, "a,b\nx,1.5\n", "row 2: sources '1.5' is no whole number"),
        ({"video": "{a:06d}"}, "a\nx\n", "row 2: a 'x' is no whole number"),
        ({"video": "{a:>0q}"}, "a\nx\n", "video: '>0q' is no format for a"),
        ({"video": "{a}", "pair_origin": "{b}"}, "a,b\nx,y\n", "row 2: pair_origin 'y' is not one of"),
    ],
)
def test_wrong_files(tmp_path, options, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text, CsvItems(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name a column of at least one of picture, video, text, sound"),
        ({"video": "{a"}, r"video: '\{a' is no template"),
        ({"video": "{}.mp4"}, "has braces without the name of a column"),
        ({"video": "{a}", "end": "1", "seconds": "1"}, "end and seconds both say where an item ends"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        CsvItems(**options)


def test_keys_that_several_rows_have(tmp_path):
    (tmp_path / "x.csv").write_text("file,start\na.mp4,0\na.mp4,10\n")
    options = {"video": "{file}", "start": "{start}", "seconds": "10"}
    with pytest.raises(InputError, match=r"row 3: the same key as .* row 2, 'a\.mp4', with other content"):
        list_items(str(tmp_path / "x.csv"), CsvItems(**options))
    assert len(list_items(str(tmp_path / "x.csv"), CsvItems(**options, key="{file} {start}")).missing) == 2


def test_the_file_of_a_folder(tmp_path):
    (tmp_path / "list.csv").write_text("file\na.mp4\n")
    (tmp_path / "a.mp4").write_bytes(b"")
    assert len(list_items(str(tmp_path), CsvItems(video="{file}", file="list.csv")).items) == 1
    with pytest.raises(InputError, match=r"items\.csv: no such file"):
        list_items(str(tmp_path), CsvItems(video="{file}"))


@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=60))
def test_any_bytes_are_items_or_an_input_error(tmp_path_factory, text):
    reader = CsvItems(video="{a}", key="{a}{b}", start="{b}", end="{c}")
    items, error = result_or_error(read, tmp_path_factory.mktemp("csv"), b"a,b,c\n" + text, reader)
    assert error is not None or all(item.video and item.key for item in items)


def test_our_own_lists_of_pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("image,sound,name,class,group,pair_origin\na.png,b.wav,a cat,animal,g7,curated\nc.png,d.wav,,,,\n")
    items = list(PairItems().read(path, tmp_path))
    for item, pair in zip(items, read_pairs(path), strict=True):
        assert (item.picture, item.sound, item.key, item.place) == (pair.image, pair.sound, pair.key, pair.place)
        assert (item.name, item.class_name, item.group) == (pair.name, pair.class_name, pair.group)
        assert item.pair_origin == pair.pair_origin
