"""What a user puts into ``Trainer(callbacks=[...])``: one file a method."""

from lightning_cl.callbacks.adapters.adapter import Adapter
from lightning_cl.callbacks.adapters.aper import APER
from lightning_cl.callbacks.adapters.ease import EASE
from lightning_cl.callbacks.adapters.inflora import InfLoRA
from lightning_cl.callbacks.adapters.lora import LoRA
from lightning_cl.callbacks.adapters.mos import MOS
from lightning_cl.callbacks.adapters.sdlora import SDLoRA
from lightning_cl.callbacks.adapters.slca import SLCA
from lightning_cl.callbacks.base import ContinualCallback, ContinualMethod
from lightning_cl.callbacks.checkpoints.continual_checkpoint import ContinualCheckpoint
from lightning_cl.callbacks.distillation.features import FeatureDistillation
from lightning_cl.callbacks.distillation.lwf import LwF
from lightning_cl.callbacks.distillation.wa import WA
from lightning_cl.callbacks.evaluation.anytime_evaluation import AnytimeEvaluation
from lightning_cl.callbacks.evaluation.continual_evaluation import ContinualEvaluation
from lightning_cl.callbacks.evaluation.protocol_guard import ProtocolGuard
from lightning_cl.callbacks.evaluation.run_cost import RunCost
from lightning_cl.callbacks.finetuning import FineTuning
from lightning_cl.callbacks.gradients.agem import AGEM
from lightning_cl.callbacks.gradients.gem import GEM
from lightning_cl.callbacks.gradients.gpm import GPM
from lightning_cl.callbacks.language.cpe_clip import CPECLIP
from lightning_cl.callbacks.language.language_guided_head import LanguageGuidedHead
from lightning_cl.callbacks.language.lgcl import LGCL
from lightning_cl.callbacks.prompts.coda_prompt import CODAPrompt
from lightning_cl.callbacks.prompts.dual_prompt import DualPrompt
from lightning_cl.callbacks.prompts.l2p import L2P
from lightning_cl.callbacks.prompts.mvp import MVP
from lightning_cl.callbacks.prompts.one_prompt import OnePrompt
from lightning_cl.callbacks.prompts.virtual_outliers import VirtualOutlierRegularizer
from lightning_cl.callbacks.prototypes.prototype_classifier import PrototypeClassifier
from lightning_cl.callbacks.prototypes.teen import TEEN
from lightning_cl.callbacks.regularization.ewc import EWC
from lightning_cl.callbacks.regularization.l2sp import L2SP
from lightning_cl.callbacks.regularization.mas import MAS
from lightning_cl.callbacks.regularization.si import SynapticIntelligence
from lightning_cl.callbacks.replay.der import DERPlusPlus
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.callbacks.sharded_backbone import ShardedBackbone
from lightning_cl.callbacks.two_phase import TwoPhaseProtocol

__all__ = [
    "AGEM",
    "APER",
    "CPECLIP",
    "EASE",
    "EWC",
    "GEM",
    "GPM",
    "L2P",
    "L2SP",
    "LGCL",
    "MAS",
    "MOS",
    "MVP",
    "SLCA",
    "TEEN",
    "WA",
    "Adapter",
    "AnytimeEvaluation",
    "CODAPrompt",
    "ContinualCallback",
    "ContinualCheckpoint",
    "ContinualEvaluation",
    "ContinualMethod",
    "DERPlusPlus",
    "DualPrompt",
    "ExperienceReplay",
    "FeatureDistillation",
    "FineTuning",
    "InfLoRA",
    "LanguageGuidedHead",
    "LoRA",
    "LwF",
    "OnePrompt",
    "ProtocolGuard",
    "PrototypeClassifier",
    "RunCost",
    "SDLoRA",
    "ShardedBackbone",
    "SynapticIntelligence",
    "TwoPhaseProtocol",
    "VirtualOutlierRegularizer",
]
