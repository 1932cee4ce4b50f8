"""What a ResNet makes of the digits with nothing but its defaults."""

import pytest

from tinygrad_rnn.training import ImageConfig, ImageTrainer, RunFolder
from tinygrad_rnn.training.images import images_of


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_that_was_held_out_is_read(tmp_path, seed):
    pytest.importorskip("sklearn")
    config = ImageConfig(images="digits", seed=seed)
    trainer = ImageTrainer(config, images_of(config))
    with RunFolder.create(tmp_path / "run", config) as run:
        assert trainer.train(run).measures["val_accuracy"] >= 0.985
