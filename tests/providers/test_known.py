"""The table of the twelve."""

from __future__ import annotations

from swarmd.config.settings import ProvidersSettings
from swarmd.providers.addresses import url_problem
from swarmd.providers.known import ANTHROPIC_MODELS, BY_NAME, TWELVE, custom

NAMES = "anthropic openai deepseek mistral groq nvidia_nim cerebras sambanova fireworks together deepinfra moonshot"


def test_they_are_the_contract_s_twelve() -> None:
    assert [known.name for known in TWELVE] == NAMES.split() == list(BY_NAME)
    for known in TWELVE:
        assert url_problem(known.base_url) is None and known.base_url.startswith("https://") and known.test_model
        assert known.environment and known.services
        chosen = ProvidersSettings(**{f"{known.name}_url": "http://127.0.0.1:1"})
        assert known.chosen_url(chosen) == "http://127.0.0.1:1" and known.chosen_url(ProvidersSettings()) == ""


def test_names_of_models_lead_to_one_provider() -> None:
    prefixes = [prefix for known in TWELVE for prefix in (*known.prefixes, *known.brands)]
    assert len(prefixes) == len(set(prefixes))
    assert all(model.id.startswith("claude-") for model in ANTHROPIC_MODELS)


def test_a_custom_one_speaks_openai() -> None:
    one = custom("mine", "http://10.0.0.1/v1")
    assert (one.key_header, one.test_model, one.prefixes) == ("authorization", "", ())
    assert BY_NAME["anthropic"].key_header == "x-api-key"
