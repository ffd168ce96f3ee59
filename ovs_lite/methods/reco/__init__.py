"""ReCo: retrieve images of a class, find what they have in common, look for that.

Paper: Shin, Xie and Albanie, "ReCo: Retrieve and Co-segment for Zero-shot Transfer" (NeurIPS 2022), its method section.
Nothing is trained. For every class name:
  retrieve     the k images of an unlabelled bank that CLIP finds nearest to the text;
  co-segment   every place of an image votes by its best match in each of the other images, and the place with the
               largest mean is the image's seed; the normalised mean of the seeds is the class's prototype;
  predict      sigmoid(cos(place, prototype)) * sigmoid(10 * cos(place, text)), the second from MaskCLIP's features.
Departures: one CLIP retrieves, describes places and attends to the text, where the released code has ViT-L/14@336,
DeiT-S/16-SIN and RN50x16; the bank is three drawings of every noun and k is 5, where it takes 50 of ImageNet's 1.2
million; 14 prompt templates instead of 85; no context elimination, no CRF; "vegetation" is not replaced by "tree".
B images, K classes, D joint embedding, N images in the bank, C channels of a dense feature, h w patches.
"""

from ovs_lite.methods.reco.bank import ImageBank
from ovs_lite.methods.reco.method import Reco

METHOD = Reco

__all__ = ["METHOD", "ImageBank", "Reco"]
