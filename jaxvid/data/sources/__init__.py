"""Readers of file layouts: ``(root, split, **options) -> VideoDataset``, one file each."""
