"""Data: the one record of every data set, and what makes, reads and names it.

record      write_split, load_split and the names that go with records (schema, images, segments, masks, report)
coco        COCO instances and captions -> records          ade20k    ADE20K-150 label maps -> records
iconworld   the miniature world, rendered -> records        prompts   prompt templates
vocabulary  class names of every set, checked when loaded (vocabularies/*.json)
"""
