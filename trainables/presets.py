"""Published settings for images by name: those set by the task, and the optimizer settings for the sweep file.

A task's own parameters override the preset's, and `training:` in the sweep file its schedule and warm-up. Learning
rate, decay and epochs belong to the arms and the budget; they are recorded here so that a sweep can start from them:
`per_trial` is epochs x training rows / batch size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.recipe import Recipe

CROPS = ("none", "padded", "resized")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One published setting."""

    batch_size: int
    crop: str
    """`none`; `padded`: shifted by up to 1/8 of the side; `resized`: a random window, scaled."""
    flip: bool
    cutout: int
    """Side of the square that is zeroed, in pixels; 0 for none."""
    label_smoothing: float
    training: Recipe
    optimizer: str
    lr: float
    weight_decay: float
    epochs: int


PRESETS: Mapping[str, Preset] = {
    # ResNet-18, VGG-16, WRN-28-10 on CIFAR with momentum 0.9
    "cifar": Preset(
        batch_size=128, crop="padded", flip=True, cutout=0, label_smoothing=0.0,
        training=Recipe(schedule="cosine"),
        optimizer="sgd", lr=0.05, weight_decay=5e-4, epochs=200,
    ),
    # WRN-28-10 with cutout of 16 on CIFAR-10 (DeVries & Taylor 2017, sec. 4)
    "cifar_cutout": Preset(
        batch_size=128, crop="padded", flip=True, cutout=16, label_smoothing=0.0,
        training=Recipe(schedule="cosine"),
        optimizer="sgd", lr=0.1, weight_decay=5e-4, epochs=200,
    ),
    # ViT-Ti on CIFAR-100
    "cifar_vit": Preset(
        batch_size=256, crop="padded", flip=True, cutout=0, label_smoothing=0.1,
        training=Recipe(schedule="cosine", warmup=0.05),
        optimizer="adamw", lr=1e-3, weight_decay=0.3, epochs=300,
    ),
    # ResNet-50 with momentum 0.9: x 0.1 at 30, 70 and 90% of the run
    "imagenet": Preset(
        batch_size=256, crop="resized", flip=True, cutout=0, label_smoothing=0.1,
        training=Recipe(schedule="step", warmup=0.05),
        optimizer="sgd", lr=0.1, weight_decay=1e-4, epochs=100,
    ),
    # ViT-S/16 with AdamW (0.9, 0.999)
    "imagenet_vit": Preset(
        batch_size=1024, crop="resized", flip=True, cutout=0, label_smoothing=0.0,
        training=Recipe(schedule="cosine", warmup=0.05),
        optimizer="adamw", lr=1e-3, weight_decay=0.1, epochs=100,
    ),
    "plain": Preset(
        batch_size=128, crop="none", flip=False, cutout=0, label_smoothing=0.0,
        training=Recipe(schedule="cosine"),
        optimizer="sgd", lr=0.1, weight_decay=5e-4, epochs=100,
    ),
}  # fmt: skip
