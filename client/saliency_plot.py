"""A saliency map over its micrograph, as a picture with a colour bar in the target's unit."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from client.saliency import Saliency
from common.federation import Federation
from common.units import symbol


def saliency_png(saliency: Saliency, federation: Federation) -> bytes:
    """Draw a panel for each target, and return the PNG.

    Parameters
    ----------
    saliency : Saliency
    federation : Federation
    """
    height, width = saliency.grey.shape
    panels = len(federation.targets)
    figure = Figure(figsize=(5.4 * panels, 4.6 * max(0.5, height / width)), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for index, (name, target) in enumerate(federation.targets.items()):
        axis, change = axes[index], saliency.change[:, :, index]
        unit = f" {symbol(target.unit)}".rstrip()
        # a map without any change is all white, not noise blown up
        most = float(np.abs(change).max()) or 1.0
        axis.imshow(saliency.grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        drawn = axis.pcolormesh(
            saliency.columns, saliency.rows, change, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.5
        )
        label = f"change when a part is hidden ({symbol(target.unit) or '1'})"
        figure.colorbar(drawn, ax=axis, label=label, shrink=0.8)
        axis.set_title(f"{name.replace('_', ' ')}: {saliency.predicted[index]:.3g}{unit}")
        axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
