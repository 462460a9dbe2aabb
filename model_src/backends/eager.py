"""The model directory as it is: fp32 modules with weights from safetensors."""

from safetensors.torch import load_file

from model_src.bundle import WEIGHTS, Bundle
from model_src.classifier import Classifier


def load(bundle: Bundle) -> Classifier:
    """Rebuild the classifier of a model directory, in evaluation mode on the CPU."""
    model = Classifier(bundle.config, bundle.shape, len(bundle.labels))
    model.load_state_dict(load_file(bundle.folder / WEIGHTS))
    return model.eval()
