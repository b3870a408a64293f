"""Run LightningCLI on streams: short class names, recipes, clear errors. Imports torch, so it is imported last."""

from __future__ import annotations

import math
import os
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

import lightning_cl.callbacks
import lightning_cl.models  # noqa: F401  (classes are known by their short names once they are imported)
from lightning_cl import datamodules
from lightning_cl.callbacks import ContinualCallback, ContinualMethod
from lightning_cl.cli.arguments import import_class, parse, plain_config
from lightning_cl.cli.checkpoints import InterruptNotice, check_output, given_checkpoint, last_checkpoint
from lightning_cl.cli.config_content import check_values
from lightning_cl.cli.configs import UsageError, resolve_configs
from lightning_cl.cli.run_files import RunConfig, keep_nothing
from lightning_cl.cli.terminal import quiet
from lightning_cl.cli.user_errors import explain, own_message
from lightning_cl.datamodules import ContinualDataModule
from lightning_cl.namespace import (
    ArgsType,
    Callback,
    LightningArgumentParser,
    LightningCLI,
    rank_zero_info,
    rank_zero_only,
)

for _name in datamodules.__all__:
    getattr(datamodules, _name)  # they are imported lazily otherwise


class ContinualCLI(LightningCLI):
    """LightningCLI with a stream as data and any LightningModule as model.

    A model's ``num_classes`` follows the data unless it is given.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"save_config_callback": RunConfig, **options})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One setting of PyTorch that no Trainer argument has; and what else ``--config`` takes."""
        parser._option_string_actions["--config"].help = (
            "Name of a packaged recipe (`lightning-cl list recipes`) or path of a YAML file; several compose, later "
            "ones win."
        )
        parser.add_argument(
            "--num_threads",
            type=PositiveInt | None,
            default=None,
            help="CPU threads per process (torch.set_num_threads); None leaves PyTorch's choice.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse a list of words, short paths of callbacks included; Lightning's own warns about ``sys.argv``."""
        assert isinstance(args, list)
        self.config = parse(parser, args)
        section = self.config[self.config["subcommand"]]
        check_values(vars(section))
        validate_at_task_ends(section, args)
        self._checkpoint = section.get("ckpt_path")
        if self._checkpoint:
            given_checkpoint(self._checkpoint)
            section.ckpt_path = None  # until Lightning, which takes settings from checkpoints, has looked

    def put_checkpoint_back(self) -> None:
        """Undo what hid the checkpoint from Lightning."""
        if self._checkpoint:
            self.config[self.config["subcommand"]].ckpt_path = self._checkpoint

    def before_instantiate_classes(self) -> None:
        """Set the threads, look at the folders, and make the stream first if the model needs its classes."""
        self.put_checkpoint_back()
        section = self.config[str(self.subcommand)]
        if section.num_threads is not None:
            torch.set_num_threads(section.num_threads)
        if section.get("ckpt_path") == "last":
            section.ckpt_path = last_checkpoint(section.trainer)
        check_output(section.trainer)
        if self.subcommand in ("test", "predict") and section.get("ckpt_path") is None:
            _refuse_untrained(str(self.subcommand), section.trainer.get("callbacks"))
        if keep_nothing(section.trainer):
            self.save_config_callback = None
        model = section.model.get("init_args")
        if model is None or "num_classes" not in model or model.num_classes is not None:
            return
        _try_callbacks(section.trainer.get("callbacks"))
        stream = make_stream(section.data)
        model.num_classes = stream.info.num_classes
        self.parser.add_instantiator(
            lambda class_type, *args, **kwargs: stream, ContinualDataModule, subclasses=False, prepend=True
        )


class ParsingCLI(ContinualCLI):
    """Parses, checks every value, and builds nothing."""

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        """Change nothing before classes are made: all is as it was given."""
        self.put_checkpoint_back()

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def run(words: Sequence[str], debug: bool, cli: Callable[..., Any] = ContinualCLI) -> int:
    """Run a subcommand of LightningCLI and return its exit code; ``debug`` lets exceptions through."""
    resolved, configs = resolve_configs(words)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for `class_path: my_module.MyModel`; behind what is installed
    notice = InterruptNotice()
    strict = {"exit_on_error": False, "allow_abbrev": False}  # a name cut short is a wrong name, as in a file
    try:
        with quiet():
            cli(
                datamodule_class=ContinualDataModule,
                subclass_mode_model=True,
                trainer_defaults={"callbacks": [notice], "enable_model_summary": False},
                auto_configure_optimizers=False,
                parser_kwargs={**strict, **{name: dict(strict) for name in LightningCLI.subcommands()}},
                args=resolved,
            )
    except ArgumentError as error:
        if debug:
            raise
        raise UsageError(explain(error, resolved, configs)) from error
    except SystemExit as stop:  # --help, --print_config, and Lightning after Ctrl-C
        code = 1 if isinstance(stop.code, str) else stop.code or 0
        return 130 if notice.interrupted else code
    except Exception as error:
        message = None if debug else own_message(error)
        if message is None:
            raise
        raise UsageError(f"{message} (`--debug` shows the traceback)") from error
    return 0


def validate_at_task_ends(section: Namespace, words: Sequence[str]) -> None:
    """Let the validation follow ``--data.epochs_per_task`` where the file has it for other epochs."""
    named = {word.partition("=")[0] for word in words}
    if "--data.epochs_per_task" not in named or "--trainer.check_val_every_n_epoch" in named:
        return
    every = section.trainer.get("check_val_every_n_epoch")
    better = interval_to_task_ends(every, section.data.get("epochs_per_task"))
    if better != every:
        section.trainer.check_val_every_n_epoch = better
        rank_zero_info(f"`check_val_every_n_epoch` is {better} instead of {every}, to validate the end of every task.")


def interval_to_task_ends(every: int | None, epochs: Any) -> int | None:
    """Epochs from one validation to the next: as given where that meets the end of every task, else what does.

    Args:
        every: As given; ``None`` or 0 stays as it is.
        epochs: Of every task, or a list of one number for each; what is no number above 0 changes nothing.
    """
    lengths = epochs if isinstance(epochs, list) else [epochs]
    if not every or not all(isinstance(length, int) and length > 0 for length in lengths):
        return every
    if not any(length % every for length in lengths):
        return every
    return math.gcd(every, *lengths) if len(set(lengths)) > 1 else int(lengths[0])


CLI = TypeVar("CLI", bound=ContinualCLI)


def built(cli: type[CLI], words: Sequence[str], debug: bool, **options: Any) -> CLI:
    """What was made to run the words; ``SystemExit`` after ``--help`` and ``--print_config``."""
    made: list[CLI] = []
    code = run(words, debug, lambda **given: made.append(cli(**given, **options)))
    if not made:
        raise SystemExit(code)
    return made[0]


def read(words: Sequence[str], debug: bool) -> tuple[LightningArgumentParser, dict[str, Any]]:
    """The parser of the command, and the whole configuration as plain values with full class paths."""
    cli = built(ParsingCLI, words, debug)
    return cli.parser, plain_config(cli.parser, cli.config)


def _refuse_untrained(command: str, configs: Any) -> None:
    """A method without a checkpoint has learned nothing, and its answers would be those of chance."""
    for config in configs if isinstance(configs, list) else [configs]:
        made = import_class(config.class_path) if isinstance(config, Namespace) else None
        if isinstance(made, type) and issubclass(made, ContinualMethod):
            raise UsageError(
                f"`{command}` without a checkpoint answers with an untrained model; give one with `--ckpt_path PATH` "
                "(`--ckpt_path last`: the newest of this configuration's runs)."
            )


def _try_callbacks(configs: Any) -> None:
    """Build this package's callbacks for nothing: what their constructors refuse is said before data is opened."""
    parser = LightningArgumentParser()
    parser.add_subclass_arguments(Callback, "callback")
    for config in configs if isinstance(configs, list) else [configs]:
        made = import_class(config.class_path) if isinstance(config, Namespace) else None
        if isinstance(made, type) and issubclass(made, ContinualCallback):
            parser.instantiate(Namespace(callback=config))  # type: ignore[no-untyped-call]


def make_stream(config: Any) -> ContinualDataModule:
    """The DataModule of a parsed config, with its data opened."""
    parser = LightningArgumentParser()
    parser.add_class_arguments(ContinualDataModule, "data", fail_untyped=False, sub_configs=True)
    stream: ContinualDataModule = parser.instantiate(Namespace(data=config)).data  # type: ignore[no-untyped-call]
    if int(getattr(rank_zero_only, "rank", 0) or 0) == 0:
        stream.prepare_data()
    stream.setup()
    return stream
