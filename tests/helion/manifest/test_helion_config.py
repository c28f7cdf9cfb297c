"""The fields of a config are those of the installed Helion, in the order that it writes them in."""

from __future__ import annotations

import inspect

import helion

from kernelpkg.manifest.helion_config import FIELDS, ORDER

PARAMETERS = [
    name
    for name, parameter in inspect.signature(helion.Config.__init__).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]


def test_every_parameter_of_a_config_is_a_field():
    assert set(PARAMETERS) <= FIELDS


def test_fields_are_in_the_order_of_helion():
    """Helion has an order of its own, whatever the order of what it is given."""
    config = helion.Config(**dict.fromkeys(reversed(PARAMETERS), 1))
    assert list(config.config) == sorted(PARAMETERS, key=lambda name: ORDER[name])
