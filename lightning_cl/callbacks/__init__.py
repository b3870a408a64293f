"""What a user puts into ``Trainer(callbacks=[...])``: one file a method."""

from lightning_cl.callbacks.adaptation.cotta import CoTTA
from lightning_cl.callbacks.adaptation.nhl import NHL
from lightning_cl.callbacks.adapters.adapter import Adapter
from lightning_cl.callbacks.adapters.aper import APER
from lightning_cl.callbacks.adapters.ear import EAR
from lightning_cl.callbacks.adapters.ease import EASE
from lightning_cl.callbacks.adapters.gs_lora import GSLoRA
from lightning_cl.callbacks.adapters.gs_lora_plus_plus import GSLoRAPlusPlus
from lightning_cl.callbacks.adapters.inflora import InfLoRA
from lightning_cl.callbacks.adapters.l2m import L2M
from lightning_cl.callbacks.adapters.lora import LoRA
from lightning_cl.callbacks.adapters.mora import MoRA
from lightning_cl.callbacks.adapters.mos import MOS
from lightning_cl.callbacks.adapters.reg_lora import RegLoRA
from lightning_cl.callbacks.adapters.sdlora import SDLoRA
from lightning_cl.callbacks.adapters.sema import SEMA
from lightning_cl.callbacks.adapters.slca import SLCA
from lightning_cl.callbacks.adapters.slm import SLM
from lightning_cl.callbacks.architecture.dynamically_expandable import DynamicallyExpandable
from lightning_cl.callbacks.architecture.expert_gate import ExpertGate
from lightning_cl.callbacks.architecture.foster import FOSTER
from lightning_cl.callbacks.architecture.memo import MEMO
from lightning_cl.callbacks.architecture.tame import TAME
from lightning_cl.callbacks.base import ContinualCallback, ContinualMethod
from lightning_cl.callbacks.checkpoints.continual_checkpoint import ContinualCheckpoint
from lightning_cl.callbacks.distillation.ebll import EBLL
from lightning_cl.callbacks.distillation.features import FeatureDistillation
from lightning_cl.callbacks.distillation.gere import GeRe
from lightning_cl.callbacks.distillation.lucir import LUCIR
from lightning_cl.callbacks.distillation.lwf import LwF
from lightning_cl.callbacks.distillation.lwf_mc import LwFMC
from lightning_cl.callbacks.distillation.podnet import PODNet
from lightning_cl.callbacks.distillation.prd import PRD
from lightning_cl.callbacks.distillation.wa import WA
from lightning_cl.callbacks.evaluation.anytime_evaluation import AnytimeEvaluation
from lightning_cl.callbacks.evaluation.continual_evaluation import ContinualEvaluation
from lightning_cl.callbacks.evaluation.item_curves import ItemCurves
from lightning_cl.callbacks.evaluation.multi_label_evaluation import MultiLabelEvaluation
from lightning_cl.callbacks.evaluation.plasticity_meter import PlasticityMeter
from lightning_cl.callbacks.evaluation.protocol_guard import ProtocolGuard
from lightning_cl.callbacks.evaluation.run_cost import RunCost
from lightning_cl.callbacks.evaluation.unlearning_evaluation import UnlearningEvaluation
from lightning_cl.callbacks.evaluation.zero_shot_transfer import ZeroShotTransfer
from lightning_cl.callbacks.few_shot.fast_slow_weights import FastSlowWeights
from lightning_cl.callbacks.few_shot.imbalance_aware_joint import ImbalanceAwareJoint
from lightning_cl.callbacks.few_shot.mamba_fscil import MambaFSCIL
from lightning_cl.callbacks.few_shot.preassigned_prototypes import PreassignedPrototypes
from lightning_cl.callbacks.few_shot.pseudo_classes import PseudoClasses
from lightning_cl.callbacks.few_shot.rotation_task import RotationTask
from lightning_cl.callbacks.few_shot.self_supervised_pretraining import SelfSupervisedPretraining
from lightning_cl.callbacks.few_shot.subnet_tuning import SubnetTuning
from lightning_cl.callbacks.few_shot.supervised_contrast import SupervisedContrast
from lightning_cl.callbacks.finetuning import FineTuning
from lightning_cl.callbacks.gradients.agem import AGEM
from lightning_cl.callbacks.gradients.coso import CoSO
from lightning_cl.callbacks.gradients.cuber import CUBER
from lightning_cl.callbacks.gradients.gem import GEM
from lightning_cl.callbacks.gradients.gpm import GPM
from lightning_cl.callbacks.gradients.hlop import HLOP
from lightning_cl.callbacks.gradients.owm import OWM
from lightning_cl.callbacks.language.cpe_clip import CPECLIP
from lightning_cl.callbacks.language.language_guided_head import LanguageGuidedHead
from lightning_cl.callbacks.language.lgcl import LGCL
from lightning_cl.callbacks.language.msg_coop import MSGCoOp
from lightning_cl.callbacks.language.mulki import MulKI
from lightning_cl.callbacks.language.prompt_src import PromptSRC
from lightning_cl.callbacks.learning_rates import InfiniteSchedule, ReWarmReDecay
from lightning_cl.callbacks.masks.clr import CLR
from lightning_cl.callbacks.masks.contracon import ConTraCon
from lightning_cl.callbacks.masks.dst import DynamicSparseTraining
from lightning_cl.callbacks.masks.hat import HAT
from lightning_cl.callbacks.masks.hypernetwork import TaskHypernetwork
from lightning_cl.callbacks.masks.lt_sft import LTSFT
from lightning_cl.callbacks.masks.packnet import PackNet
from lightning_cl.callbacks.masks.pfnr import PFNR
from lightning_cl.callbacks.masks.piggyback import Piggyback
from lightning_cl.callbacks.masks.supsup import SupSup
from lightning_cl.callbacks.plasticity.adaptive_replay_ratio import AdaptiveReplayRatio
from lightning_cl.callbacks.plasticity.dormant_reset import DormantReset
from lightning_cl.callbacks.plasticity.shrink_and_perturb import ShrinkAndPerturb
from lightning_cl.callbacks.plasticity.warmup_at_shift import WarmupAtShift
from lightning_cl.callbacks.prompts.coda_prompt import CODAPrompt
from lightning_cl.callbacks.prompts.dual_prompt import DualPrompt
from lightning_cl.callbacks.prompts.l2p import L2P
from lightning_cl.callbacks.prompts.multi_lane import MultiLane
from lightning_cl.callbacks.prompts.mvp import MVP
from lightning_cl.callbacks.prompts.one_prompt import OnePrompt
from lightning_cl.callbacks.prompts.virtual_outliers import VirtualOutlierRegularizer
from lightning_cl.callbacks.prototypes.dkvb import DKVB
from lightning_cl.callbacks.prototypes.fecam import FeCAM
from lightning_cl.callbacks.prototypes.gacil import ACIL, GACIL
from lightning_cl.callbacks.prototypes.generative_kernel import GenerativeKernel
from lightning_cl.callbacks.prototypes.losse_ftl import LosseFTL
from lightning_cl.callbacks.prototypes.prototype_classifier import PrototypeClassifier
from lightning_cl.callbacks.prototypes.ranpac import RanPAC
from lightning_cl.callbacks.prototypes.streaming_lda import StreamingLDA
from lightning_cl.callbacks.prototypes.teen import TEEN
from lightning_cl.callbacks.regularization.duet import DuET
from lightning_cl.callbacks.regularization.ewc import EWC
from lightning_cl.callbacks.regularization.hft import HFT
from lightning_cl.callbacks.regularization.intruder_dimensions import IntruderDimensions
from lightning_cl.callbacks.regularization.l2sp import L2SP
from lightning_cl.callbacks.regularization.lines import LiNeS
from lightning_cl.callbacks.regularization.mas import MAS
from lightning_cl.callbacks.regularization.refresh import Refresh
from lightning_cl.callbacks.regularization.rwalk import RWalk
from lightning_cl.callbacks.regularization.seq_star import SEQStar
from lightning_cl.callbacks.regularization.si import SynapticIntelligence
from lightning_cl.callbacks.regularization.slnid import SLNID
from lightning_cl.callbacks.regularization.task_free_mas import TaskFreeMAS
from lightning_cl.callbacks.regularization.zscl import ZSCL
from lightning_cl.callbacks.replay.bic import BiC
from lightning_cl.callbacks.replay.clib import CLIB
from lightning_cl.callbacks.replay.der import DER, DERPlusPlus
from lightning_cl.callbacks.replay.er_ace import ERACE
from lightning_cl.callbacks.replay.er_aml import ERAML
from lightning_cl.callbacks.replay.experience_replay import ExperienceReplay
from lightning_cl.callbacks.replay.fpf import FPF
from lightning_cl.callbacks.replay.gdumb import GDumb
from lightning_cl.callbacks.replay.gss import GSS
from lightning_cl.callbacks.replay.icarl import ICaRL
from lightning_cl.callbacks.replay.kfpf import KFPF
from lightning_cl.callbacks.replay.mer import MER
from lightning_cl.callbacks.replay.mir import MIR
from lightning_cl.callbacks.replay.onpro import OnPro
from lightning_cl.callbacks.replay.plfms import PLFMS
from lightning_cl.callbacks.replay.protocl import ProtoCL
from lightning_cl.callbacks.replay.reloop2 import ReLoop2
from lightning_cl.callbacks.replay.scr import SCR
from lightning_cl.callbacks.replay.sharp import SHARP
from lightning_cl.callbacks.sharded_backbone import ShardedBackbone
from lightning_cl.callbacks.two_phase import TwoPhaseProtocol
from lightning_cl.callbacks.unlearning.unlearning import Unlearning

__all__ = [
    "ACIL",
    "AGEM",
    "APER",
    "CLIB",
    "CLR",
    "CPECLIP",
    "CUBER",
    "DER",
    "DKVB",
    "EAR",
    "EASE",
    "EBLL",
    "ERACE",
    "ERAML",
    "EWC",
    "FOSTER",
    "FPF",
    "GACIL",
    "GEM",
    "GPM",
    "GSS",
    "HAT",
    "HFT",
    "HLOP",
    "KFPF",
    "L2M",
    "L2P",
    "L2SP",
    "LGCL",
    "LTSFT",
    "LUCIR",
    "MAS",
    "MEMO",
    "MER",
    "MIR",
    "MOS",
    "MVP",
    "NHL",
    "OWM",
    "PFNR",
    "PLFMS",
    "PRD",
    "SCR",
    "SEMA",
    "SHARP",
    "SLCA",
    "SLM",
    "SLNID",
    "TAME",
    "TEEN",
    "WA",
    "ZSCL",
    "Adapter",
    "AdaptiveReplayRatio",
    "AnytimeEvaluation",
    "BiC",
    "CODAPrompt",
    "CoSO",
    "CoTTA",
    "ConTraCon",
    "ContinualCallback",
    "ContinualCheckpoint",
    "ContinualEvaluation",
    "ContinualMethod",
    "DERPlusPlus",
    "DormantReset",
    "DuET",
    "DualPrompt",
    "DynamicSparseTraining",
    "DynamicallyExpandable",
    "ExperienceReplay",
    "ExpertGate",
    "FastSlowWeights",
    "FeCAM",
    "FeatureDistillation",
    "FineTuning",
    "GDumb",
    "GSLoRA",
    "GSLoRAPlusPlus",
    "GeRe",
    "GenerativeKernel",
    "ICaRL",
    "ImbalanceAwareJoint",
    "InfLoRA",
    "InfiniteSchedule",
    "IntruderDimensions",
    "ItemCurves",
    "LanguageGuidedHead",
    "LiNeS",
    "LoRA",
    "LosseFTL",
    "LwF",
    "LwFMC",
    "MSGCoOp",
    "MambaFSCIL",
    "MoRA",
    "MulKI",
    "MultiLabelEvaluation",
    "MultiLane",
    "OnPro",
    "OnePrompt",
    "PODNet",
    "PackNet",
    "Piggyback",
    "PlasticityMeter",
    "PreassignedPrototypes",
    "PromptSRC",
    "ProtoCL",
    "ProtocolGuard",
    "PrototypeClassifier",
    "PseudoClasses",
    "RWalk",
    "RanPAC",
    "ReLoop2",
    "ReWarmReDecay",
    "Refresh",
    "RegLoRA",
    "RotationTask",
    "RunCost",
    "SDLoRA",
    "SEQStar",
    "SelfSupervisedPretraining",
    "ShardedBackbone",
    "ShrinkAndPerturb",
    "StreamingLDA",
    "SubnetTuning",
    "SupSup",
    "SupervisedContrast",
    "SynapticIntelligence",
    "TaskFreeMAS",
    "TaskHypernetwork",
    "TwoPhaseProtocol",
    "Unlearning",
    "UnlearningEvaluation",
    "VirtualOutlierRegularizer",
    "WarmupAtShift",
    "ZeroShotTransfer",
]
