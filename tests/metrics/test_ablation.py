import numpy as np
import torch

from skgmmcnn import FeatureExtractor
from skgmmcnn.metrics._ablation import Ablation
from skgmmcnn.metrics._parts import Parts


def test_resampled_columns_come_from_other_images_and_all_places(one_channel):
    """Also in a last batch of one, and where neighbours in a batch are alike."""
    owners, places = torch.arange(37.0)[:, None, None].expand(37, 8, 8), torch.arange(64.0).view(8, 8).expand(37, 8, 8)
    images = torch.stack([owners, places, places], 1)
    maps = FeatureExtractor(one_channel[0][0].network_, ["look"], preprocess=None, batch_size=9).fit_transform(images)
    ablation = Ablation(Parts(maps, None, None), ["look"], "resample", np.random.RandomState(0))
    for part in maps.rerun(lambda part: part):
        start, n = part.original.start, len(part.original.decisions)
        columns = ablation.filling("look", part.original.activations["look"], start)
        assert (columns[:, 0] != owners[start : start + n]).all()
        assert all(len(image.unique()) > 20 for image in columns[:, 0])
        assert (columns[:, 1] != places[start : start + n]).float().mean() > 0.9
        assert len(columns[:, 1].unique()) > 35
