import pytest

from hbanalysis import arguments
from hbanalysis.errors import InputError

KINDS = {"batch_sizes": "list[int]", "seeds": "list[int]", "learning_rate": "float", "dataset": "str", "fast": "bool"}


def test_assignments_are_read_as_yaml_and_json():
    given = ["batch_sizes=[32, 128]", "learning_rate=1e-3", "dataset=digits", "seeds=null", "fast=true"]
    assert arguments.parse_assignments(given, KINDS, "the study") == {
        "batch_sizes": [32, 128],
        "learning_rate": 1e-3,
        "dataset": "digits",
        "seeds": None,
        "fast": True,
    }


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("batch_size=[32]", "Did you mean 'batch_sizes'"),
        ("seeds=[7.5]", "takes a list[int]"),
        ("seeds=7", "takes a list[int]"),
        ("seeds=[true]", "takes a list[int]"),
        ("learning_rate=fast", "takes a float"),
        ("fast=1", "takes a bool"),
        ("seeds", "name=value"),
        ("seeds=[1, 2", "YAML or JSON"),
    ],
)
def test_wrong_assignments_are_refused_with_a_hint(given: str, hint: str):
    with pytest.raises(InputError, match=hint.replace("[", r"\[")):
        arguments.parse_assignments([given], KINDS, "the study")


def test_text_that_looks_like_a_number_stays_text_where_text_is_asked_for():
    assert arguments.parse("7", "str") == "7"


def test_a_type_that_is_not_known_is_not_judged():
    assert arguments.fits(object(), "Path")
