"""What the paper's full grid takes: hours of a card, memory and disk, row by row."""
