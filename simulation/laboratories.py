"""The demo's six labs: what each makes, how it photographs, how it writes, what they agree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulation.composites import Recipe
from simulation.microscopes import Microscope

SIDE_UM = 112.0
DENSEST = 0.66
MAX_POROSITY = 0.12


@dataclass(frozen=True, kw_only=True)
class Process:
    """How a lab makes its laminates: what its specimens' recipes are drawn from.

    Attributes
    ----------
    fibre_fraction, fibre_spread : float
        Mean and standard deviation.
    num_voids, num_pockets, num_cracks : float
        Mean number on a section; no section is quite free of voids.
    void_um : float
        Median diameter of a void.
    """

    fibre_fraction: float
    fibre_spread: float
    num_voids: float
    void_um: float
    num_pockets: float = 0.5
    num_cracks: float = 0.05

    def recipe(self, rng: np.random.Generator) -> Recipe:
        """Draw the recipe of one specimen."""
        fraction = rng.normal(self.fibre_fraction, self.fibre_spread)
        # pressure and moisture of one cure govern all voids of a specimen, hence a common factor
        quality = rng.lognormal(0.0, 0.5)
        num_voids = 1 + min(rng.poisson(self.num_voids - 1), 4)
        voids = self.void_um * quality * rng.lognormal(0.0, 0.15, num_voids)
        pockets = rng.uniform(12, 24, min(rng.poisson(self.num_pockets), 3))
        cracks = rng.uniform(6, 20, min(rng.poisson(self.num_cracks), 2))
        voids = np.sort(np.clip(voids, 4.0, 30.0))[::-1]
        # nobody tests a laminate that is mostly holes
        voids = voids[np.cumsum(voids**2) * np.pi / 4 <= MAX_POROSITY * SIDE_UM**2]
        room = 1 - np.pi / 4 * (np.sum(voids**2) + np.sum(pockets**2)) / SIDE_UM**2
        return Recipe(
            fibre_fraction=float(np.clip(fraction, 0.35, min(0.62, DENSEST * room))),
            voids_um=tuple(voids.tolist()),
            pockets_um=tuple(np.sort(pockets)[::-1].tolist()),
            cracks_um=tuple(np.sort(cracks)[::-1].tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """A virtual lab.

    Attributes
    ----------
    name : str
        Of its folder.
    specimen : str
        Pattern of its specimens' names, with ``{}`` for the number.
    units : dict of str to str
        Unit of each target that it measures.
    dialect : dict
        Keys of ``[data]`` in its ``lab.toml`` that say how its table is written.
    """

    name: str
    specimen: str
    num_specimens: int
    process: Process
    microscope: Microscope
    units: dict[str, str] = field(
        default_factory=lambda: {"tensile_strength": "MPa", "youngs_modulus": "MPa"}
    )
    dialect: dict[str, str] = field(default_factory=dict)


COLUMNS = {"tensile_strength": "TensileStrength", "youngs_modulus": "ModulusOfElasticity"}
IN_UNIT = {"MPa": 1.0, "GPa": 1e-3}

LABS = (
    Laboratory(
        name="university",
        specimen="UD-A-{:03d}",
        num_specimens=40,
        process=Process(fibre_fraction=0.47, fibre_spread=0.05, num_voids=2.2, void_um=12.0),
        microscope=Microscope(num_px=640, blur_um=0.2, noise=0.02),
    ),
    Laboratory(
        name="prepreg_maker",
        specimen="PP{:04d}",
        num_specimens=36,
        process=Process(
            fibre_fraction=0.57, fibre_spread=0.03, num_voids=1.4, void_um=9.0, num_pockets=0.2
        ),
        microscope=Microscope(
            num_px=500, contrast=0.8, brightness=0.45, noise=0.012, bit_depth=16, suffix=".tif"
        ),
        units={"tensile_strength": "MPa", "youngs_modulus": "GPa"},
    ),
    Laboratory(
        name="aircraft_maker",
        specimen="T90-{:03d}",
        num_specimens=32,
        process=Process(fibre_fraction=0.54, fibre_spread=0.035, num_voids=1.6, void_um=11.0),
        microscope=Microscope(
            num_px=560, contrast=1.15, gamma=1.15, noise=0.03, ramp=0.12, suffix=".bmp"
        ),
    ),
    Laboratory(
        name="tank_winder",
        specimen="FW_{:03d}",
        num_specimens=28,
        process=Process(
            fibre_fraction=0.50,
            fibre_spread=0.05,
            num_voids=1.8,
            void_um=12.5,
            num_pockets=1.6,
            num_cracks=0.15,
        ),
        microscope=Microscope(
            num_px=400, brightness=0.56, gamma=0.85, blur_um=0.3, polish=0.035, suffix=".jpg"
        ),
        dialect={"delimiter": ";", "decimal": ","},
    ),
    Laboratory(
        name="institute",
        specimen="RTM-{:03d}",
        num_specimens=28,
        process=Process(
            fibre_fraction=0.52, fibre_spread=0.04, num_voids=1.6, void_um=10.0, num_cracks=0.25
        ),
        microscope=Microscope(num_px=350, contrast=1.1, noise=0.035, ramp=-0.3, blur_um=0.25),
        units={"tensile_strength": "MPa"},
    ),
    Laboratory(
        name="start_up",
        specimen="OOA{:02d}",
        num_specimens=14,
        process=Process(fibre_fraction=0.44, fibre_spread=0.045, num_voids=2.2, void_um=14.0),
        microscope=Microscope(
            num_px=280, brightness=0.46, contrast=0.9, noise=0.045, ramp=0.25, blur_um=0.35
        ),
    ),
)

FEDERATION: dict[str, Any] = {
    "name": "transverse-cfrp-demo",
    "targets": {
        "tensile_strength": {"unit": "MPa", "range": [0, 200]},
        "youngs_modulus": {"unit": "GPa", "range": [0, 50]},
    },
    "imaging": {"scale": "physical", "um_per_px": 0.35, "tile_px": 160, "max_tiles": 4},
    "backbone": {"name": "efficientnet_lite0", "weights": "imagenet"},
    "descriptors": {
        "names": [
            "fibre_area_fraction",
            "fibre_fraction_variation",
            "void_area_fraction",
            "void_count_per_mm2",
            "void_largest_diameter_um",
            "resin_pocket_largest_um",
            "matrix_chord_length_um",
            "crack_length_density",
        ]
    },
    "head": {"hidden": [64], "dropout": 0.1},
    "training": {
        "strategy": "fedavg",
        "rounds": 40,
        "local_epochs": 2,
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
        "batch_size": 16,
        "seed": 0,
    },
    "privacy": {"min_specimens": 10},
}
