from jaxvid.data.records import VideoDataset


def read_hmdb51(root: str, split: str, *, annotations: str = "", val_fraction: float = 0.0) -> VideoDataset:
    raise NotImplementedError
