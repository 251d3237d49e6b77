"""ResNets with torchvision's names against a plain torch ResNet that is written here from its definition."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interp_core.errors import InterpError
from interp_core.models.resnet.weights import find_state, open_resnet, resnet_from_state, resnet_pixels


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with the stride in the middle one."""

    def __init__(self, n_in: int, n_out: int, stride: int, bottleneck: bool):
        super().__init__()
        inner = n_out // 4 if bottleneck else n_out
        shapes = [(n_in, inner, 1, 1), (inner, inner, 3, stride), (inner, n_out, 1, 1)]
        if not bottleneck:
            shapes = [(n_in, n_out, 3, stride), (n_out, n_out, 3, 1)]
        self.n = len(shapes)
        for i, (a, b, kernel, step) in enumerate(shapes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        y = x
        for i in range(1, self.n + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.n else y
        return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class ResNet(nn.Module):
    def __init__(self, depths, widths, stem=64, bottleneck=False, n_classes=2):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
        n_in = stem
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(Block(n_in, width, 2 if stage and not i else 1, bottleneck))
                n_in = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages, self.fc = len(depths), nn.Linear(n_in, n_classes)

    def pooled(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))

    def forward(self, x):
        return self.fc(self.pooled(x))


def random_resnet(*args, seed=0, **kwargs) -> ResNet:
    """Every norm and statistic random, and no class far ahead, so that a weight in the wrong place shows."""
    torch.manual_seed(seed)
    net = ResNet(*args, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # torch's own start lets the image fade on the way
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


SMALL = ((2, 1, 1, 2), (8, 16, 32, 64))
NETS = {
    "ResNet18": ((2, 2, 2, 2), (64, 128, 256, 512)),
    "ResNet34": ((3, 4, 6, 3), (64, 128, 256, 512)),
}


def small(**kwargs) -> ResNet:
    return random_resnet(*SMALL, stem=8, **kwargs)


@pytest.mark.parametrize("name", NETS)
def test_logits_and_pooled_features_are_the_plain_nets_at_several_sizes(name):
    torch.set_num_threads(1)
    plain = random_resnet(*NETS[name])
    model = resnet_from_state(plain.state_dict())
    assert list(model.config.depths) == list(NETS[name][0])
    for shape in ((96, 96), (64, 80), (33, 47)):
        images = torch.randn(2, 3, *shape)
        with torch.no_grad():
            logits, pooled = model(images).logits, model.resnet(images).pooler_output.flatten(1)
            expected, features = plain(images), plain.pooled(images)
        assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (pooled - features).abs().max() <= 1e-5 * features.abs().max()
        assert (expected[0] - expected[1]).abs().max() > 1e-2  # control: the net does look at the image


def test_a_bottleneck_net_of_other_width_and_more_classes_is_read_off_the_shapes():
    plain = random_resnet((1, 2, 1, 1), (32, 64, 96, 128), stem=16, bottleneck=True, n_classes=7)
    model = resnet_from_state(plain.state_dict())
    config = model.config
    assert (config.layer_type, config.num_labels, config.id2label[6]) == ("bottleneck", 7, "LABEL_6")
    assert (list(config.depths), list(config.hidden_sizes), config.embedding_size) == (
        [1, 2, 1, 1],
        [32, 64, 96, 128],
        16,
    )
    images = torch.randn(2, 3, 50, 50)
    with torch.no_grad():
        assert torch.allclose(model(images).logits, plain(images), rtol=1e-5, atol=1e-5)


def test_one_weight_out_of_its_place_moves_the_logits():
    """Control of the comparison above: two convolutions of one shape exchanged are seen."""
    plain = small()
    state = plain.state_dict()
    a, b = "layer1.0.conv2.weight", "layer1.1.conv1.weight"
    state[a], state[b] = state[b], state[a]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (resnet_from_state(state)(images).logits - plain(images)).abs().max() > 1e-2


@pytest.mark.parametrize(
    "prefix", ["", "module.", "module._orig_mod.", "model.", "network.", "module.model.", "model.module.network."]
)
@pytest.mark.parametrize("wrapper", [None, "algorithm", "model_state_dict", "state_dict"])
def test_wrappers_and_prefixes_come_off(tmp_path, prefix, wrapper):
    plain = small()
    state = {prefix + name: weight for name, weight in plain.state_dict().items()}
    saved = state if wrapper is None else {wrapper: state, "epoch": 4, "best_val_metric": 0.875}
    torch.save(saved, tmp_path / "best_model.pth")
    opened = open_resnet(tmp_path / "best_model.pth")
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.allclose(opened(images).logits, plain(images), atol=1e-5)


def test_a_model_saved_whole_and_in_halves_is_one_model():
    plain = small()
    state = plain.state_dict()
    halves = {}
    for name, weight in state.items():
        body, head = not name.startswith("fc."), name.removeprefix("fc.")
        halves[f"featurizer.{name}" if body else f"classifier.{head}"] = weight
        halves[f"model.0.{name}" if body else f"model.1.{head}"] = weight.clone()
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.allclose(resnet_from_state(halves)(images).logits, plain(images), atol=1e-5)
    halves["model.1.bias"] = halves["model.1.bias"] + 1
    with pytest.raises(InterpError, match=r"two different weights for fc\.bias"):
        resnet_from_state(halves)


def test_a_file_from_before_the_batch_counters_opens():
    state = {k: v for k, v in small().state_dict().items() if "num_batches" not in k}
    assert resnet_from_state(state).config.num_labels == 2


def broken(change) -> dict[str, torch.Tensor]:
    state = small().state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: s.pop("layer3.0.bn2.weight"), r"lacks layer3\.0\.bn2\.weight"),
        (lambda s: s.pop("fc.weight"), r"lacks fc\.weight"),
        (lambda s: s.update({"layer1.0.se.weight": torch.ones(1)}), r"holds layer1\.0\.se\.weight besides"),
        (lambda s: s.update({"layer2.0.downsample.0.weight": torch.ones(1, 1, 1, 1)}), r"downsample\.0\.weight \(1, 1"),
        (lambda s: s.update({"conv1.weight": torch.ones(8, 3, 3, 3)}), "first convolution is 3x3"),
        (lambda s: s.clear() or s.update({"wte.weight": torch.ones(2)}), r"holds wte\.weight, and lacks conv1"),
    ],
)
def test_what_is_missing_or_left_over_is_named(change, said):
    with pytest.raises(InterpError, match=said):
        resnet_from_state(broken(change))


def test_files_that_are_no_checkpoint_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "empty.pth")
    torch.save({"algorithm": small()}, tmp_path / "pickled.pth")
    for name, said in (
        ("gone.pth", "is no file"),
        ("text.pth", "no file of torch.save"),
        ("empty.pth", "holds epoch, optimizer; expected a state dict"),
        ("pickled.pth", "could run code"),
    ):
        with pytest.raises(InterpError, match=said):
            open_resnet(tmp_path / name)
    with pytest.raises(InterpError, match="holds a list"):
        find_state([1, 2])


def test_pixels_are_scaled_to_imagenets_mean_and_deviation():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for given in (image, Image.fromarray(image)):
        pixels = resnet_pixels(given)
        assert pixels.dtype == torch.float32 and pixels.shape == (3, 96, 96)
        assert np.abs(pixels.permute(1, 2, 0).numpy() - expected).max() < 1e-6


def test_shrinking_keeps_a_ramp_and_smooths_a_checkerboard():
    """A smoothing filter gives the ramp's own value at each new pixel's centre, and grey for single dots."""
    ramp = np.repeat((np.arange(192, dtype=np.uint8))[None, :, None], 192, 0).repeat(3, 2)
    red = resnet_pixels(ramp)[0] * 0.229 + 0.485
    centres = (2 * np.arange(96) + 0.5) / 255
    assert np.abs(red[40].numpy() - centres)[2:-2].max() <= 0.51 / 255  # PIL rounds to whole levels
    dots = (np.indices((192, 192)).sum(0) % 2 * 255).astype(np.uint8)
    grey = resnet_pixels(dots)[0] * 0.229 + 0.485
    assert (grey[2:-2, 2:-2] - 0.5).abs().max() < 0.01


def test_images_of_other_modes_become_colour_and_other_arrays_are_refused():
    gray, alpha = np.full((20, 30), 128, np.uint8), np.full((20, 30, 4), 128, np.uint8)
    assert resnet_pixels(gray, 32).shape == resnet_pixels(alpha, 32).shape == (3, 32, 32)
    assert resnet_pixels(Image.new("L", (10, 10), 7), 16).shape == (3, 16, 16)
    for wrong in (np.zeros((4, 4, 3)), np.zeros((3, 4, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(InterpError, match="expected uint8"):
            resnet_pixels(wrong)
