"""SVG by hand: markup, colours, scales and three kinds of chart. Knows nothing of merges."""
