"""What `genjax cite` finds in a run's config."""

from genjax.cli.show import references
from genjax.training.experiment import Experiment
from tests.e2e.test_configs import full


def test_components_are_found_by_the_kind_of_their_field():
    """The field `encoder` of this family holds a spatial encoder, and there is an encoder of another kind."""
    found = list(references(Experiment.from_config(full("configs/digits/vq_vae.py")).config))
    assert found.count("vandenoord2017neural") == 3  # the family, its encoder and its decoder
    assert "kingma2015adam" in found


def test_schedules_and_both_players_are_found():
    found = list(references(Experiment.from_config(full("configs/digits/cycle_gan.py")).config))
    assert {"zhu2017unpaired", "johnson2016perceptual", "isola2017image", "mao2017least"} <= set(found)
    assert found.count("kingma2015adam") == 2  # of the translators and of the discriminators
