"""Order of the gallery; examples without an entry follow, sorted by name."""

STORIES = [
    "plot_digits.py",
    "plot_photographs.py",
    "plot_what_a_word_is.py",
    "plot_wrong_decision.py",
    "photographs_resnet50.py",
    "photographs_vgg16.py",
    "plot_class_graph.py",
    "plot_trust.py",
    "plot_planted_shortcut.py",
    "plot_choosing_words.py",
    "plot_discriminative_words.py",
    "plot_words_as_features.py",
    "plot_words_across_layers.py",
    "plot_mlp_paths.py",
    "plot_page.py",
    "plot_stored_features.py",
    "two_processes.py",
]


class StoryOrder:
    """Sort key of the examples of a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, example: str) -> tuple[int, str]:
        """Return the position of an example."""
        return (STORIES.index(example) if example in STORIES else len(STORIES)), example

    def __repr__(self) -> str:
        """Return a constant text, so that the key does not change between builds."""
        return "StoryOrder"
