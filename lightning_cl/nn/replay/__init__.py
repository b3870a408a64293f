"""Replay: a buffer that stores, policies that answer which item goes into which slot, and herding."""

from lightning_cl.nn.replay.balanced import ClassBalanced
from lightning_cl.nn.replay.batches import check_rows, gather_rows_of, join, map_leaves, stacks, take
from lightning_cl.nn.replay.buffer import ReplayBuffer
from lightning_cl.nn.replay.gradient_based import GradientBased
from lightning_cl.nn.replay.greedy import GreedyBalanced
from lightning_cl.nn.replay.herding import Herding, herding
from lightning_cl.nn.replay.importance import SampleImportance
from lightning_cl.nn.replay.policies import Policy, Reservoir, Ring, first_of_each_class
from lightning_cl.nn.replay.sequences import padded_alike, padded_over_processes

__all__ = [
    "ClassBalanced",
    "GradientBased",
    "GreedyBalanced",
    "Herding",
    "Policy",
    "ReplayBuffer",
    "Reservoir",
    "Ring",
    "SampleImportance",
    "check_rows",
    "first_of_each_class",
    "gather_rows_of",
    "herding",
    "join",
    "map_leaves",
    "padded_alike",
    "padded_over_processes",
    "stacks",
    "take",
]
