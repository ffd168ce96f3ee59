"""Which masks a record gives to train on: crowds, unlabelled segments, classes, and masks without segments."""

import numpy as np
import pytest
import torch

from kit.records import scene, toy, without_annotation
from ovs_lite.data.loaders.mask_batches import MaskBatches
from ovs_lite.data.segments import record_masks, segment_ids, semantic_map


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


@pytest.mark.parametrize("crowds", [(), (1,), (1, 3), (1, 2, 3)])
def test_the_mask_of_a_class_is_what_the_semantic_map_gives_it_crowds_included(crowds):
    record = toy("p", scene(), categories={1: 7, 2: 5, 3: 7}, crowds=crowds)
    masks, labels = record_masks(record, per="class")
    classes = semantic_map(record["segments"], record["segments_info"])
    assert labels.tolist() == [5, 7] and all(
        (mask == (classes == c)).all() for mask, c in zip(masks, labels, strict=True)
    )
    assert len(record_masks(record)[0]) == 3 - len(crowds)


@pytest.mark.parametrize("encoded", [True, False])
def test_segments_are_read_from_arrays_and_from_images_alike(encoded):
    record = toy("p", scene(), categories={2: -1}, encoded=encoded)
    assert np.array_equal(segment_ids(record), scene()), "unlabelled segments are shown too"
    assert np.array_equal(record_masks(record)[0], [scene() == 1, scene() == 3])


def test_overlapping_masks_are_stacked_with_the_smallest_on_top():
    big, middle, small = np.zeros((3, 8, 8), bool)
    big[:6], middle[2:, :5], small[3:5, 3:7] = True, True, True
    expected = np.zeros((8, 8), int)
    for number, mask in enumerate((big, middle, small), 1):
        expected[mask] = number
    for order in ((big, middle, small), (small, big, middle)):
        assert np.array_equal(segment_ids(without_annotation(masks=order)), expected)
    assert segment_ids(without_annotation()) is None


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
