"""jaxvid: recognising human actions in video with JAX.

Importing it touches no device and no optional package; each room is imported where it is needed::

    from jaxvid import models
    model = models.build("srtg_r3d_18", num_classes=10)
"""

__version__ = "0.1.0"
