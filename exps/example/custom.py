"""Your own data: copy this file, change the lines below, run python tools/train.py -f your_file.py

Annotations are COCO or LVIS json; images lie where the json's file_name says below data_dir or data_dir/images.
What is not set here is chosen from the training annotations and `iterations`; the log says each choice and why. As it
stands it fine-tunes YOLOX-Nano on three kinds of blood cells (BCCD).
"""

from yolox_lt.exp import OwnDataExp


class Exp(OwnDataExp):
    def __init__(self):
        super().__init__()
        self.data_dir = "datasets/bccd"
        self.train_ann, self.val_ann, self.test_ann = "train.json", "val.json", "test.json"
        self.iterations = 1000  # of 8 images each (batch_size)
