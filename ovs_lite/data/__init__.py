"""Data: the one record of every data set, and what makes, reads and names it.

record      write_split, load_split                         schema    the record's columns, checked
images      any image file or array -> upright RGB          segments  segment maps
rle         COCO's masks                                    captions  what captions say
prompts     prompt templates                                readers/  real data sets -> records
vocabulary  class names of every set, checked when loaded (vocabularies/*.json)
loaders/    batches as a function of their index
"""
