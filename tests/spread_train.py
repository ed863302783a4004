"""What test_experiments starts under torchrun: one training, shared by processes."""

import json
import sys

import torch
import torch.distributed as dist
from torch.nn import functional

from experiments.common import start_processes
from experiments.loop import ranks, shuffled, train
from experiments.sequences import adding, ckcnn


def losses() -> list[float]:
    """Eight steps of a small CKCNN on batches of 6; no dropout."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = ckcnn(2, 1, 4, "last", 10.0)
    batch = shuffled(*adding(20, 12, seed=0), 6, seed=1)
    run = train(
        model, functional.mse_loss, batch, steps=8, learning_rate=1e-2, max_norm=1.0
    )
    return run.losses


if __name__ == "__main__":
    start_processes("cpu")
    seen = losses()
    if ranks()[0] == 0:
        with open(sys.argv[1], "w") as file:
            json.dump({"losses": seen, "processes": ranks()[1]}, file)
    dist.destroy_process_group()
