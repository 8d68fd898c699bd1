"""Campaigns of faults: what happens to a project whose files are damaged, or whose processes are killed."""
