"""YOLO: text labels found by the rule images/ -> labels/, splits and names in a data.yaml."""

from yolox_lt.exp import OwnDataExp


class Exp(OwnDataExp):
    def __init__(self):
        super().__init__()
        self.data_dir = "datasets/bccd_yolo"
        self.train_ann = self.val_ann = "data.yaml"  # its train and its val
        self.test_ann = "data.yaml:test"
