"""Rows of the table about providers."""

from __future__ import annotations

from swarmd.api import provider_shapes as shapes
from swarmd.api.providers import ProviderHandlers
from swarmd.api.route import LOCAL_READ, READ, WRITE, Route


def provider_rows(providers: ProviderHandlers) -> tuple[Route, ...]:
    # What asks providers is LOCAL_READ: opening the reads must not let passers-by spend the owner's money.
    return (
        Route(
            method="GET", path="/api/admin/providers", guard=READ, handler=providers.providers, reply=shapes.ProviderList,
            doc="The twelve providers and the custom ones, and whether each has a key; never the keys.",
        ),
        Route(
            method="PUT", path="/api/admin/providers", guard=WRITE, handler=providers.change,
            request=shapes.ProvidersRequest, reply=(shapes.ProvidersChanged, shapes.FeatureOff), status=(200, 400, 404),
            doc="Change keys and custom providers; keys are sealed before they are stored.",
        ),
        Route(
            method="GET", path="/api/admin/provider-models", guard=LOCAL_READ, handler=providers.models,
            reply=shapes.ProviderModelList,
            doc="Models of all providers that have a key; kept for 60 s, then shown as they were while they are asked for.",
        ),
        Route(
            method="GET", path="/api/admin/provider-health", guard=LOCAL_READ, handler=providers.health,
            reply=shapes.HealthList, doc="Each provider asked for one token, side by side, 10 s at most.",
        ),
        Route(
            method="POST", path="/api/admin/provider-model-status", guard=LOCAL_READ, handler=providers.model_status,
            request=shapes.ModelStatusRequest, reply=shapes.ModelStatusList, status=(200, 400, 429), hang_up_cancels=True,
            doc="Up to 20 models of providers asked for one token each; Anthropic's are left out.",
        ),
        Route(
            method="GET", path="/api/admin/claude-subscription/status", guard=LOCAL_READ, handler=providers.subscription,
            reply=(shapes.SubscriptionView, shapes.FeatureOff),
            doc="Whether the claude program is installed and logged in on this machine.",
        ),
        Route(
            method="GET", path="/v1/providers", guard=WRITE, handler=providers.cards, reply=list[shapes.ProviderCard],
            doc="Providers that can be asked, and their models.",
        ),
    )  # fmt: skip
