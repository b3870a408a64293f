"""``lightning-cl sweep``: a W&B sweep file, or trials on this machine; tuning and evaluation are two phases."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_cl.cli_support.configs import UsageError, require_writable, resolve_configs, suggestion
from lightning_cl.cli_support.processes import Processes, Runner
from lightning_cl.cli_support.sweeping_config import Composition
from lightning_cl.cli_support.sweeping_local import chosen_method
from lightning_cl.cli_support.sweeping_options import parse as parse_options
from lightning_cl.cli_support.sweeping_phases import (
    FIRST_TUNING_SEED,
    METRICS,
    PROTOCOL,
    Phases,
    check_config,
    tuning_settings,
)
from lightning_cl.cli_support.sweeping_run import TwoPhaseSweep
from lightning_cl.cli_support.sweeping_space import Parameter
from lightning_cl.cli_support.sweeping_space import parse as parse_space
from lightning_cl.cli_support.sweeping_wandb import HEADER, sweep_config, text


def sweep(words: Sequence[str], debug: bool = False, runner: Runner | None = None) -> int:
    """Print a sweep file, or try values here, and return the exit code: 0, or 1 if every trial failed.

    Args:
        words: A recipe or config, the parameters, and options; see
            :data:`~lightning_cl.cli_support.sweeping_options.HELP`.
        debug: Let exceptions through.
        runner: Runs the trials; each in a process of its own when ``None``.

    Raises:
        UsageError: If the space, the configuration or the phases cannot be used.
    """
    options, rest = parse_options(words)
    if options.metric not in METRICS:
        near = suggestion(options.metric, list(METRICS)) or f"choose from {', '.join(METRICS)}."
        raise UsageError(f"`ContinualEvaluation` logs no metric `{options.metric}`; {near}")
    phases = Phases(
        options.tune_on,
        tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + options.tuning_seeds)),
        tuple(range(options.final_seeds)),
        options.val_split,
        options.tuning_fraction,
    )
    folder = Path(options.folder or Path("sweeps", sweep_name(rest)))
    if options.local is not None:
        require_writable(folder, "`--folder`")
    elif options.out:
        require_writable(Path(options.out).parent, "`--out`")
    composition = Composition(rest, debug)
    parameters = parse_space(options.param, composition.arguments, composition.typed)
    check_config(composition.config, parameters)
    if options.local is None:
        return _print_file(rest, options, phases, composition, parameters)
    method = chosen_method(options.method, parameters)
    whole = TwoPhaseSweep(folder, composition, parameters, phases, options.metric, method, options.seed)
    return whole.run(options.local, options.jobs, runner or Processes(), options.evaluate_again)


def sweep_name(words: Sequence[str]) -> str:
    """Of a composition: the names of its configs."""
    return "_".join(Path(path).stem for path in resolve_configs(words)[1] if "\n" not in path) or "sweep"


def _print_file(
    rest: list[str], options: Namespace, phases: Phases, composition: Composition, parameters: Sequence[Parameter]
) -> int:
    if len(phases.tuning_seeds) > 1:
        raise UsageError("a W&B run has one result, so `--tuning-seeds` needs `--local`; leave it out.")
    words = ["fit", *rest, *tuning_words(composition.config, phases)]
    content = sweep_config(words, parameters, options.metric, METRICS[options.metric], options.method)
    file = options.out or "sweep.yaml"
    final = " ".join(["lightning-cl fit", *rest, "--seed_everything SEED --data.seed SEED", "--PARAMETER VALUE ..."])
    header = HEADER.format(what=f"Sweep of {sweep_name(rest)}", file=file, tuning=phases.describe(), final=final)
    written = text(content, header)
    print(written, end="")
    if options.out:
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        Path(options.out).write_text(written, encoding="utf-8")
        print(f"Written to {options.out}.", file=sys.stderr)
    return 0


def tuning_words(config: dict[str, Any], phases: Phases) -> list[str]:
    """What a run of the tuning phase has on its command line."""
    words = []
    for key, value in tuning_settings(config, phases, phases.tuning_seeds[0]).items():
        name = ".".join(str(part) for part in key if part != "init_args")
        words.append(f"--{name}={value if isinstance(value, (int, float)) else json.dumps(value)}")
    words += ["--trainer.logger=WandbLogger", f"--trainer.callbacks+={PROTOCOL}", "--trainer.callbacks.phase=tuning"]
    return words
