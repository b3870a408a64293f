"""A checkpoint is data: no file runs code or brings settings, and none that is damaged is taken for intact."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from datamodules.tiny_stream import TinyModule, make_stream, make_trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch.testing import assert_close

from lightning_cl import restore
from lightning_cl.callbacks import ContinualCheckpoint, FineTuning
from lightning_cl.checkpoint_file import (
    CheckpointReadError,
    DataCheckpointIO,
    damage,
    intact_before,
    read_checkpoint,
)

pytestmark = pytest.mark.filterwarnings("ignore")
CONTENT = {"state_dict": {"w": torch.arange(6.0), "b": torch.tensor([1, 2])}, "epoch": 3, "sizes": [4]}


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def save(path: Path, content: Any = None, age: float = 0.0) -> Path:
    torch.save(CONTENT if content is None else content, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def flip(path: Path, bit: int) -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def bit_in(path: Path, part: str) -> int:
    """The first bit of the bytes of a part of the file."""
    with zipfile.ZipFile(path) as archive:
        (entry,) = (entry for entry in archive.infolist() if entry.filename.endswith(part))
        return 8 * path.read_bytes().find(archive.read(entry), entry.header_offset)


# ---------------------------------------------------------------------- nothing runs


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a server of the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


WAYS_IN = {
    "read": lambda path: read_checkpoint(path),
    "restore": lambda path: restore(path, TinyModule(), [FineTuning()]),
    "fit": lambda path: make_trainer().fit(TinyModule(), datamodule=make_stream(), ckpt_path=path),
    "fit with a method": lambda path: make_trainer(callbacks=[FineTuning()]).fit(
        TinyModule(), datamodule=make_stream(), ckpt_path=path
    ),
    "validate": lambda path: make_trainer().validate(TinyModule(), datamodule=make_stream(), ckpt_path=path),
    "test": lambda path: make_trainer().test(TinyModule(), datamodule=make_stream(), ckpt_path=path),
    "predict": lambda path: make_trainer().predict(TinyModule(), datamodule=make_stream(), ckpt_path=path),
    "inside another": lambda path: make_trainer(plugins=[AsyncCheckpointIO()]).validate(
        TinyModule(), datamodule=make_stream(), ckpt_path=path
    ),
}


@pytest.mark.parametrize("way", WAYS_IN)
@pytest.mark.parametrize("where", ["path", "address"])
def test_no_way_in_runs_code(tmp_path, address, way, where):
    canary = tmp_path / "ran"
    save(tmp_path / "evil.ckpt", {**CONTENT, "x": Evil(canary), "pytorch-lightning_version": "2.5.0"})
    path = str(tmp_path / "evil.ckpt") if where == "path" else f"{address}/evil.ckpt"
    with pytest.raises(CheckpointReadError, match=r"holds `posix.system`, which only code .* could make"):
        WAYS_IN[way](path)
    assert not canary.exists()


def test_a_checkpoint_at_an_address_is_read(tmp_path, address):
    save(tmp_path / "good.ckpt")
    assert_close(read_checkpoint(f"{address}/good.ckpt"), CONTENT)
    with pytest.raises(FileNotFoundError, match="Checkpoint file not found"):
        read_checkpoint(f"{address}/other.ckpt")
    with pytest.raises(CheckpointReadError, match="could not be fetched"):
        read_checkpoint("http://127.0.0.1:1/good.ckpt")


def test_code_cannot_be_allowed_by_an_argument(tmp_path):
    with pytest.raises(ValueError, match=r"`weights_only=False` lets a checkpoint run code.*add_safe_globals"):
        DataCheckpointIO().load_checkpoint(save(tmp_path / "good.ckpt"), weights_only=False)


def test_what_is_no_checkpoint_of_a_trainer(tmp_path):
    with pytest.raises(CheckpointReadError, match="holds list, not a Trainer's checkpoint"):
        read_checkpoint(save(tmp_path / "list.ckpt", [1]))


# ---------------------------------------------------------------------- damage


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    """Every byte of the file, one bit of it: refused, or of no consequence."""
    path = save(tmp_path / "x.ckpt")
    refused, bits = 0, path.stat().st_size * 8
    for bit in range(0, bits, 8):
        flip(path, bit + bit // 8 % 8)
        try:
            assert_close(read_checkpoint(path), CONTENT, rtol=0, atol=0)
        except CheckpointReadError:
            refused += 1
        flip(path, bit + bit // 8 % 8)
    assert damage(path) is None
    assert refused > 500


@pytest.mark.parametrize("part", ["data.pkl", "data/0"])
def test_a_flipped_bit_is_one_sentence_with_the_next_good_file(tmp_path, part):
    broken = save(tmp_path / "last.ckpt")
    save(tmp_path / "task=1.ckpt", age=20)
    save(tmp_path / "task=0.ckpt", age=30)
    flip(save(tmp_path / "task=2.ckpt", age=10), bit_in(tmp_path / "task=2.ckpt", "data/0"))
    flip(broken, bit_in(broken, part))
    with pytest.raises(
        CheckpointReadError, match=f"is damaged: it is not as it was written .*{part}.*; the next older"
    ) as e:
        restore(broken, TinyModule())
    assert f"one is {tmp_path / 'task=1.ckpt'};" in str(e.value)


def test_a_file_that_was_cut_off_and_nothing_beside_it(tmp_path):
    path = save(tmp_path / "last.ckpt")
    save(tmp_path / "newer.ckpt", age=-10)  # of another run, it may be
    path.write_bytes(path.read_bytes()[:-10])
    os.utime(path, (1e9, 1e9))
    with pytest.raises(CheckpointReadError, match=r"not written to its end; there is no older intact one beside it"):
        read_checkpoint(path)
    assert intact_before(tmp_path / "newer.ckpt") is None


def test_a_run_refuses_a_flipped_bit_in_a_weight(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    make_trainer(callbacks=[saver, FineTuning()]).fit(TinyModule(), datamodule=make_stream())
    path = tmp_path / "epoch=4.ckpt"
    flip(path, bit_in(path, "data/1") + 3)
    with pytest.raises(CheckpointReadError, match=r"is damaged.*epoch=3\.ckpt"):
        make_trainer(callbacks=[FineTuning()]).test(TinyModule(), datamodule=make_stream(), ckpt_path=path)


def test_bytes_are_looked_at_like_files():
    file = io.BytesIO()
    torch.save(CONTENT, file)
    assert damage(file) is None
    assert "written to its end" in damage(io.BytesIO(file.getvalue()[:-1]))


# ---------------------------------------------------------------------- what is saved can be read


def a_function() -> None:
    """Of a user, as an argument."""


class WithArguments(TinyModule):
    def __init__(self, first: Any, second: Any = 2) -> None:
        super().__init__()
        self.save_hyperparameters()


def save_with(folder: Path, own: bool, *given: Any) -> Path:
    saver = ContinualCheckpoint(folder) if own else ModelCheckpoint(folder, filename="last")
    make_trainer(callbacks=[FineTuning(), saver]).fit(WithArguments(*given), datamodule=make_stream())
    return folder / "last.ckpt"


@pytest.mark.parametrize("own", [True, False], ids=["ContinualCheckpoint", "ModelCheckpoint"])
@pytest.mark.parametrize(
    "value", [Path("x"), torch.nn.ReLU, a_function, torch.nn.ReLU()], ids=["path", "class", "function", "module"]
)
def test_arguments_that_could_not_be_read_back_are_one_sentence(tmp_path, own, value):
    with pytest.raises(ValueError, match=r"\(`second` of `hyper_parameters`\), and could not be read back") as error:
        save_with(tmp_path, own, 1, value)
    for way_out in ("save_hyperparameters(ignore=[...])", "`str(path)`", "add_safe_globals([MyClass])"):
        assert way_out in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("own", [True, False], ids=["ContinualCheckpoint", "ModelCheckpoint"])
def test_arguments_that_can_be_read_back(tmp_path, own):
    path = save_with(tmp_path, own, {"a": [1, None, "b"]}, torch.float32)
    restored = restore(path, WithArguments(1), [FineTuning()])
    assert_close(restored.state_dict(), torch.load(path, weights_only=True)["state_dict"])


def test_a_class_that_was_allowed_is_saved_and_read(tmp_path):
    with torch.serialization.safe_globals([a_function]):
        restore(save_with(tmp_path, True, 1, a_function), WithArguments(1), [FineTuning()])
