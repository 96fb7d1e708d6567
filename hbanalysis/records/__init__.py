"""Whole stores: compared, recomputed, checked for damage, exported, and packed to travel."""
