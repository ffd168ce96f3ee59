"""Data: the one record of every data set, and what makes, reads and names it.

- record, schema, segments, parts: splits of records written and loaded, their columns, segment maps, splits in parts
- images, rle: any image file or array -> upright RGB; COCO's masks
- catalogue, acquire, download, archives: public sets (catalogue.yaml), what is missing of them, bringing, unpacking
- prepare, sources, readers/: what was brought -> records, by a reader for each layout
- captions, caption_text, mismatch: the words of captions, captions as text, captions that belong to other images
- tagging, tagger/: parts of speech, and the shipped weights for them
- entities, chat_entities: phrases of a caption that may name a region, by grammar or by a chat model
- vocabulary, vocabularies/, templates, queries: class names of every set, sentences around a name, what users ask for
- loaders/: batches as a function of their index
"""
