"""Feature map `sentence_transformers`: a text encoder applied to decoded rollouts."""

from ebft.parts.hooks import Parts, hookimpl
from ebft_sentence_transformers.feature_map import SentenceTransformers


@hookimpl
def register_feature_maps() -> Parts:
    return {"sentence_transformers": SentenceTransformers}
