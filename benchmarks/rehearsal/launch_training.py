"""Run DataComp's train.py, as it is, with another entry in its table of scales: a model and sizes for a rehearsal.

    python launch_training.py CHECKOUT MODEL.json BATCH SAMPLES [what train.py takes]

Runs with the interpreter that has DataComp's requirements, so it imports nothing of mgd's.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    checkout, model, batch, samples, *arguments = sys.argv[1:]
    sys.path.insert(0, checkout)
    import open_clip
    import scale_configs  # type: ignore[import-not-found]

    open_clip.add_model_config(model)
    sizes = {"model": Path(model).stem, "batch_size": int(batch), "train_num_samples": int(samples), "warmup": 8}
    scale_configs.SCALE_CONFIGS["debug"].update(sizes)
    sys.argv = ["train.py", *arguments]
    runpy.run_path(str(Path(checkout) / "train.py"), run_name="__main__")
