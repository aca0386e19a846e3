import torch
from torch import nn
from torchvision import models

from barycenter.fusion.encoders.device import fuse_conv_bn, to_device, to_host_async


def test_folding_keeps_the_vectors_and_drops_the_normalizations():
    torch.manual_seed(0)
    model = models.mobilenet_v2(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    light = fuse_conv_bn(model, (64, 64))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in light.modules())
    pictures = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(light(pictures), model(pictures), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_traced_or_has_nothing_to_fold_stays():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            states = self.norm(self.convolution(pictures))
            return states.flatten(1) if states.sum() > 0 else -states.flatten(1)

    branching, plain = Branching().eval(), nn.Conv2d(3, 2, 1).eval()
    assert fuse_conv_bn(branching, (4, 4)) is branching
    assert fuse_conv_bn(plain, (4, 4)) is plain


def test_copies_keep_the_values():
    array = torch.arange(6, dtype=torch.float32).reshape(2, 3).numpy()
    there = to_device(array, torch.device("cpu"))
    assert to_host_async(there.to(torch.bfloat16)).vectors().tolist() == array.tolist()
