"""Several annotation files as one data set, of any formats, joined by the names of their categories.

blood.json is a mapping like {"RBC": "cell", "WBC": "cell", "Platelets": "platelet", "*": null}: it merges, renames and
leaves out, and makes the ids of training and validation the same.
"""

from yolox_lt.exp import OwnDataExp


class Exp(OwnDataExp):
    def __init__(self):
        super().__init__()
        self.data_dir = "datasets"
        self.train_ann = ("bccd/train.json", "more/annotations.json")
        self.train_images = ("bccd/images", "more/pictures")  # one folder for each file
        self.val_ann, self.val_images = "bccd/val.json", "bccd/images"
        self.category_map = "blood.json"
