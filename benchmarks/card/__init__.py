"""What is to be measured on a GPU that is lent by the minute: `python -m benchmarks.card`."""
