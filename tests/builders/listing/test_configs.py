"""Each file in configs/datasets/ is read by the parser that commands use, and lists its layout."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_ss2a.builders.listing import ItemReader, list_items
from tests.builders.listing import test_folders, test_fsd50k, test_vggsound
from tests.builders.listing.test_media_files import make

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "datasets").glob("*.yaml"))


def reader_of(path: Path) -> ItemReader:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--reader", type=ItemReader)
    parser.add_argument("--provenance", type=str)
    parser.add_argument("--licence", type=str)
    return parser.instantiate_classes(parser.parse_args([f"--config={path}"])).reader


def write_layout(name: str, folder: Path) -> list[str]:
    """Writes a tiny data set of a layout; gives its keys."""
    match name:
        case "vggsound":
            test_vggsound.write(folder)
            return ["---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "-0jeONf82dE_000000", "_0TBp3ZPXBc_000364"]
        case "vggss":
            test_vggsound.write_boxes(folder)
            return [entry["file"] for entry in test_vggsound.ENTRIES]
        case "fsd50k":
            test_fsd50k.write(folder)
            return ["64760", "16399", "37199"]
        case "captions":
            test_folders.write_captions(folder, train__1=test_folders.EPIDEMIC)
            return ["train/1"]
        case "music":
            for file, content in (("21_solo", test_folders.SOLOS), ("_duet", test_folders.DUETS)):
                (folder / f"MUSIC{file}_videos.json").write_text(test_folders.json.dumps(content))
            return ["8DHG_hVSw1o", "XbOYpwFkn7o", "RWP6BHh_c7Y", "pIPr-lp0C6E"]
        case "imagehear":
            make(folder, "bongo1.jpg", "dog2.jpg")
            return ["bongo1.jpg", "dog2.jpg"]
        case "avsync15":
            for split in ("train", "test"):
                (folder / f"{split}.txt").write_text(f"hammering/3yXCtpvjz6E_{split}.mp4\n")
            return ["hammering/3yXCtpvjz6E_train.mp4", "hammering/3yXCtpvjz6E_test.mp4"]
        case "videos":
            make(folder, "dog/1.mp4")
            return ["dog/1.mp4"]
        case "csv_of_videos":
            (folder / "items.csv").write_text("video,start,end,label,split\na.mp4,3,13,dog,train\n")
            return ["a.mp4 3"]
    raise AssertionError(f"no layout for {name}")


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_layout(tmp_path, path):
    keys = write_layout(path.stem, tmp_path)
    listing = list_items(str(tmp_path), reader_of(path))
    assert sorted(item.key for item in (*listing.items, *listing.missing)) == sorted(keys)


def test_there_are_layouts():
    assert len(CONFIGS) == 9
