import pytest

from lightning_ss2a.builders.listing import FSD50K, list_items
from lightning_ss2a.errors import InputError
from tests.builders.listing.test_media_files import make

DEV = """fname,labels,mids,split
64760,"Electric_guitar,Guitar,Plucked_string_instrument,Musical_instrument,Music","/m/02sgy,/m/0342h",train
16399,"Chirp_and_tweet,Bird","/m/07pggtn,/m/015p6",val
"""
EVAL = """fname,labels,mids
37199,Bark,/m/05tny_
"""


def write(folder, dev=DEV, evaluation=EVAL):
    (folder / "FSD50K.ground_truth").mkdir()
    for name, text in (("dev", dev), ("eval", evaluation)):
        (folder / "FSD50K.ground_truth" / f"{name}.csv").write_text(text)
    return folder


def test_labels_become_texts(tmp_path):
    make(write(tmp_path), "FSD50K.dev_audio/64760.wav", "FSD50K.eval_audio/37199.wav")
    listing = list_items(str(tmp_path), FSD50K())
    guitar, bark = listing.items
    (chirp,) = listing.missing
    assert guitar.text == (
        "The sounds of Electric guitar, Guitar, Plucked string instrument, Musical instrument and Music"
    )
    assert (chirp.text, bark.text) == ("The sounds of Chirp and tweet and Bird", "The sounds of Bark")
    assert (guitar.sound, bark.sound) == ("FSD50K.dev_audio/64760.wav", "FSD50K.eval_audio/37199.wav")
    assert [item.split for item in (guitar, chirp, bark)] == ["train", "validation", "test"]
    assert [item.class_name for item in (guitar, chirp, bark)] == ["Electric guitar", "Chirp and tweet", "Bark"]
    assert (guitar.key, guitar.pair_origin, guitar.seen) == ("64760", "translated", "text")


def test_shorter_texts(tmp_path):
    listing = list_items(str(write(tmp_path)), FSD50K(template="{labels}", most_labels=1))
    assert [item.text for item in listing.missing] == ["Electric guitar", "Chirp and tweet", "Bark"]


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        ("fname,labels,mids\n1,Bark,x\n", "no column 'split'"),
        ("fname,labels,mids,split\n1,Bark,x,test\n", "row 2: split 'test' is not one of train, val"),
        ("fname,labels,mids,split\n1,,x,train\n", "row 2: column labels is empty"),
        ('fname,labels,mids,split\n1,",",x,train\n', "row 2: column labels holds no label"),
        ("fname,labels,mids,split\n37199,Cat,x,train\n", "the same key as"),
    ],
)
def test_wrong_files(tmp_path, dev, message):
    with pytest.raises(InputError, match=message):
        list_items(str(write(tmp_path, dev)), FSD50K())


def test_no_data_set(tmp_path):
    with pytest.raises(InputError, match=r"dev\.csv: no such file"):
        list_items(str(tmp_path), FSD50K())
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match=r"name the one that holds FSD50K\.ground_truth"):
        list_items(str(tmp_path / "x"), FSD50K())


@pytest.mark.parametrize("options", [{"template": "sounds"}, {"most_labels": 0}])
def test_wrong_options(options):
    with pytest.raises(InputError, match=r"template must hold|most_labels must be at least 1"):
        FSD50K(**options)
