"""Functional Dual Anchors: construct inputs for a layer, adapt the layer to them."""
