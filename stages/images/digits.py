"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels in 17 gray levels.

E. Alpaydin, C. Kaynak: "Optical Recognition of Handwritten Digits", UCI, 1998, https://doi.org/10.24432/C50P49.
"""

from pathlib import Path

import numpy as np

from stages.images.split import Split, first_of_each_class, shortened
from stages.settings.images import ImageSettings

__all__ = ["Digits"]

# Training images of each digit. The split fixes them; written down, they are known without scikit-learn.
COUNTS = [89, 91, 89, 91, 90, 91, 90, 90, 87, 90]

BRIGHTEST = 16  # the highest gray level


class Digits:
    """The digits. A fixed half of each class is the test split."""

    def __init__(self, settings: ImageSettings):
        self.per_class = settings.per_class
        self.classes = [str(digit) for digit in range(10)]
        self.counts = shortened(COUNTS, self.per_class)

    def read(self, cache: Path | None) -> dict[str, Split]:
        """Both splits. The cache is not used, as there is nothing to decode."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        data = load_digits()
        pixels = np.round(data.images * (255 / BRIGHTEST)).astype(np.uint8)
        images = pixels[:, None]  # one channel
        train_images, test_images, train_labels, test_labels = train_test_split(
            images, data.target, test_size=0.5, stratify=data.target, random_state=0
        )
        train = Split(train_images, train_labels)
        test = Split(test_images, test_labels)
        return {
            "train": first_of_each_class(train, self.per_class),
            "test": first_of_each_class(test, self.per_class),
        }
