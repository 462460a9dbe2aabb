"""The model directory as it is: fp32 modules with weights from safetensors."""

from safetensors.torch import load_file

from model_src.bundle import WEIGHTS, Bundle
from model_src.classifier import Classifier, state_of
from model_src.errors import BundleError


def load(bundle: Bundle) -> Classifier:
    """Rebuild the classifier of a model directory, in evaluation mode on the CPU."""
    model = Classifier(bundle.config, bundle.shape, len(bundle.labels))
    state = load_file(bundle.folder / WEIGHTS)
    if set(state) != set(state_of(model)):
        raise BundleError(f"{bundle.folder / WEIGHTS} holds the weights of another model")
    model.load_state_dict(state, strict=False)  # tied weights have more names than the file
    return model.eval()
