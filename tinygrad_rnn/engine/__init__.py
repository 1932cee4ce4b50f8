"""The engine: tensors, the graph, the backward walk, the backends. It knows no op by its meaning."""
