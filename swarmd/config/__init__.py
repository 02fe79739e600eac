"""What an operator may set: the settings with their ranges and reasons, and how they are read and written.

Holds no state; the running values live in `app`. Publishes nothing (`app` publishes `SettingsChanged`).
"""
