"""Writes event files as trainers on PyTorch do (diffusers' through accelerate, lucidrains' users by hand): scalars and
pictures, in nested folders.

    pip install torch tensorboard
    python write_events.py DIR
"""
import sys
import torch
from torch.utils.tensorboard import SummaryWriter

with SummaryWriter(sys.argv[1] + "/logs/train_unconditional") as writer:
    for step in range(1, 6):
        writer.add_scalar("loss", 1 / step, step)
        writer.add_scalar("lr", 1e-4, step, new_style=True)
    grey = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    writer.add_images("test_samples", torch.stack([grey, 1 - grey]).repeat(1, 3, 1, 1), 5)
