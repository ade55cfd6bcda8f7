"""Are intermediate blocks necessary for BERT?"""

import lazy_loader

__version__ = "0.1.0"

# The public names. Each is imported at its first use, since most of them import TensorFlow.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "analysis.diagnostics": ["run_diagnostics"],
        "analysis.probing": ["run_probing"],
        "analysis.similarity": ["run_cka"],
        "config": ["EncoderConfig"],
        "data.corpus.records": ["create_records"],
        "models.checkpoints": ["load_encoder"],
        "models.classifier": ["Classifier"],
        "models.encoder": ["Encoder"],
        "models.pretrainer": ["Pretrainer"],
        "models.span_predictor": ["SpanPredictor"],
        "pattern": ["BlockPattern"],
        "study.study": ["run_study"],
        "training.finetuning": ["finetune"],
        "training.pretraining": ["pretrain"],
    },
)
