"""Measurements. Each prints ratios against a named alternative that ran in the same minutes; none is a test."""
