from jaxvid.data.records import VideoDataset


def read_folder(root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0) -> VideoDataset:
    raise NotImplementedError
