"""Which masks a record gives to train on: crowds, unlabelled segments, classes, and masks without segments."""

import numpy as np
import pytest
import torch

from kit.records import scene, toy, without_annotation
from ovs_lite.data.loaders.mask_batches import MaskBatches, record_masks


def test_crowds_void_and_unlabelled_segments_are_no_targets():
    record = toy("p", scene(), categories={1: -1}, crowds=(3,))
    masks, labels = record_masks(record)
    assert labels.tolist() == [20] and np.array_equal(masks, [scene() == 2])
    masks, labels = record_masks(toy("p", scene(), categories={1: -1}, crowds=(2, 3)))
    assert masks.shape == (0, 40, 40) and masks.dtype == bool and labels.shape == (0,) and labels.dtype == np.int64


def test_per_class_unites_the_segments_of_a_category():
    record = toy("p", scene(), categories={1: 7, 2: 5, 3: 7})
    masks, labels = record_masks(record, per="class")
    assert labels.tolist() == [5, 7] and masks.dtype == bool
    assert np.array_equal(masks[0], scene() == 2) and np.array_equal(masks[1], np.isin(scene(), (1, 3)))
    empty, none = record_masks(toy("p", scene(), categories={1: -1, 2: -1, 3: -1}), per="class")
    assert empty.shape == (0, 40, 40) and len(none) == 0
    batch = MaskBatches([record], 1, 40, scale=(1, 1), flip=False, per="class")(0)
    assert batch.labels[0].tolist() == [5, 7] and np.array_equal(batch.masks[0].numpy(), masks)


def test_records_with_masks_alone_give_them_without_labels():
    first, second = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    first[1:5, 2:7] = second[3:, 3:] = True  # they overlap
    masks, labels = record_masks(without_annotation(masks=[first, second]))
    assert labels.tolist() == [-1, -1] and np.array_equal(masks, [first, second])
    batch = MaskBatches([without_annotation(masks=[first, second])], 1, 8, scale=(1, 1), flip=False)(0)
    assert np.array_equal(batch.masks[0].numpy(), [first, second]) and batch.labels[0].tolist() == [-1, -1]
    assert batch.labels[0].dtype == torch.int64


@pytest.mark.parametrize("annotated", [True, False])
def test_an_unknown_way_to_count_is_refused(annotated):
    record = toy("p", scene()) if annotated else without_annotation()
    with pytest.raises(ValueError, match="per='instance', expected one of segment, class"):
        record_masks(record, per="instance")


def test_a_mask_of_another_size_than_its_picture_is_refused():
    record = without_annotation(side=8, masks=[np.ones((4, 16), bool)])
    with pytest.raises(ValueError, match=r"RLE size \[4, 16\], expected the image's \[8, 8\]"):
        record_masks(record)
