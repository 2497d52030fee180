"""Data sets that jaxvid makes or describes by itself."""
