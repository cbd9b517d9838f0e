"""Pascal VOC: xml files below data_dir/Annotations, images below data_dir/JPEGImages, splits in ImageSets/Main.

A folder with only xml files works too (train_ann "train"); without class_names the names found are sorted.
"""

from yolox_lt.exp import OwnDataExp


class Exp(OwnDataExp):
    def __init__(self):
        super().__init__()
        self.data_dir = "datasets/bccd_voc"
        self.train_ann, self.val_ann = "ImageSets/Main/train.txt", "ImageSets/Main/val.txt"
        self.class_names = ("RBC", "WBC", "Platelets")
