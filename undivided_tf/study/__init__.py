"""The grid of cells and its report."""
