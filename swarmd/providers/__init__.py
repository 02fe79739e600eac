"""Servers of others behind this node: the twelve of the contract, and any number of custom OpenAI-compatible ones.

Why here: the swarm does not know of them. A request goes to one only where the owner gave it a key or added it, and the
client named its model. Below this floor nothing knows of providers, above it dialects see one more source of replies.
"""
