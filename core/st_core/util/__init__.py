"""Functions of ``sentence_transformers.util``, by the same names and import paths, imported on first use.

Similarities are tensors, with gradients, and arrays without torch. Names that have no meaning for a loaded model are
refused with a sentence that says what to use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_core.util._absent import refusals

if TYPE_CHECKING:
    from st_core.mining.in_memory import mine_hard_negatives
    from st_core.util.environment import (
        check_package_availability,
        check_version_requirements,
        get_device_name,
        is_accelerate_available,
        is_datasets_available,
        is_dist_initialized,
        is_training_available,
    )
    from st_core.util.file_io import is_sentence_transformer_model
    from st_core.util.misc import (
        append_to_last_row,
        disable_logging,
        fullname,
        import_from_string,
        similarity_fct_name,
    )
    from st_core.util.quantization import quantize_embeddings
    from st_core.util.retrieval import (
        community_detection,
        information_retrieval,
        paraphrase_mining,
        paraphrase_mining_embeddings,
        semantic_search,
    )
    from st_core.util.similarity import (
        SimilarityFunction,
        cos_sim,
        dot_score,
        euclidean_sim,
        manhattan_sim,
        maxsim,
        maxsim_pairwise,
        mean_maxsim,
        mean_maxsim_pairwise,
        pairwise_angle_sim,
        pairwise_cos_sim,
        pairwise_dot_score,
        pairwise_euclidean_sim,
        pairwise_manhattan_sim,
        pytorch_cos_sim,
    )
    from st_core.util.tensor import (
        batch_to_device,
        cat_padded_token_embeddings,
        compute_count_vector,
        normalize_embeddings,
        select_max_active_dims,
        stack_padded_token_embeddings,
        to_scipy_coo,
        truncate_embeddings,
    )

__all__ = [
    "SimilarityFunction",
    "append_to_last_row",
    "batch_to_device",
    "cat_padded_token_embeddings",
    "check_package_availability",
    "check_version_requirements",
    "community_detection",
    "compute_count_vector",
    "cos_sim",
    "disable_logging",
    "dot_score",
    "euclidean_sim",
    "fullname",
    "get_device_name",
    "import_from_string",
    "information_retrieval",
    "is_accelerate_available",
    "is_datasets_available",
    "is_dist_initialized",
    "is_sentence_transformer_model",
    "is_training_available",
    "manhattan_sim",
    "maxsim",
    "maxsim_pairwise",
    "mean_maxsim",
    "mean_maxsim_pairwise",
    "mine_hard_negatives",
    "normalize_embeddings",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "select_max_active_dims",
    "semantic_search",
    "similarity_fct_name",
    "stack_padded_token_embeddings",
    "to_scipy_coo",
    "truncate_embeddings",
]

_WHERE = {
    "SimilarityFunction": "similarity",
    "_convert_to_batch": "tensor",
    "_convert_to_batch_tensor": "tensor",
    "_convert_to_tensor": "tensor",
    "_move_tensors_to_cpu": "tensor",
    "append_to_last_row": "misc",
    "batch_to_device": "tensor",
    "cat_padded_token_embeddings": "tensor",
    "check_package_availability": "environment",
    "check_version_requirements": "environment",
    "community_detection": "retrieval",
    "compute_count_vector": "tensor",
    "cos_sim": "similarity",
    "disable_logging": "misc",
    "dot_score": "similarity",
    "euclidean_sim": "similarity",
    "fullname": "misc",
    "get_device_name": "environment",
    "import_from_string": "misc",
    "information_retrieval": "retrieval",
    "is_accelerate_available": "environment",
    "is_datasets_available": "environment",
    "is_dist_initialized": "environment",
    "is_sentence_transformer_model": "file_io",
    "is_training_available": "environment",
    "manhattan_sim": "similarity",
    "maxsim": "similarity",
    "maxsim_pairwise": "similarity",
    "mean_maxsim": "similarity",
    "mean_maxsim_pairwise": "similarity",
    "mine_hard_negatives": "hard_negatives",
    "normalize_embeddings": "tensor",
    "pairwise_angle_sim": "similarity",
    "pairwise_cos_sim": "similarity",
    "pairwise_dot_score": "similarity",
    "pairwise_euclidean_sim": "similarity",
    "pairwise_manhattan_sim": "similarity",
    "paraphrase_mining": "retrieval",
    "paraphrase_mining_embeddings": "retrieval",
    "pytorch_cos_sim": "similarity",
    "quantize_embeddings": "quantization",
    "select_max_active_dims": "tensor",
    "semantic_search": "retrieval",
    "similarity_fct_name": "misc",
    "stack_padded_token_embeddings": "tensor",
    "to_scipy_coo": "tensor",
    "truncate_embeddings": "tensor",
}

__getattr__ = refusals(__name__, _WHERE)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
