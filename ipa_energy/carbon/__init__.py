"""What a joule costs the climate: intensities of the grid, over time."""
