"""Are intermediate blocks necessary for BERT?"""

__version__ = "0.1.0"
