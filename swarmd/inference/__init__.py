"""Running layers: the engine binding, the worker process around it, plans, and generations over several nodes.

Publishes `WorkerReady`, `WorkerDied`, `WorkerStopped`, `GenerationStarted`, `GenerationFinished`, `StageServed`.
Native code runs in worker processes only (`engine` and `worker` are imported by the child); the node process never loads
llama.cpp. Tokens and hidden states are streams, never facts.
"""
