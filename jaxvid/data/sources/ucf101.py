from jaxvid.data.records import VideoDataset


def read_ucf101(root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0) -> VideoDataset:
    raise NotImplementedError
