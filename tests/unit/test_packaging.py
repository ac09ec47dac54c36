from importlib.metadata import distribution, packages_distributions

import pytest


@pytest.mark.parametrize("name", ["client", "common", "server", "simulation", "crossply"])
def test_no_other_distribution_owns_our_general_names(name: str) -> None:
    assert set(packages_distributions().get(name, ["crossply"])) == {"crossply"}


def test_the_exact_flower_is_installed() -> None:
    assert distribution("flwr").version == "1.41.0"
