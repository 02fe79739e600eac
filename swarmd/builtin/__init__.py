"""The built-in model: `swarmd-builtin.gguf`, made by `tools/builtin_model` and shipped as package data."""
