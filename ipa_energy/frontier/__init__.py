"""What a pipeline reaches with energy in its objective, held against its best without."""
