"""Nouns and facts of swarmd: what can exist and what can happen.

Standard library only: no asyncio, no I/O, no logging, no clock. Every other floor imports this one; this one imports
nobody. Values are frozen; an expected "no" is a value from `refusals`.
"""
