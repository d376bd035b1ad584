"""Fitting structural models: in closed form, with cells unseen, and which mechanisms to choose."""
