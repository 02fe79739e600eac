"""Measurements. Each against a named alternative that ran in the same minutes, or against a bar; none is a test."""
