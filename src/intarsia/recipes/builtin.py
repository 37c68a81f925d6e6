"""The recipes that come with intarsia, each tried on real images."""

from __future__ import annotations

from intarsia.recipes.recipe import RECIPES, Recipe

DEFAULT = RECIPES.preset("default", Recipe())

# The two recipes of `intarsia demo`: small networks from random weights, a minute on two cores.
RECIPES.preset(
    "demo_brain",
    DEFAULT.replace(
        # Brightness tells the tissues apart in one template, so colours stay as they are.
        data={"path": "intarsia-demo/brain", "size": (128, 128)},
        transforms={"zoom": (0.9, 1.1), "aspect": 1.1, "colour": 0.0},
        model={"name": "unet_same", "width": 16},
        train={"steps": 400, "batch": 8, "lr": 3e-3, "validations": 6},
    ),
)
RECIPES.preset(
    "demo_cells",
    DEFAULT.replace(
        data={"path": "intarsia-demo/cells", "size": (160, 160)},
        transforms={"zoom": (0.8, 1.25), "mirror": "both", "turn": True, "colour": 0.15},
        model={"name": "unet_same", "width": 16, "depth": 3},
        train={"steps": 200, "batch": 8, "lr": 3e-3, "validations": 5},
    ),
)

# Microscopy from random weights: no upright, so all mirrors and quarter turns.
RECIPES.preset(
    "microscopy",
    DEFAULT.replace(
        transforms={"mirror": "both", "turn": True, "zoom": (0.6, 1.6)},
        model={"name": "unet_same", "width": 32},
        train={"lr": 1e-3},
    ),
)

# Street scenes at half resolution with a pretrained encoder.
RECIPES.preset("street", DEFAULT.replace(data={"scale": 0.5}, train={"ema": 0.99}))
