"""The processes of a run by several ranks, started by training/parallel.py.

python -m reelmill.training.rank torchrun PARENT RANKS FOLDER  torch's elastic launcher
python -m reelmill.training.rank ray PARENT RANKS FOLDER       the driver of Ray Train
python -m reelmill.training.rank train FOLDER                  one rank
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from reelmill.training.orphan import LOST, die_with_parent


def main(words: list[str]) -> int:
    if words[0] == "train":
        from reelmill.training.parallel import LOG_LEVEL, as_rank
        from reelmill.training.ranks import speak
        from reelmill.training.trainer import train

        rank = int(os.environ["RANK"])
        level = int(os.environ.get(LOG_LEVEL, logging.WARNING))
        logging.basicConfig(level=level, format=f"rank {rank}: %(message)s")
        speak(rank)
        return as_rank(Path(words[1]), rank, train)
    how, parent, ranks, folder = words
    die_with_parent()
    if os.getppid() != int(parent):
        return LOST
    if how == "ray":
        from reelmill.training.parallel import train_by_ray
        from reelmill.training.trainer import train

        return train_by_ray(Path(folder), int(ranks), train)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    flags = ["--standalone", f"--nproc-per-node={ranks}", "--max-restarts=0"]
    try:
        torchrun([*flags, "-m", "reelmill.training.rank", "train", folder])
    except ChildFailedError as error:
        return abs(error.get_first_failure()[1].exitcode) or 1
    except SignalException:
        return LOST
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
