from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import lightning_cl.models  # noqa: F401  (registers the networks)
from lightning_cl.datamodules import ArraySource
from lightning_cl.models import ImageClassifier


def by_hand(net, x):
    """The paper's network, block by block, from the weights of ours."""
    norm = lambda x, bn: F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)  # noqa: E731
    x = F.relu(norm(F.conv2d(x, net.conv1.weight, padding=1), net.bn1))
    for stage in (net.layer1, net.layer2, net.layer3):
        for block in stage:
            width, stride = block.conv1.weight.shape[0], 1 if block.conv1.weight.shape[:2].count(x.shape[1]) == 2 else 2
            inside = F.relu(norm(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.bn1))
            inside = norm(F.conv2d(inside, block.conv2.weight, padding=1), block.bn2)
            if stride == 2:
                zeros = torch.zeros(len(x), width // 4, *inside.shape[2:])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1)
            x = F.relu(inside + x)
    return F.linear(x.mean((2, 3)), net.fc.weight, net.fc.bias)


def test_the_paper_s_network():
    net = timm.create_model("resnet20_cifar", num_classes=7).eval()
    images = torch.rand(2, 3, 32, 32)
    assert_close(net(images), by_hand(net, images))
    of_ten_classes = 269_722  # the paper's 0.27 million
    assert sum(p.numel() for p in net.parameters()) == of_ten_classes + 65 * (7 - 10)
    assert sum(p.numel() for p in timm.create_model("resnet32_cifar").parameters()) == 464_154


def test_timm_s_methods():
    net = timm.create_model("resnet20_cifar", num_classes=0).eval()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 64)
    net.reset_classifier(5)
    assert net.get_classifier().out_features == 5
    assert net.forward_features(torch.rand(1, 3, 32, 32)).shape == (1, 64, 8, 8)


def test_published_weights_recognise_real_images(shared_data):
    """92 % on the whole test split; of the sub-set's ten classes, 500 images."""
    weights = shared_data / "resnet20_cifar10.safetensors"
    model = ImageClassifier("resnet20_cifar", num_classes=10, checkpoint_path=weights).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    source = ArraySource(str(shared_data / "cifar10_sub.npz"), image_size=32, mean=mean, std=std)
    source.setup()
    chosen = range(0, 500, 5)
    with torch.no_grad():
        found = model(torch.stack([source.eval_transform()(source.item("test", i)[0]) for i in chosen])).argmax(1)
    assert (found == torch.as_tensor(source.test_labels)[list(chosen)]).float().mean() > 0.85
