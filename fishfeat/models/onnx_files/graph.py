"""Build an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import MissingExtraError

# A version of ONNX that ONNX Runtime 1.14 (2023) and later read.
OPSET, TREE_OPSET, IR_VERSION = 18, 3, 8
TREE_DOMAIN = "ai.onnx.ml"

# The name of a value in the graph, or a constant.
Value = str | NDArray[Any]
Branch = Callable[["Graph"], str]


def import_onnx() -> Any:
    """Import onnx.

    Raises
    ------
    MissingExtraError
        onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 (it checks what is exported)
    except ImportError as error:
        raise MissingExtraError(
            "to 'onnx' needs onnx and onnxruntime: pip install 'fishfeat[onnx]'."
        ) from error
    return onnx


class Graph:
    """Nodes and constants that are added one after the other.

    Parameters
    ----------
    prefix
        How the names of its values begin, unlike those of another graph.

    Attributes
    ----------
    nodes
        The nodes, each after those whose values it takes.
    constants
        The arrays, as initializers of the graph.
    """

    def __init__(self, prefix: str = "fishfeat") -> None:
        self._prefix = prefix
        self._onnx: Any = import_onnx()
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: Value, output: str = "", **attributes: Any) -> str:
        """Add a node with one output.

        Parameters
        ----------
        operator
            Name of the operator of ONNX.
        inputs
            Names of values, or constants.
        output
            Name of the output; '' makes one.
        attributes
            As the operator takes them.

        Returns
        -------
        Name of the output.
        """
        names = [self._name_value(value) for value in inputs]
        output = output or f"{self._prefix}_{len(self.nodes)}_{operator}"
        node = self._onnx.helper.make_node(operator, names, [output], **attributes)
        self.nodes.append(node)
        return output

    def add_trees(self, value: Value, **attributes: Any) -> str:
        """Add a `TreeEnsembleClassifier`; the result is its scores, float32 (n, n_classes)."""
        scores = f"{self._prefix}_{len(self.nodes)}_scores"
        names, labels = [self._name_value(value)], f"{self._prefix}_{len(self.nodes)}_labels"
        node = self._onnx.helper.make_node(
            "TreeEnsembleClassifier", names, [labels, scores], domain=TREE_DOMAIN, **attributes
        )
        self.nodes.append(node)
        return scores

    def split(self, value: Value, sizes: Sequence[int] | NDArray[Any]) -> list[str]:
        """Split the columns of a value into parts, and give their names."""
        outputs = [f"{self._prefix}_{len(self.nodes)}_part_{i}" for i in range(len(sizes))]
        names = [self._name_value(value), self._name_value(np.asarray(sizes, np.int64))]
        self.nodes.append(self._onnx.helper.make_node("Split", names, outputs, axis=1))
        return outputs

    def find_smallest(self, value: Value, n: int) -> str:
        """Find the columns of the `n` smallest values of each row, int64 (n_rows, n)."""
        place = f"{self._prefix}_{len(self.nodes)}_"
        outputs = [f"{place}smallest", f"{place}columns"]
        names = [self._name_value(value), self._name_value(np.array([n], np.int64))]
        node = self._onnx.helper.make_node("TopK", names, outputs, axis=1, largest=0, sorted=1)
        self.nodes.append(node)
        return outputs[1]

    def choose(self, condition: Value, if_true: Branch, if_false: Branch) -> str:
        """Add an `If`: only the branch that is chosen is computed.

        A branch adds nodes to the graph that it is given, and returns the name of its output.
        """
        branches = {}
        for name, branch in (("then_branch", if_true), ("else_branch", if_false)):
            inner = Graph(f"{self._prefix}_{len(self.nodes)}_{name}")
            output = self._onnx.ValueInfoProto(name=branch(inner))
            branches[name] = self._onnx.helper.make_graph(
                inner.nodes, name, [], [output], inner.constants
            )
        return self.add("If", condition, **branches)

    def cast(self, value: Value, dtype: str) -> str:
        """Add a cast to a dtype of numpy."""
        to = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", value, to=to)

    def _name_value(self, value: Value) -> str:
        if isinstance(value, str):
            return value
        name = f"{self._prefix}_constant_{len(self.constants)}"
        stored = np.ascontiguousarray(value).reshape(value.shape)
        self.constants.append(self._onnx.numpy_helper.from_array(stored, name))
        return name


def whole(*numbers: int) -> NDArray[np.int64]:
    """Numbers as int64 (n,), such as axes and shapes."""
    return np.array(numbers, np.int64)


def number(value: float) -> NDArray[np.float64]:
    """A number as float64 ()."""
    return np.array(value, np.float64)
