"""Class Regularization from scratch on the embedded data set `motion`.

Stergiou, Poppe and Veltkamp 2020 and the thesis' chapter 6 measure on Kinetics and HACS: nothing here to compare with.
The argument is the network: one of an r3d's kind is trained as `configs/motion.py` has it, an MTNet as
`configs/mtnet.py` has it. Its twin is the same network by that config, and the question is put to `jaxvid compare`:

    jaxvid train --config=configs/motion_class_regularization.py:r3d_18 --workdir=runs/motion-cr
    jaxvid train --config=configs/motion.py:r3d_18 --workdir=runs/motion-plain
    jaxvid eval --checkpoint=runs/motion-cr
    jaxvid eval --checkpoint=runs/motion-plain
    jaxvid compare runs/motion-cr runs/motion-plain

Seen with seed 0, top-1 on the 288 clips of `val`: r3d_18 96.9 %, its twin 97.6 %; 5 clips are won and 7 lost (exact
p = 0.77). mtnet_s, which is far from trained after its ten epochs, 34.7 %, its twin 39.2 %; 25 won and 38 lost (exact
p = 0.13). No gain in either. What each stage takes a clip for is in runs/motion-cr/eval/stage_guesses.txt: nearly
always the same class, see jaxvid.nn.ClassRegularization.
"""

import pathlib
import runpy

_HERE = pathlib.Path(__file__).parent


def get_config(model: str = "r3d_18"):
    mtnet = model.startswith("mtnet")
    get_twin = runpy.run_path(str(_HERE / ("mtnet.py" if mtnet else "motion.py")))["get_config"]
    config = get_twin() if mtnet else get_twin(model)
    config.model.name = model
    config.model.class_regularization.enabled = True
    return config
