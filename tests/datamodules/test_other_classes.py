"""Labels that mean other classes than those which a module has learned are refused; untrained answers are announced."""

from __future__ import annotations

import warnings

import pytest
from tiny_stream import TinyModule, make_source, make_stream, make_trainer

from lightning_cl.callbacks import EWC, PrototypeClassifier
from lightning_cl.datamodules.stream_identity import refuse_other_classes

pytestmark = pytest.mark.filterwarnings("ignore")
OTHERS = ["b", "a", "c", "d", "e", "f"]


def renamed_stream(names: list[str], **options: object):
    return make_stream(source=make_source(class_names=names), **options)


@pytest.mark.parametrize(
    ("known", "here", "label"),
    [("abc", "abc", None), ("abc", "abcd", None), ("abcd", "abc", None), ("", "abc", None), ("abc", "abd", 2)],
)
def test_a_label_that_means_another_class(known, here, label):
    if label is None:
        refuse_other_classes("Model", list(known), list(here))
        return
    with pytest.raises(ValueError, match=f"learned 'c' as class {label}.*class {label} is 'd'.*learn"):
        refuse_other_classes("Model", list(known), list(here))


def test_a_second_fit_on_other_classes_is_refused_with_and_without_a_method():
    names = list("abcdef")
    for methods in ([], [EWC()]):
        module = TinyModule()
        make_trainer(callbacks=methods).fit(module, datamodule=renamed_stream(names))
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(ValueError, match=r"learned 'a' as class 0.*is 'b'.*lightning_cl\.load"):
            make_trainer(callbacks=[EWC() for _ in methods]).fit(module, datamodule=renamed_stream(OTHERS))
        assert all((value == before[name]).all() for name, value in module.state_dict().items())


def test_the_same_names_in_another_order_of_tasks_are_no_collision():
    module, names = TinyModule(), list("abcdef")
    EWC().attach_once(module, renamed_stream(names).info)
    EWC().attach_once(module, renamed_stream(names, seed=1, epochs_per_task=1).info)


def test_an_untrained_method_that_is_to_predict_is_announced(tmp_path):
    module, stream = TinyModule(), make_stream()
    with pytest.warns(UserWarning, match="PrototypeClassifier has learned nothing yet.*ckpt_path"):
        make_trainer(callbacks=[PrototypeClassifier()]).predict(module, datamodule=stream)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "PrototypeClassifier has learned")
        trainer = make_trainer(callbacks=[PrototypeClassifier()])
        trainer.fit(trained := TinyModule(), datamodule=make_stream())
        trainer.save_checkpoint(tmp_path / "it.ckpt")
        make_trainer(callbacks=[PrototypeClassifier()]).predict(trained, datamodule=make_stream())
        fresh = make_trainer(callbacks=[PrototypeClassifier()])
        fresh.predict(TinyModule(), datamodule=make_stream(), ckpt_path=tmp_path / "it.ckpt")
