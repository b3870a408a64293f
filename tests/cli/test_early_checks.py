"""Wrong command lines are answered in one sentence that says what to do, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cl.cli import main
from lightning_cl.cli.configs import method_files, part_names
from lightning_cl.cli.early_checks import check, numbers_only, options, plain_types

FIT = ("fit", "digits_prototypes")
WRONG = {
    "fti digits_prototypes": "unknown command `fti`; did you mean fit?",
    "digits_prototypes": "unknown command `digits_prototypes`",
    "fit digits_prototype": "no recipe `digits_prototype`; did you mean digits_prototypes",
    "fit digits codaprompt": "no recipe `codaprompt`; did you mean coda_prompt",
    "fit mine.yaml": "no file `mine.yaml`",
    "fit digits_prototypes --config": "`--config` needs the name of a recipe",
    "fit words.txt": "words.txt",
    "fit digits_prototypes --data.batchsize 3": "no option `data.batchsize`, so nothing would read it; did you",
    "fit digits_prototypes --batch_size 3": "no option `batch_size`, so nothing would read it",
    "fit digits_prototypes --epochs 3": "no option `epochs`, so nothing would read it",
    "fit digits_prototypes --lr 3": "no option `lr`, so nothing would read it",
    "fit digits_prototypes --trainer.max_epoch 3": "no option `trainer.max_epoch`, so nothing would read it; did you",
    "fit digits_prototypes --trainer.gpus 1": "no option `trainer.gpus`, so nothing would read it",
    "fit digits_prototypes --data.batch_size many": "`data.batch_size` is many; expected int | Sequence[int].",
    "fit digits_prototypes --data.epochs_per_task=two": "`data.epochs_per_task` is two; expected int | Sequence[int].",
    "fit digits_prototypes --data.per_device perhaps": "`data.per_device` is perhaps; expected bool.",
    "fit digits_prototypes --data.val_split half": "`data.val_split` is half; expected float.",
    "fit digits_prototypes --trainer.max_steps none_at_all": "`trainer.max_steps` is none_at_all; expected int.",
    "fit digits_prototypes --trainer.max_epochs ten": "`trainer.max_epochs` is ten; expected int | None.",
    "fit digits_prototypes --seed_everything random": "`seed_everything` is random; expected int | bool.",
    "fit digits_prototypes --num_threads all": "`num_threads` is all; expected int | None.",
    "fit digits_prototypes --data.source Digit": "unknown source `Digit`; did you mean Digits",
    "fit digits_prototypes --data.source=CIFAR1000": "unknown source `CIFAR1000`; did you mean CIFAR100",
    "fit digits_prototypes --data.scenario ClassIncrementl": "unknown scenario `ClassIncrementl`; did you mean C",
    "fit digits --trainer.callbacks+ CODAPromt": "unknown callback `CODAPromt`; did you mean CODAPrompt",
    "fit digits --trainer.callbacks+=EarlyStoping": "unknown callback `EarlyStoping`; did you mean EarlyStopping",
    "fit named.yaml": "unknown callback `FineTunning`; did you mean FineTuning",
    "fit sourced.yaml": "unknown source `Digitz`; did you mean Digits",
    "fit digits_prototypes --ckpt_path gone.ckpt": "there is no checkpoint `gone.ckpt`; give the path",
    "test digits_prototypes --ckpt_path runs": "there is no checkpoint `runs`",
    "validate digits_prototypes --ckpt gone.ckpt": "no option `ckpt`, so nothing would read it; did you mean ckpt_path",
    "list things": "choose from recipes, streams, methods",
    "list recipes --all": "`list` has no option `--all`",
    "sweep digits_l2p --method best": "invalid choice: 'best'",
    "sweep digits_l2p --local none": "give a whole number of at least 1",
    "compare --seeds 3 --seeds 4": "`--seeds` is given twice; give it once.",
    "report a --output": "expected one argument",
    "report a --format pdf": "`report` has no option `--format`",
    "bench nowhere": "no recipe `nowhere`",
    "bench digits --methods nothing": "there is no method `nothing` for `digits`",
    "report gone": "there is no folder gone; give the folder that a run wrote.",
    "report .": "holds no run: there is no continual_report.json.",
    "sweep digits_l2p --param model.lr": "`--param model.lr` has no values; write `--param model.lr=VALUES` with",
    "sweep digits_l2p --param model.lr=": "`--param model.lr=` has no values; write",
    "completion": "`completion` needs one shell: bash, zsh, fish.",
    "completion tcsh": "there is no completion for `tcsh`; give bash, zsh or fish.",
    "fit dictionary.yaml": "is a dictionary with CODAPrompt; expected a list",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_bytes(b"\xff\xfe\x00")
    Path("named.yaml").write_text("trainer: {callbacks+: [{class_path: FineTunning}]}\n")
    Path("sourced.yaml").write_text("data: {source: Digitz}\n")
    Path("dictionary.yaml").write_text("trainer: {callbacks: {CODAPrompt: {}}}\n")


def test_forty_wrong_commands_are_answered_in_one_sentence_without_torch() -> None:
    """In one process of its own, which says in the end whether it imported torch."""
    assert len(WRONG) >= 40
    code = (
        "import io, sys, contextlib\n"
        "from lightning_cl.cli import main\n"
        f"for line in {list(WRONG)!r}:\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stderr(said): code = main(line.split())\n"
        "    assert code == 2 and said.getvalue().count('\\n') == 1, (line, code, said.getvalue())\n"
        "    print(said.getvalue(), end='')\n"
        "assert not {'torch', 'lightning', 'jsonargparse'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for (line, wanted), said in zip(WRONG.items(), done.stdout.splitlines(), strict=True):
        assert said.startswith("lightning-cl: "), line
        assert wanted in said, line
        assert len(said) < 400, line


@pytest.mark.parametrize(
    "line",
    [
        "--data.batch_size 3 --data.batch_size=[3,4] --data.pin_memory null --data.val_split 1e-1",
        "--trainer.callbacks.help CODAPrompt --trainer.callbacks+=EarlyStopping --trainer.callbacks+ my.module.Own",
        "--model anything --model.whatever 3 --callbacks.CODAPrompt.prompt_length 4 --trainer.logger.save_dir x",
        "--trainer.devices auto --trainer.accelerator nonsense --trainer.max_time word --data.evaluate_on all",
        "--data.source {class_path:Digits} --data.source my.Own --data.scenario.num_tasks 3 --ckpt_path last",
        "--seed_everything true --num_threads null --trainer.max_epochs null --trainer.limit_val_batches 0.5",
    ],
)
def test_what_may_be_right_is_left_to_the_parser(line: str) -> None:
    check([*FIT, *line.split()], [])


def test_options_and_their_values() -> None:
    words = ["x", "--a.b", "3", "--c=4", "--d", "--e", "-1", "--f=", "--g"]
    assert list(options(words)) == [("a.b", "3"), ("c", "4"), ("d", None), ("e", "-1"), ("f", ""), ("g", None)]


@pytest.mark.parametrize(
    ("kind", "types", "numbers"),
    [
        ("Optional[Union[int, float]]", ["int", "float", "None"], True),
        ("int | Sequence[int]", ["int", "Sequence[int]"], True),
        ("Union[list[int], str, int]", ["list[int]", "str", "int"], False),
        ("bool", ["bool"], True),
        ("Literal['seen', 'all']", ["Literal['seen', 'all']"], False),
    ],
)
def test_types_in_source_text(kind: str, types: list[str], numbers: bool) -> None:
    assert plain_types(kind) == types
    assert numbers_only(types) is numbers


def test_a_class_names_the_plainest_packaged_method_of_it() -> None:
    files = method_files()
    assert files["ExperienceReplay"][0] == "er"
    assert files["FineTuning"][0] == "finetune"
    assert (files["MVP"], files["LUCIR"], files["EWC"]) == (["mvp", "mvp_r"], ["lucir"], ["ewc"])
    assert sorted(name for names in files.values() for name in names) == part_names("methods")


@pytest.mark.parametrize("names", ["digits ExperienceReplay", "digits experience_replay", "digits er", "digits replay"])
def test_one_family_of_names(names: str, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning_cl.cli.configs import named_configs, resolve_configs

    words = named_configs(["fit", *names.split(), "--data.seed", "1"])
    resolved, paths = resolve_configs(words)
    assert [Path(path).stem for path in paths] == ["digits", "er"]
    assert "--trainer.logger.init_args.name=digits_er" in resolved
    assert resolved[-2:] == ["--data.seed", "1"]
    del capsys
    assert main(["list", "streams", "recipes"]) == 0
