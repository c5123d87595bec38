"""Names the 80 things of COCO, and what each sounds like in the words of AudioSet."""

COCO_TO_AUDIOSET: dict[str, str | None] = {
    "person": "Speech",
    "bicycle": "Bicycle",
    "car": "Car",
    "motorcycle": "Motorcycle",
    "airplane": "Fixed-wing aircraft, airplane",
    "bus": "Bus",
    "train": "Train",
    "truck": "Truck",
    "boat": "Boat, Water vehicle",
    "traffic light": "Traffic noise, roadway noise",
    "fire hydrant": None,
    "stop sign": None,
    "parking meter": None,
    "bench": None,
    "bird": "Bird",
    "cat": "Cat",
    "dog": "Dog",
    "horse": "Horse",
    "sheep": "Sheep",
    "cow": "Cattle, bovinae",
    "elephant": "Wild animals",
    "bear": "Wild animals",
    "zebra": "Wild animals",
    "giraffe": "Wild animals",
    "backpack": "Zipper (clothing)",
    "umbrella": None,
    "handbag": "Zipper (clothing)",
    "tie": None,
    "suitcase": None,
    "frisbee": None,
    "skis": None,
    "snowboard": None,
    "sports ball": "Bouncing",
    "kite": None,
    "baseball bat": "Whack, thwack",
    "baseball glove": None,
    "skateboard": "Skateboard",
    "surfboard": "Waves, surf",
    "tennis racket": "Whack, thwack",
    "bottle": "Glass",
    "wine glass": "Chink, clink",
    "cup": "Dishes, pots, and pans",
    "fork": "Cutlery, silverware",
    "knife": "Cutlery, silverware",
    "spoon": "Cutlery, silverware",
    "bowl": "Dishes, pots, and pans",
    "banana": None,
    "apple": "Biting",
    "sandwich": "Chewing, mastication",
    "orange": None,
    "broccoli": None,
    "carrot": "Crunch",
    "hot dog": "Chewing, mastication",
    "pizza": "Chewing, mastication",
    "donut": "Chewing, mastication",
    "cake": None,
    "chair": None,
    "couch": None,
    "potted plant": "Rustling leaves",
    "bed": None,
    "dining table": "Dishes, pots, and pans",
    "toilet": "Toilet flush",
    "tv": "Television",
    "laptop": "Computer keyboard",
    "mouse": "Clicking",  # the computer's: AudioSet's Mouse is the animal
    "remote": "Clicking",
    "keyboard": "Computer keyboard",
    "cell phone": "Telephone",
    "microwave": "Microwave oven",
    "oven": None,
    "toaster": None,
    "sink": "Sink (filling or washing)",
    "refrigerator": "Mechanical fan",
    "book": None,
    "clock": "Clock",
    "vase": None,
    "scissors": "Scissors",
    "teddy bear": None,
    "hair drier": "Hair dryer",
    "toothbrush": "Toothbrush",
}
"""In COCO's order. Written by hand, after what a recording of the thing is most often labelled with; None: the thing
makes no sound that AudioSet has a name for. A name may be wider than the thing: AudioSet has no elephant."""

COCO_LABELS: tuple[str, ...] = tuple(COCO_TO_AUDIOSET)
"""The names of the 80 things, in COCO's order."""


def coco_to_audioset(label: str) -> str | None:
    """Tells what a thing of COCO sounds like: a name of AudioSet's, or None if it makes no sound of its own.

    Raises:
        KeyError: COCO has no such thing.
    """
    return COCO_TO_AUDIOSET[label]
