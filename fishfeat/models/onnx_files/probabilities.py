"""From decision values to probabilities in an ONNX graph; see `predictors.probabilities`."""

from __future__ import annotations

from fishfeat.classify.predictors.probabilities import MIN_PROBABILITY, NEGLIGIBLE
from fishfeat.models.onnx_files.graph import Graph, number, whole


def add_softmax(graph: Graph, logits: str) -> str:
    """Exponentials of float64 (n, n_classes), divided by their sum in each row."""
    return graph.add("Softmax", logits, axis=1)


def add_temperature(graph: Graph, logits: str, inverse_temperature: float) -> str:
    """Probabilities of logits float64 (n, n_classes)."""
    scaled = graph.add("Mul", logits, number(inverse_temperature))
    largest = graph.add("ReduceMax", scaled, whole(1), keepdims=1)
    below = graph.add("Sub", largest, scaled)
    beyond = graph.add("Max", graph.add("Sub", below, number(NEGLIGIBLE)), number(0))
    closer = graph.add("Log", graph.add("Add", beyond, number(1)))
    return add_softmax(graph, graph.add("Add", scaled, graph.add("Sub", beyond, closer)))


def add_logarithm(graph: Graph, proba: str) -> str:
    """Logarithms of probabilities float64 (n, n_classes)."""
    return graph.add("Log", graph.add("Clip", proba, number(MIN_PROBABILITY), number(1)))


def add_division_by_sum(graph: Graph, values: str) -> str:
    """Values float64 (n, n_classes), divided by their sum in each row."""
    total = graph.add("ReduceSum", values, whole(1), keepdims=1)
    return graph.add("Div", values, total)
