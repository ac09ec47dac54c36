"""Do this lab's features mean what they mean elsewhere? A reference set of drawn micrographs.

Labs differ in processors, GPUs, engines and versions, and a head averages what they learn from
their features. The set is drawn, so that every lab has it to the bit. Its vectors were computed
once with the plain network in float32 and are shipped for the default backbone and tile; for any
other, the plain network computes them on the lab's processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from client import tiles
from client.backbones import plain_network
from client.engine_choice import choose_engine
from client.engines import Engine, working_engine
from client.findings import Findings, printable
from common.errors import WeightsError
from common.federation import Backbone, Federation, Imaging
from common.standardise import Standardiser
from common.threads import one_thread

NUM_MICROGRAPHS = 24
SIDE_PX = 320
"""Not the size of a tile, so that resampling is compared too."""

LEAST_COSINE = 0.999
MOST_EFFECT = 0.01

PENALTY = 0.1
"""Of the ridge regression, where the kernel of a micrograph with itself is about 1."""

SHIPPED = Path(__file__).with_name("reference.safetensors")
SHIPPED_BACKBONE = Backbone(name="efficientnet_lite0")
SHIPPED_TILE_PX = 224


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near a lab's vectors of the reference set are to the reference.

    Attributes
    ----------
    cosine : float
        Least, over the micrographs, of the cosine between both vectors.
    effect : float
        Root mean square difference that it makes to a ridge regression's predictions of the drawn
        fibre fraction, as a share of the fraction's standard deviation.
    """

    cosine: float
    effect: float

    @property
    def is_close(self) -> bool:
        """Whether the difference does not matter."""
        return self.cosine >= LEAST_COSINE and self.effect < MOST_EFFECT


def draw_reference_set() -> tuple[np.ndarray, np.ndarray]:
    """Draw the reference micrographs: bright discs on grey, unevenly lit, with noise.

    Only operations that IEEE 754 fixes to the bit, and numpy's PCG64, make a pixel.

    Returns
    -------
    micrographs : ndarray of shape (NUM_MICROGRAPHS, SIDE_PX, SIDE_PX), uint8
    fractions : ndarray of shape (NUM_MICROGRAPHS,), float64
        Share of the area that the discs cover.
    """
    generator = np.random.Generator(np.random.PCG64(20261125))
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float64)
    micrographs, fractions = [], []
    for number in range(NUM_MICROGRAPHS):
        radius = 4.0 + 10.0 * generator.random()
        inside = np.zeros((SIDE_PX, SIDE_PX))
        for y, x in SIDE_PX * generator.random((10 + 12 * number, 2)):
            around = tuple(slice(max(0, int(at - 16)), int(at + 17)) for at in (y, x))
            down, across = rows[around] - y, columns[around] - x
            depth = np.clip(radius - np.sqrt(down * down + across * across), 0.0, 1.0)
            inside[around] = np.maximum(inside[around], depth)
        dark, bright = 0.1 + 0.3 * generator.random(), 0.5 + 0.3 * generator.random()
        light = 1.0 + 0.2 * generator.random() * (columns / SIDE_PX - 0.5)
        grey = (dark + (bright - dark) * inside) * light
        grey = grey + 0.05 * (generator.random(grey.shape) - 0.5)
        micrographs.append(np.rint(255.0 * np.clip(grey, 0.0, 1.0)).astype(np.uint8))
        fractions.append(float(inside.mean()))
    return np.stack(micrographs), np.array(fractions)


def compare_with_reference(engine: Engine, backbone: Backbone, tile_px: int) -> Agreement:
    """Embed the reference set with the engine that this lab uses, and compare.

    Raises
    ------
    WeightsError
        If the backbone's weights are missing, altered or do not fit.
    """
    micrographs, fractions = draw_reference_set()
    cut = reference_tiles(micrographs, tile_px)
    with one_thread():
        return agreement(engine.vectors(cut), reference_vectors(backbone, cut), fractions)


def reference_vectors(backbone: Backbone, cut: np.ndarray) -> np.ndarray:
    """Return the reference: shipped where it is, else computed by the plain network.

    Parameters
    ----------
    backbone : Backbone
    cut : ndarray of shape (NUM_MICROGRAPHS, tile_px, tile_px), float32
        One tile a micrograph.
    """
    plain = backbone.replace(precision="float32", engine="torch")
    if plain == SHIPPED_BACKBONE and cut.shape[1] == SHIPPED_TILE_PX:
        return load_file(SHIPPED)["vectors"]
    return plain_vectors(plain, cut)


def plain_vectors(backbone: Backbone, cut: np.ndarray) -> np.ndarray:
    """Return the vectors that the network gives as it was published, tile by tile.

    Parameters
    ----------
    backbone : Backbone
    cut : ndarray of shape (n_tiles, tile_px, tile_px), float32 in [0, 1]
    """
    network = plain_network(backbone)
    with torch.inference_mode():
        return np.concatenate([network(torch.from_numpy(tile[None])).numpy() for tile in cut])


def agreement(vectors: np.ndarray, reference: np.ndarray, fractions: np.ndarray) -> Agreement:
    """Compare vectors with the reference.

    Parameters
    ----------
    vectors, reference : ndarray of shape (n_micrographs, channels), float32
    fractions : ndarray of shape (n_micrographs,)
        A property that a prediction is made of.

    Examples
    --------
    >>> reference = np.random.default_rng(0).random((8, 5))
    >>> same = agreement(2 * reference, reference, np.arange(8.0))
    >>> round(float(same.cosine), 6), same.is_close
    (1.0, False)
    """
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = (vectors * reference).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    standardiser = Standardiser.fit(
        reference,
        fractions[:, None],
        feature_shift=np.zeros(reference.shape[1]),
        feature_weight=np.ones(reference.shape[1]),
        target_shift=np.zeros(1),
    )
    known, ours = (standardiser.features(part).astype(float) for part in (reference, vectors))
    # ridge regression in its dual form: more features than micrographs
    kernel = known @ known.T + PENALTY * known.shape[1] * np.eye(len(known))
    weights = known.T @ np.linalg.solve(kernel, fractions - fractions.mean())
    moved = (ours - known) @ weights
    return Agreement(
        cosine=float(cosines.min()),
        effect=float(np.sqrt((moved**2).mean()) / fractions.std()),
    )


def check_reference(federation: Federation, findings: Findings) -> None:
    """Note whether this lab's features mean what they mean at other labs."""
    backbone, tile_px = federation.backbone, federation.imaging.tile_px
    try:
        choice, engine = working_engine(backbone, tile_px)
        found = compare_with_reference(engine, backbone, tile_px)
    except WeightsError as error:
        findings.refuse("backbone", error)
        return
    except RuntimeError as error:
        # torch raises it for a GPU that is full, and for one that it was not built for
        reason = str(error).partition("\n")[0]
        findings.stop(
            "backbone",
            f"the network does not run on this machine ({printable(reason)})",
            "free its memory, or update its driver and torch; CUDA_VISIBLE_DEVICES= does without "
            "the GPU",
        )
        return
    if choice != choose_engine(backbone):
        findings.fix(
            "backbone",
            "OpenVINO is installed and does not work; torch is used",
            "install it again, or remove it",
        )
    measured = (
        f"{choice.engine} on the {choice.device.upper()}, {choice.precision}: cosine with the "
        f"reference {found.cosine:.6f}, effect on a prediction {found.effect:.2%}"
    )
    if found.is_close:
        findings.passed("backbone", measured)
    else:
        findings.stop(
            "backbone",
            f"{measured}; features made here would mean something else than at other labs",
            'update torch, OpenCV and drivers, or agree on engine = "torch" and precision = '
            '"float32" under [backbone]',
        )


def write_reference(path: Path = SHIPPED) -> None:
    """Compute the shipped vectors anew: ``python -m client.reference``."""
    cut = reference_tiles(draw_reference_set()[0], SHIPPED_TILE_PX)
    with one_thread():
        save_file({"vectors": plain_vectors(SHIPPED_BACKBONE, cut)}, path)


def reference_tiles(micrographs: np.ndarray, tile_px: int) -> np.ndarray:
    """Resample each reference micrograph to one tile, (n, tile_px, tile_px), float32."""
    plan = tiles.plan(SIDE_PX, SIDE_PX, None, Imaging(scale="fit", tile_px=tile_px))
    grey = micrographs.astype(np.float32) / np.float32(255)
    return np.concatenate([tiles.cut(image, plan) for image in grey])


if __name__ == "__main__":
    write_reference()
