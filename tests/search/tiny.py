"""A study that takes seconds: the text of its files, with what tests change."""

SPACE = """
[parameters.pair]
choices = ["normal|normal", "laplace|laplace", "logistic|normal", "logistic|logistic"]
[parameters.likelihood]
choices = ["bernoulli", "normal"]
[parameters.learning_rate]
low = 1e-4
high = 1e-2
[fixed]
latent_dim = 2
hidden = [8]
"""
STUDY = """
purpose = "a test"
data = "{data}"
space = "tiny_space.toml"
trials = {trials}
batch = {batch}
{more}
[training]
epochs = {epochs}
batch_size = 500
[score]
samples = 2
points = 20
final_samples = 2
[finals]
top = {top}
seeds = 2
"""


def study(trials=4, batch=2, epochs=1, top=1, data="digits", more=""):
    """The text of a study over the space beside it; `more` are further lines of its first table."""
    return STUDY.format(trials=trials, batch=batch, epochs=epochs, top=top, data=data, more=more)


def write(folder, text=None, space=SPACE):
    """Write a study and its space into a folder; the path of the study."""
    path = folder / "tiny.toml"
    path.write_text(text or study())
    (folder / "tiny_space.toml").write_text(space)
    return path
