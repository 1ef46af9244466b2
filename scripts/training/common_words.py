"""Everyday words for groups of ImageNet's 1,000 classes, which know a hundred kinds of dog and no dog.

Indices are those of ILSVRC 2012 in wnid order, as in open_clip's IMAGENET_CLASSNAMES.
"""

from __future__ import annotations

from collections.abc import Iterable

GROUPS: dict[str, Iterable[int]] = {
    "fish": [*range(7), *range(389, 398)],
    "shark": range(2, 5),
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "chicken": (7, 8),
    "frog": range(30, 33),
    "turtle": range(33, 38),
    "lizard": range(38, 49),
    "snake": range(52, 69),
    "spider": range(72, 78),
    "dog": range(151, 269),
    "wolf": range(269, 273),
    "fox": range(277, 281),
    "cat": range(281, 286),
    "big cat": range(286, 294),
    "bear": range(294, 298),
    "insect": range(300, 327),
    "beetle": range(300, 308),
    "butterfly": range(321, 327),
    "rabbit": range(330, 333),
    "horse": (339,),
    "cow": (345,),
    "sheep": (348, 349),
    "ape": range(365, 370),
    "monkey": range(370, 383),
    "elephant": (385, 386),
    "airplane": (404, 895),
    "ball": (429, 430, 522, 574, 722, 768, 805, 852, 890),
    "bicycle": (444, 671),
    "boat": (472, 484, 554, 576, 625, 780, 814, 871, 914),
    "bottle": (440, 737, 898, 907),
    "building": (497, 663, 668, 832, 698),
    "bus": (654, 779, 874),
    "car": (436, 468, 511, 609, 627, 656, 661, 751, 817),
    "chair": (423, 559, 765),
    "clock": (409, 530, 892),
    "computer": (527, 620, 681),
    "cup": (504, 968),
    "flower": (985, 986),
    "fruit": range(948, 958),
    "guitar": (402, 546),
    "motorcycle": (665, 670),
    "phone": (487, 528, 707),
    "ship": (403, 510, 628, 724),
    "shoe": (502, 514, 630, 770, 774),
    "train": (466, 547, 705, 820),
    "truck": (555, 569, 675, 717, 864, 867),
    "vegetable": range(936, 947),
}
