"""OVSeg: CLIP is the bottleneck on masked images; prompts for blank patches repair it.

Paper: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023).
"""
