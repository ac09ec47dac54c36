"""The head with its scaler as an ONNX graph: features as extracted in, targets in their units out.

For programs that have features and no crossply. The scaler computes in float64, as
`common.standardise` does, and the head in float32.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import ConfigurationError
from common.release import ReleasedModel
from common.standardise import CLIP

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
"""Of 2022, which every runtime in use reads."""

INPUT, OUTPUT = "features", "targets"


def onnx_bytes(released: ReleasedModel) -> bytes:
    """Return the ONNX file of a released model's head.

    Raises
    ------
    ConfigurationError
        If the package ``onnx`` is not installed.
    """
    onnx = _onnx()
    federation, head = released.federation, released.model.head
    graph = _Graph()
    values = _scaled_in(graph, released)
    num_layers = len(head) // 2
    for layer in range(num_layers):
        weight, bias = head[f"{layer}.weight"], head[f"{layer}.bias"]
        values = graph.add("Gemm", values, weight, bias, transB=1)
        if layer < num_layers - 1:
            values = graph.add("Relu", values)
    _scaled_out(graph, values, released)
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = ("specimens", federation.num_features)
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "crossply-head",
            [helper.make_tensor_value_info(INPUT, kinds.FLOAT, shape)],
            [helper.make_tensor_value_info(OUTPUT, kinds.DOUBLE, ("specimens", None))],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="crossply",
    )
    helper.set_model_props(made, _properties(released))
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


class _Graph:
    """Nodes in their order, and the constants that they use."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, values: str, *constants: np.ndarray, **attributes: Any) -> str:
        """Add an operation on `values` and some constants; return the name of its result."""
        import onnx

        names = []
        for constant in constants:
            names.append(f"constant-{len(self.constants)}")
            held = np.ascontiguousarray(constant)
            self.constants.append(onnx.numpy_helper.from_array(held, names[-1]))
        result = attributes.pop("result", f"value-{len(self.nodes)}")
        made = onnx.helper.make_node(operator, [values, *names], [result], **attributes)
        self.nodes.append(made)
        return str(result)


def _scaled_in(graph: _Graph, released: ReleasedModel) -> str:
    standardiser, kinds = released.model.standardiser, _onnx().TensorProto
    values = graph.add("Cast", INPUT, to=kinds.DOUBLE)
    values = graph.add("Sub", values, standardiser.feature_mean)
    values = graph.add("Div", values, standardiser.feature_scale)
    values = graph.add("Clip", values, np.array(-CLIP), np.array(CLIP))
    values = graph.add("Mul", values, standardiser.feature_weight)
    return graph.add("Cast", values, to=kinds.FLOAT)


def _scaled_out(graph: _Graph, values: str, released: ReleasedModel) -> None:
    standardiser = released.model.standardiser
    values = graph.add("Cast", values, to=_onnx().TensorProto.DOUBLE)
    values = graph.add("Mul", values, standardiser.target_scale)
    graph.add("Add", values, standardiser.target_mean, result=OUTPUT)


def _properties(released: ReleasedModel) -> dict[str, str]:
    federation = released.federation
    units = {name: target.unit for name, target in federation.targets.items()}
    named = federation.named_features
    return {
        "federation": federation.name,
        "fingerprint": federation.fingerprint(),
        "release": released.digest,
        "targets": json.dumps(units),
        "backbone": federation.backbone.name,
        "deep_features": str(federation.num_deep_features),
        "named_features": json.dumps(named),
    }


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ConfigurationError(
            'the package onnx is not installed; install it with: pip install "crossply[onnx]"'
        ) from error
    return onnx
