"""YOLO: text labels beside the images by the rule images/ -> labels/, splits and names in a data.yaml."""

from yolox_lt.exp import YOLOXStarExp


class Exp(YOLOXStarExp):
    def __init__(self):
        super().__init__()
        self.data_dir = "datasets/bccd_yolo"
        self.train_ann = self.val_ann = "data.yaml"  # its train and its val
        self.test_ann = "data.yaml:test"
        self.train_images = self.val_images = self.test_images = None  # where the yaml says
        self.num_classes = 3
        self.depth, self.width = 0.33, 0.5  # YOLOX-S
